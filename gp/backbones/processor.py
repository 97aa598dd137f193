"""Processors: transformers' own classes, and what training and pictures ask of them beside tensors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import transformers
from torch import Tensor
from transformers import ProcessorMixin

from gp.backbones.source import BaseSource
from gp.boxes import WHOLE_IMAGE, Frame

MARKED = ("image", "video", "vision")  # in the names of such tokens

if TYPE_CHECKING:
    from typing_extensions import Self


class ImageGrids(ABC):
    """Mixed into a family's stock processor; the class keeps its parent's name, which `save_pretrained` writes.

    `levels_only`: the call's `images_kwargs` for pixel values that are resized 8-bit pixels and no more, each once.
    """

    image_processor: Any  # both from the stock class
    tokenizer: Any

    levels_only: ClassVar[dict[str, Any]] = {"do_rescale": False, "do_normalize": False}

    @classmethod
    def load(cls, source: BaseSource, **options: Any) -> Self:
        """Loads the processor of a base; `options` replace saved settings."""
        stock: Any = cls  # the class that this one is mixed into
        return stock.from_pretrained(str(source.place), revision=source.revision or "main", **source.hub, **options)

    @abstractmethod
    def grids(self, inputs: Mapping[str, Tensor]) -> list[tuple[int, int]]:
        """(height, width) in visual tokens of every image of what this processor returned, in order."""

    @abstractmethod
    def pixel_limits(self, min_pixels: int | None, max_pixels: int | None) -> dict[str, Any]:
        """The call's `images_kwargs` for areas of at least and at most so many pixels; None: as saved."""

    def image_frame(self) -> tuple[int, int] | None:
        """Text tokens before and behind those of an image that belong to it; None: as the family says.

        For families in which it depends on the tokenizer.
        """
        return None

    def markers(self) -> list[str]:
        """Texts that stand for images, videos and their ends in a prompt; none of them can be a part of a question."""
        added = (token for token in self.tokenizer.get_added_vocab() if any(word in token for word in MARKED))
        named = (getattr(self, f"{word}_token", None) for word in MARKED)
        return sorted({*added, *(token for token in named if isinstance(token, str))})

    def frame(self, width: int, height: int) -> Frame:
        """Rectangle that the grid of visual tokens lies over, as fractions of an image of so many pixels."""
        return WHOLE_IMAGE


class QwenImages(ImageGrids):
    """Qwen's processors for images and text, without their video processor.

    The stock classes insist on a video processor, and every video processor insists on torchvision. What a processor
    loads and checks follows the names in its constructor, so leaving `video_processor` out of it is enough.
    """

    levels_only: ClassVar[dict[str, Any]] = {**ImageGrids.levels_only, "temporal_patch_size": 1}

    @classmethod
    def load(
        cls,
        source: BaseSource,
        do_pad: bool | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        **options: Any,
    ) -> Self:
        """Loads the processor of a base; `min_pixels` and `max_pixels` replace the saved ones."""
        if do_pad is not None:
            raise ValueError(f"do_pad={do_pad}: only LLaVA pads images to a square; {source.place} takes any size")
        processor = super().load(source, **options)
        if min_pixels is not None or max_pixels is not None:
            images = processor.image_processor  # handed over when loading, they would be handed on at every call
            images.size = type(images.size)(**processor.pixel_limits(min_pixels, max_pixels)["size"])
        return processor

    def __init__(self, image_processor=None, tokenizer=None, chat_template=None, **kwargs):
        super().__init__(image_processor, tokenizer, chat_template=chat_template, **kwargs)  # type: ignore[call-arg]

    def __call__(self, images=None, text=None, videos=None, **kwargs):
        """Calls the parent; the result has `input_ids`, `pixel_values` [n_patches, C], `image_grid_thw`, ...

        Raises:
            ValueError: videos were passed.
        """
        if videos is not None:
            raise ValueError("this processor takes images and text, got videos: gp prunes the tokens of images only")
        return super().__call__(images=images, text=text, **kwargs)  # type: ignore[misc]  # the stock class has it

    def grids(self, inputs: Mapping[str, Tensor]) -> list[tuple[int, int]]:
        merge = self.image_processor.merge_size
        return [(height // merge, width // merge) for _, height, width in inputs["image_grid_thw"].tolist()]

    def pixel_limits(self, min_pixels: int | None, max_pixels: int | None) -> dict[str, Any]:
        wanted = {"shortest_edge": min_pixels, "longest_edge": max_pixels}  # areas, whatever these names say
        own = self.image_processor.size
        return {"size": {key: own[key] if area is None else area for key, area in wanted.items()}}


class Qwen2_5_VLProcessor(QwenImages, transformers.Qwen2_5_VLProcessor):
    """Processor of Qwen2.5-VL and of the embedded model; patches of 14 px, `pixel_values` [n_patches, 1176]."""


class Qwen3VLProcessor(QwenImages, transformers.Qwen3VLProcessor):
    """Processor of Qwen3-VL; patches of 16 px, `pixel_values` [n_patches, 1536]."""


def load_processor(
    name_or_dir: str | Path, revision: str | None = None, hub: Mapping[str, Any] | None = None, **options: Any
) -> ProcessorMixin:
    """Load the processor of a supported base, for images and text.

    Works whether or not torchvision is installed: without it images go through transformers' Pillow classes.

    Args:
        name_or_dir: model id on the Hub or a local folder.
        revision: branch, tag or commit on the Hub; None is the default branch.
        hub: how files are fetched, see `gp.backbones.source.BaseSource`.
        options: settings that replace the saved ones; None: as saved. Qwen: `min_pixels`, `max_pixels`;
            LLaVA: `do_pad` (see `gp.backbones.llava_processor`).

    Returns:
        The family's stock processor with `ImageGrids`, padding on the left, as batched generation needs.

    Raises:
        OSError: there is no such folder or model, or it lacks a file.
        ValueError: no such family, or options that it does not have.
    """
    from gp.backbones import find_family  # the families import this file

    family, source = find_family(name_or_dir, revision, hub)
    given = {name: value for name, value in options.items() if value is not None}
    processor: Any = family.processor.load(source, **given)
    processor.tokenizer.padding_side = "left"
    return processor
