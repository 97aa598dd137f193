"""LLaVA-1.5 (7B, 13B) on transformers' stock `LlavaForConditionalGeneration`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from gp.backbones.base import Backbone, record_outputs
from gp.backbones.llava_original import is_original, load_original
from gp.backbones.llava_processor import LlavaProcessor
from gp.types import ImageFeatures


class Llava(Backbone):
    """One rotary axis; every image is a fixed square of CLIP patches, 24 x 24 for LLaVA-1.5."""

    model_type = "llava"
    processor = LlavaProcessor
    prompt_keys = ("input_ids", "attention_mask", "pixel_values")

    @classmethod
    def reads(cls, config: Mapping[str, Any]) -> bool:
        return super().reads(config) or is_original(config)

    @classmethod
    def load(
        cls,
        source: str | Path,
        config: Mapping[str, Any],
        revision: str | None = None,
        dtype: str | torch.dtype = "auto",
        attn_implementation: str | None = None,
        device_map: Any = None,
    ) -> PreTrainedModel:
        """As in every family; also from weights in the original naming (`gp.backbones.llava_original`)."""
        if is_original(config):
            return load_original(source, config, revision, dtype, attn_implementation, device_map)
        return super().load(source, config, revision, dtype, attn_implementation, device_map)

    @property
    def text_model(self):
        return self.model.model.language_model

    @property
    def vision_config(self):
        return self.model.config.vision_config

    @property
    def vision_hidden_size(self) -> int:
        return self.vision_config.hidden_size

    @property
    def num_vision_taps(self) -> int:
        return self.vision_config.num_hidden_layers + 1

    def image_sizes(self, inputs: Mapping[str, Tensor]) -> list[tuple[int, int]]:
        pixels = inputs.get("pixel_values")
        side = self.vision_config.image_size // self.vision_config.patch_size
        return [] if pixels is None else [(side, side)] * pixels.shape[0]

    def encode_images(self, inputs: Mapping[str, Tensor], taps: Sequence[int]) -> ImageFeatures:
        """Tap k is CLIP's hidden state k: 0 is the embedding output, k the output of block k - 1; without [CLS]."""
        layers = self._hidden_state_modules()
        pixels = inputs["pixel_values"].to(self.device, self.dtype)
        with record_outputs([layers[k] for k in taps]) as recorded:
            per_image = self.model.get_image_features(pixel_values=pixels).pooler_output
        return ImageFeatures(
            torch.cat([features.flatten(0, -2) for features in per_image]),
            {k: out[:, 1:].flatten(0, 1) for k, out in zip(taps, recorded)},
        )

    def positions(self, inputs: Mapping[str, Tensor], attention_mask: Tensor) -> Tensor:
        """Counted from each row's first real token."""
        return (attention_mask.long().cumsum(1) - 1).clamp(min=0).unsqueeze(0)

    def _hidden_state_modules(self) -> list[nn.Module]:
        """The modules whose outputs are CLIP's hidden states 0, 1, ..."""
        tower = self.model.model.vision_tower
        tower = getattr(tower, "vision_model", tower)  # one level deeper in some transformers versions
        return [tower.pre_layrnorm, *tower.encoder.layers]
