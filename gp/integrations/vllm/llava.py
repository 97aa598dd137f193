"""LLaVA-1.5 as vLLM serves it, with images pruned between vision tower and decoder.

The family has one rotary axis, and vLLM numbers the tokens of such a model itself, without gaps. Its config is marked
as one of several axes (`gp.integrations.vllm.one_axis`), so that the model is asked; an image then counts as a column
of tokens, and the axis of rows holds the original numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

from torch import Tensor
from vllm.config import VllmConfig
from vllm.model_executor.models.interfaces import SupportsMRoPE, SupportsMultiModalPruning
from vllm.model_executor.models.llava import (
    LlavaDummyInputsBuilder,
    LlavaForConditionalGeneration,
    LlavaMultiModalProcessor,
    LlavaProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from gp.backbones.llava import Llava
from gp.backbones.llava_towers import patches
from gp.integrations.vllm.processing import ImagesOnly, PrunedProcessing, TextBehindImages
from gp.integrations.vllm.pruned import PrunedImages, Size
from gp.integrations.vllm.settings import KEY, Settings
from gp.integrations.vllm.towers import record
from gp.types import ImageFeatures, VisionAttention

ROWS = 1  # the axis that counts
MORE_POSITIONS = 4  # times those of the config: dropped tokens keep theirs


class Info(ImagesOnly, LlavaProcessingInfo):
    """Sizes of images."""


class DummyInputs(TextBehindImages, LlavaDummyInputsBuilder):
    """Made-up prompts."""

    text_behind = "\n"


class Processor(PrunedProcessing, LlavaMultiModalProcessor):
    """Prompts and pixels."""

    refused: ClassVar[Mapping[str, str]] = {"downsample": "LLaVA's tower in vLLM takes images of one size"}

    @cached_property
    def frame(self) -> tuple[int, int]:  # type: ignore[override]
        """A line break stands behind an image; LLaMA's tokenizer makes two tokens of it there."""
        image = self.info.get_hf_processor().image_token
        ids = self.info.get_tokenizer().encode(f"{image}\n{image}", add_special_tokens=False)
        first, second = (place for place, token in enumerate(ids) if token == self._backbone.image_token_id)
        return 0, second - first - 1

    def check(self, ids: Sequence[int], images: int, settings: Settings) -> None:
        """Refuses prompts, too, whose answer could stand behind the last position that the decoder knows."""
        super().check(ids, images, settings)
        config = self.info.ctx.model_config
        vision = config.hf_config.vision_config
        side = vision.image_size // vision.patch_size
        dropped = images * (side**2 - settings.count(side, side))
        limit = MORE_POSITIONS * config.hf_config.text_config.max_position_embeddings
        if config.max_model_len + dropped > limit:
            raise ValueError(
                f"the prompt's images lose {dropped} tokens, which keep their positions: with max_model_len "
                f"{config.max_model_len} an answer could come to position {config.max_model_len + dropped}, and the "
                f"decoder has {limit}; give fewer images, or start with a smaller max_model_len"
            )


@MULTIMODAL_REGISTRY.register_processor(Processor, info=Info, dummy_inputs=DummyInputs)
class PrunedLlavaForConditionalGeneration(
    PrunedImages, LlavaForConditionalGeneration, SupportsMRoPE, SupportsMultiModalPruning
):
    """Stock model behind `PrunedImages`; its decoder is given one row of positions."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        text = vllm_config.model_config.hf_config.text_config
        stated = text.max_position_embeddings
        text.max_position_embeddings = MORE_POSITIONS * stated  # of the table of rotations, whose entries stay the same
        try:
            super().__init__(vllm_config=vllm_config, prefix=prefix)
        finally:
            text.max_position_embeddings = stated

    def grid_of(self, size: Size) -> Size:
        return size[0] * size[1], 1

    def forward(self, input_ids: Tensor | None, positions: Tensor, *args: Any, **kwargs: Any) -> Any:
        return super().forward(input_ids, positions[ROWS] if positions.ndim > 1 else positions, *args, **kwargs)

    def read_tower(
        self, images: Any, sizes: Sequence[Size], blocks: Sequence[int], taps: Sequence[int]
    ) -> list[ImageFeatures]:
        vision: Any = self.vision_tower.vision_model
        assert isinstance(self.outline, Llava)
        tower = self.outline.tower
        states = tower.states(vision)
        if blocks and vision.encoder.layers[0].self_attn.tp_size > 1:
            raise ValueError(f"{KEY}: visionzip reads a vision tower that is on one device")
        if behind := [k for k in taps if k >= len(states)]:
            raise ValueError(f"glimpse: vision layers {behind} are not computed by vLLM, which stops at the last used")
        attention = {block: vision.encoder.layers[block].self_attn.attn for block in blocks}
        with record(attention, made={layer: states[layer] for layer in taps}) as found:
            embeds = self._process_image_input(images)
        features = {
            k: patches(out, tower.num_cls).view(len(embeds), -1, out.shape[-1]) for k, out in found.states.items()
        }
        looks = {block: self._looks(tower, vision, *call) for block, call in found.calls.items()}
        return [
            ImageFeatures(
                one,
                {layer: parts[k] for layer, parts in features.items()},
                {block: parts[k] for block, parts in looks.items()},
            )
            for k, one in enumerate(embeds)
        ]

    def _looks(self, tower: Any, vision: Any, query: Tensor, keys: Tensor) -> list[VisionAttention]:
        """Attention over each image from what a block's attention was called with, [n, num_cls + V, H d]."""
        heads = vision.encoder.layers[0].self_attn.num_heads
        query, keys = (part.unflatten(-1, (heads, -1)).transpose(1, 2).float() for part in (query, keys))
        return [
            VisionAttention(tower.attention(own[None], theirs[None]), theirs.mean(0)[tower.num_cls :])
            for own, theirs in zip(query, keys, strict=True)
        ]
