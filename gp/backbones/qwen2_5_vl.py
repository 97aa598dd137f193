"""Qwen2.5-VL (3B, 7B, ...) on transformers' stock `Qwen2_5_VLForConditionalGeneration`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.vision_utils import get_vision_window_index

from gp.backbones.base import Backbone, record_outputs
from gp.backbones.processor import Qwen2_5_VLProcessor
from gp.types import ImageFeatures


class Qwen2_5_VL(Backbone):
    """Three rotary axes (time, height, width); vision blocks in windows, 2 x 2 patches merged into a visual token."""

    model_type = "qwen2_5_vl"
    processor = Qwen2_5_VLProcessor
    prompt_keys = ("input_ids", "attention_mask", "mm_token_type_ids", "pixel_values", "image_grid_thw")

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
        return self.vision_config.depth

    @property
    def window(self) -> int:
        return self.vision_config.window_size // self.vision_config.patch_size // self._merge

    @property
    def _merge(self) -> int:
        return self.vision_config.spatial_merge_size

    def image_sizes(self, inputs: Mapping[str, Tensor]) -> list[tuple[int, int]]:
        grid = inputs.get("image_grid_thw")
        if grid is None:
            return []
        sizes = []
        for time, height, width in grid.tolist():
            if time != 1:
                raise ValueError(f"image_grid_thw has {time} frames in one entry; videos are not pruned, pass images")
            sizes.append((height // self._merge, width // self._merge))
        return sizes

    def encode_images(self, inputs: Mapping[str, Tensor], taps: Sequence[int]) -> ImageFeatures:
        visual = self.model.model.visual
        grid = inputs["image_grid_thw"].to(self.device)
        pixels = inputs["pixel_values"].to(self.device, visual.dtype)
        with record_outputs([visual.blocks[k] for k in taps]) as outputs:
            seen = visual(pixels, grid_thw=grid)
        raster = self._raster_order(grid) if taps else None
        tapped = {k: self._merged(out)[raster] for k, out in zip(taps, outputs)}
        return ImageFeatures(seen.pooler_output, tapped, deepstack=self._deepstack(seen))

    def _raster_order(self, grid: Tensor) -> Tensor:
        """Index that undoes the window order of the vision blocks, [N]."""
        window_order, _ = get_vision_window_index(
            grid, self._merge, self.vision_config.window_size, self.vision_config.patch_size
        )
        return window_order.argsort().to(self.device)

    def _merged(self, block_output: Tensor) -> Tensor:
        """Mean over the patches of each visual token: [4 N, C] -> [N, C]."""
        return block_output.view(-1, self._merge**2, block_output.shape[-1]).mean(1)

    def _deepstack(self, seen: BaseModelOutputWithPooling) -> dict[int, Tensor]:
        """Decoder layer -> what it adds to the visual tokens; nothing in this family."""
        return {}

    def positions(self, inputs: Mapping[str, Tensor], attention_mask: Tensor) -> Tensor:
        input_ids = inputs["input_ids"]
        grid = inputs.get("image_grid_thw")
        position_ids, _ = self.model.model.get_rope_index(
            input_ids,
            mm_token_type_ids=(input_ids == self.image_token_id).int(),
            image_grid_thw=None if grid is None else grid.to(input_ids.device),
            attention_mask=attention_mask,
        )
        return position_ids
