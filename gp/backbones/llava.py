"""LLaVA-1.5 (7B, 13B), and models built like it, on transformers' stock `LlavaForConditionalGeneration`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from gp.backbones.base import Backbone
from gp.backbones.cropping import Crop
from gp.backbones.downsampling import resize_pixels, shorten_prompts
from gp.backbones.host import execution_devices, fetched
from gp.backbones.llava_original import is_original, load_original, original_config
from gp.backbones.llava_processor import LlavaProcessor
from gp.backbones.llava_towers import TOWERS, ClipTower, SiglipTower, attention_of, patches
from gp.backbones.recording import record_calls, record_outputs
from gp.backbones.source import BaseSource
from gp.types import ImageFeatures


class Llava(Backbone):
    """One rotary axis; every image is a square of patches, 24 x 24 for LLaVA-1.5 unless downsampled."""

    model_type = "llava"
    processor = LlavaProcessor
    prompt_keys = ("input_ids", "attention_mask", "pixel_values")
    image_frame = (0, 1)  # a line break behind
    one_image_size = True

    @classmethod
    def reads(cls, config: Mapping[str, Any]) -> bool:
        return super().reads(config) or is_original(config)

    @classmethod
    def load(cls, source: BaseSource, **options: Any) -> PreTrainedModel:
        """Loads a base like any family, or from weights in the original naming (`gp.backbones.llava_original`)."""
        load = load_original if is_original(source.config) else super().load
        return load(source, **options)

    def check_base(self) -> None:
        super().check_base()
        config = self.model.config
        kind, strategy = self.vision_config.model_type, config.vision_feature_select_strategy
        if kind not in TOWERS:
            raise ValueError(f"LLaVA with a vision tower of type {kind!r}; {' and '.join(map(repr, TOWERS))} work")
        if strategy != self.tower.strategy:
            raise ValueError(
                f"LLaVA with vision_feature_select_strategy {strategy!r}; a tower of type {kind!r} works with "
                f"{self.tower.strategy!r}, which takes all patches and no [CLS] token: it has no place in the grid "
                "of an image's tokens"
            )
        if hasattr(self.text_model.layers[0].self_attn, "q_norm"):
            raise ValueError(
                f"LLaVA with a decoder of type {self.text_config.model_type!r}, which normalises queries; one that "
                "projects and rotates them works, as LLaMA does"
            )

    @classmethod
    def stock_config(cls, source: BaseSource) -> PretrainedConfig:
        """As of any family, or put together from the original layout's."""
        return original_config(source) if is_original(source.config) else super().stock_config(source)

    @property
    def text_model(self):
        return self.model.model.language_model

    @property
    def vision_config(self):
        return self.model.config.vision_config

    @property
    def tower(self) -> type[ClipTower] | type[SiglipTower]:
        """What is peculiar to the base's vision tower."""
        return TOWERS[self.vision_config.model_type]

    @property
    def attends_from_cls(self) -> bool:  # type: ignore[override]
        return self.tower.num_cls > 0

    @property
    def vision_hidden_size(self) -> int:
        return self.vision_config.hidden_size

    @property
    def num_vision_taps(self) -> int:
        return self.vision_config.num_hidden_layers + 1

    @property
    def attention_blocks(self) -> tuple[int, int]:
        """Block a quarter of the way up, and the last one whose output the projector takes."""
        depth = self.vision_config.num_hidden_layers
        taken = self.model.config.vision_feature_layer
        states = [layer % (depth + 1) for layer in ([taken] if isinstance(taken, int) else taken)]
        return max(depth // 4 - 1, 0), max(*states, 1) - 1

    def image_sizes(self, inputs: Mapping[str, Tensor]) -> list[tuple[int, int]]:
        pixels = inputs.get("pixel_values")
        if pixels is None:
            return []
        height, width = (side // self.vision_config.patch_size for side in pixels.shape[-2:])
        return [(height, width)] * pixels.shape[0]

    def encode_images(
        self, inputs: Mapping[str, Tensor], taps: Sequence[int], attended: Sequence[int] = ()
    ) -> ImageFeatures:
        """Tap k is the tower's hidden state k: 0 is the embedding output, k that of block k - 1; without [CLS]."""
        tower = self.tower
        states: list[Any] = tower.states(self.model.model.vision_tower)
        attention = [states[k + 1].self_attn for k in attended]
        where = next(execution_devices(self.model.model.vision_tower))
        pixels = inputs["pixel_values"].to(where, non_blocking=True).to(self.dtype)
        full_side = tuple(pixels.shape[-2:]) == (self.vision_config.image_size,) * 2
        smaller = {} if full_side else {"interpolate_pos_encoding": True}
        parts = self.model.model.vision_tower.named_modules()
        without_cls = partial(patches, num_cls=tower.num_cls)
        interpolated = [part for name, part in parts if smaller and name.endswith("position_embedding")]
        recorded = record_outputs([states[k] for k in taps], without_cls), record_calls(attention)
        with recorded[0] as outputs, recorded[1] as calls, fetched(interpolated):
            per_image = self.model.get_image_features(pixel_values=pixels, **smaller).pooler_output
        return ImageFeatures(
            torch.cat([features.flatten(0, -2) for features in per_image]),
            dict(zip(taps, outputs)),
            {k: attention_of(tower, module, *call) for k, module, call in zip(attended, attention, calls)},
        )

    def downsample(self, inputs: Mapping[str, Tensor], sizes: Sequence[tuple[int, int]]) -> dict[str, Tensor]:
        if len(set(sizes)) > 1:
            raise ValueError(
                f"LLaVA takes images of one size in a batch, got {sorted(set(sizes))} tokens: ask one by one"
            )
        small = shorten_prompts(inputs, self.image_token_id, self.image_sizes(inputs), sizes)
        height, width = (side * self.vision_config.patch_size for side in sizes[0])  # one size for all images
        return {**small, "pixel_values": resize_pixels(inputs["pixel_values"], height, width)}

    def crop(self, inputs: Mapping[str, Tensor], crops: Sequence[Crop]) -> dict[str, Tensor]:
        """Each part resized to the side that the tower was trained with."""
        patch, side = self.vision_config.patch_size, self.vision_config.image_size
        parts = []
        for crop in crops:
            top, left, bottom, right = (patch * edge for edge in crop.box)
            part = inputs["pixel_values"][crop.image : crop.image + 1, :, top:bottom, left:right]
            parts.append(resize_pixels(part, side, side))
        return {"pixel_values": torch.cat(parts)}

    def fit_box(self, box: tuple[int, int, int, int], grid: tuple[int, int]) -> tuple[int, int, int, int]:
        """A square around the box, moved into the image."""
        top, left, bottom, right = box
        side = min(max(bottom - top, right - left), *grid)
        top = min(max((top + bottom - side) // 2, 0), grid[0] - side)
        left = min(max((left + right - side) // 2, 0), grid[1] - side)
        return top, left, top + side, left + side

    def positions(self, inputs: Mapping[str, Tensor], attention_mask: Tensor) -> Tensor:
        """Positions counted from each row's first real token."""
        return (attention_mask.long().cumsum(1) - 1).clamp(min=0).unsqueeze(0)
