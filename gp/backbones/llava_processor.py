"""The processor of LLaVA-1.5: images padded to a square or cropped to one, prompts with or without a system line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import transformers
from torch import Tensor
from transformers import AutoImageProcessor, LlamaTokenizer, LlavaImageProcessorPil

from gp.backbones.llava_original import is_original, vision_tower
from gp.backbones.processor import ImageGrids
from gp.backbones.source import BaseSource
from gp.boxes import Frame

IMAGE_TOKEN = "<image>"
SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
# The conversation `vicuna_v1` of the original, images first. Source: haotian-liu/LLaVA, llava/conversation.py.
VICUNA_V1 = (
    f"{{{{ {SYSTEM!r} }}}} "
    "{% for message in messages %}"
    "{{ message.role.upper() }}:"
    "{% if message.content is string %} {{ message.content }}{% else %}"
    "{% for part in message.content if part.type == 'image' %}{{ ' ' if loop.first }}<image>\n{% endfor %}"
    "{% set images = message.content | selectattr('type', 'equalto', 'image') | list %}"
    "{% for part in message.content if part.type == 'text' %}"
    "{{ ' ' if loop.first and not images }}{{ part.text }}{% endfor %}{% endif %}"
    "{{ '</s>' if message.role == 'assistant' else ' ' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


class LlavaProcessor(ImageGrids, transformers.LlavaProcessor):
    """Every image becomes one square of fixed size.

    With `do_pad` the image is first padded to a square with the mean colour, as LLaVA-1.5 was trained; without, the
    longer side is cropped at both ends, as the `llava-hf` conversions are saved. `pixel_values` [n_images, 3, S, S].
    """

    @classmethod
    def load(
        cls,
        source: BaseSource,
        do_pad: bool | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
    ) -> LlavaProcessor:
        """Loads the processor of a base in transformers' naming or in the original one.

        Args:
            do_pad: None: as saved; in the original naming as `image_aspect_ratio` says.
        """
        if min_pixels is not None or max_pixels is not None:
            raise _one_size(min_pixels, max_pixels)
        processor = _of_original(cls, source) if is_original(source.config) else super().load(source)
        if do_pad is not None:
            processor.image_processor = _padding(processor.image_processor, do_pad)
        return processor

    def grids(self, inputs: Mapping[str, Tensor]) -> list[tuple[int, int]]:
        count, _, height, width = inputs["pixel_values"].shape
        return [(height // self.patch_size, width // self.patch_size)] * count

    def pixel_limits(self, min_pixels: int | None, max_pixels: int | None) -> dict[str, Any]:
        raise _one_size(min_pixels, max_pixels)

    def image_frame(self) -> tuple[int, int]:
        """A line break stands behind an image: one token, or two (LLaMA's tokenizer: a space before it)."""
        ids = self.tokenizer(f"{self.image_token}\n{self.image_token}", add_special_tokens=False)["input_ids"]
        first, second = (place for place, token in enumerate(ids) if token == self.image_token_id)
        return 0, second - first - 1

    def frame(self, width: int, height: int) -> Frame:
        """Beyond the image where it was padded, inside it where it was cropped."""
        images = self.image_processor
        square = max(width, height) if _pads(images) else None
        border_x, border_y = ((square - side) // 2 if square else 0 for side in (width, height))
        full_width, full_height = square or width, square or height
        resized_width, resized_height = _resized(images, full_width, full_height)
        seen_width, seen_height = resized_width, resized_height
        if images.do_center_crop:
            seen_width, seen_height = images.crop_size["width"], images.crop_size["height"]
        left, top = (resized_width - seen_width) // 2, (resized_height - seen_height) // 2
        scale_x, scale_y = full_width / resized_width, full_height / resized_height  # image pixels a processed one
        return (
            (left * scale_x - border_x) / width,
            (top * scale_y - border_y) / height,
            ((left + seen_width) * scale_x - border_x) / width,
            ((top + seen_height) * scale_y - border_y) / height,
        )


def _one_size(min_pixels: int | None, max_pixels: int | None) -> ValueError:
    return ValueError(
        f"min_pixels={min_pixels}, max_pixels={max_pixels}: LLaVA-1.5 sees all images in one size; leave them out"
    )


def _pads(images: Any) -> bool:
    """CLIP's image processor has `do_pad` too, but means something else by it."""
    return bool(images.do_pad) and type(images).__name__.startswith("LlavaImageProcessor")


def _resized(images: Any, width: int, height: int) -> tuple[int, int]:
    """(width, height) in pixels after the image processor's resize."""
    if not images.do_resize:
        return width, height
    shortest = images.size.get("shortest_edge")
    if shortest is None:
        return images.size["width"], images.size["height"]
    short, long = sorted((width, height))
    longest = int(shortest * long / short)
    return (shortest, longest) if width <= height else (longest, shortest)


def _padding(images: Any, do_pad: bool) -> LlavaImageProcessorPil:
    """Puts the same settings into the class that can pad to a square; resized by Pillow, as the original does."""
    names: tuple[str, ...] = (
        "size",
        "crop_size",
        "do_resize",
        "do_center_crop",
        "do_rescale",
        "rescale_factor",
        "do_normalize",
    )
    names += ("image_mean", "image_std", "resample", "do_convert_rgb")
    return LlavaImageProcessorPil(do_pad=do_pad, **{name: getattr(images, name) for name in names})


def _original_tokenizer(source: BaseSource) -> LlamaTokenizer:
    """The original encodes the text before and behind an image apart, each with a leading space: `legacy` does so."""
    try:
        return LlamaTokenizer.from_pretrained(
            str(source.place), revision=source.revision or "main", legacy=True, add_bos_token=True, **source.hub
        )
    except (ImportError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{source.place}: cannot read its tokenizer ({reason}); for a tokenizer.model, pip install sentencepiece"
        ) from error


def _of_original(cls: type[LlavaProcessor], source: BaseSource) -> LlavaProcessor:
    """Processor of a base in the original naming, with a LLaMA tokenizer and the image processor of its CLIP tower."""
    config, tokenizer = source.config, _original_tokenizer(source)
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE_TOKEN]})
    image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    if image_token_id != config["vocab_size"]:
        raise ValueError(
            f"{source.place}: expected a tokenizer of {config['vocab_size']} tokens, as many as config.json says, "
            f"behind which the image token comes; the image token got number {image_token_id}"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token
    images = AutoImageProcessor.from_pretrained(vision_tower(source), **source.hub)
    tower = transformers.CLIPVisionConfig.from_pretrained(vision_tower(source), **source.hub)
    return cls(
        _padding(images, do_pad=config.get("image_aspect_ratio") == "pad"),
        tokenizer,
        patch_size=tower.patch_size,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=VICUNA_V1,
    )
