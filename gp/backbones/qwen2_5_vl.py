"""Qwen2.5-VL (3B, 7B, ...) on transformers' stock `Qwen2_5_VLForConditionalGeneration`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from gp.backbones.base import Backbone
from gp.backbones.cropping import Crop
from gp.backbones.downsampling import resize_pixels, shorten_prompts
from gp.backbones.host import execution_devices
from gp.backbones.processor import ImageGrids, Qwen2_5_VLProcessor
from gp.backbones.recording import record_calls, record_outputs
from gp.backbones.tower import OneFrame, PaddedMLPs, patch_products
from gp.backbones.views import view_with_parts
from gp.backbones.vision_attention import fused_attention
from gp.backbones.vision_index import VisionIndex
from gp.backbones.windows import batched_view
from gp.types import ImageFeatures


class Qwen2_5_VL(Backbone):
    """Three rotary axes (time, height, width); vision blocks in windows, 2 x 2 patches merged into a visual token."""

    model_type = "qwen2_5_vl"
    processor: type[ImageGrids] = Qwen2_5_VLProcessor
    prompt_keys = ("input_ids", "attention_mask", "mm_token_type_ids", "pixel_values", "image_grid_thw")
    num_position_axes = 3
    image_frame = (1, 1)

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model)
        self._padded = PaddedMLPs()

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
    def window(self) -> int | None:
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

    @property
    def attention_blocks(self) -> tuple[int, int]:
        """The first and the last block with full attention."""
        return self.vision_config.fullatt_block_indexes[0], self.vision_config.fullatt_block_indexes[-1]

    def encode_images(
        self, inputs: Mapping[str, Tensor], taps: Sequence[int], attended: Sequence[int] = ()
    ) -> ImageFeatures:
        visual = self.model.model.visual
        index = VisionIndex.from_grid(inputs["image_grid_thw"], self.vision_config)
        where = next(execution_devices(visual))
        pixels = inputs["pixel_values"].to(where, non_blocking=True).to(visual.dtype)
        attention = [visual.blocks[k].attn for k in attended]
        tapped = [visual.blocks[k] for k in taps]
        with record_outputs(tapped, self._merged) as outputs, record_calls(attention) as calls:
            seen = self._tower(visual, pixels.shape[1])(
                pixels, grid_thw=inputs["image_grid_thw"].to(where, non_blocking=True), **index.arguments(where)
            )
        raster = index.raster.to(where, non_blocking=True)
        looks = [fused_attention(module, *call, self._merge**2) for module, call in zip(attention, calls)]
        return ImageFeatures(
            seen.pooler_output,
            {k: out[raster.to(out.device)] for k, out in zip(taps, outputs)},
            {k: look.ordered(raster.to(look.keys.device)) for k, look in zip(attended, looks)},
            self._deepstack(seen),
        )

    @property
    def takes_one_frame(self) -> bool:
        return self.fast_tower and bool(patch_products(self.model.model.visual.patch_embed))

    def _tower(self, visual: Any, width: int) -> nn.Module:
        """The tower as it is called: windows in batches; if wanted, patches embedded by a product, and MLPs padded.

        Args:
            width: numbers in a patch: of all its frames, or of one that stands for them.
        """
        view = batched_view(visual)
        if not self.fast_tower:
            return view
        convolution, parts = visual.patch_embed.proj, patch_products(visual.patch_embed)
        if parts and width * convolution.weight.shape[2] == convolution.weight[0].numel():
            parts = {visual.patch_embed: OneFrame(convolution)}
        return view_with_parts(view, parts | self._padded.of(block.mlp for block in visual.blocks))

    def _merged(self, block_output: Tensor) -> Tensor:
        """Mean over the patches of each visual token: [4 N, C] -> [N, C]."""
        return block_output.view(-1, self._merge**2, block_output.shape[-1]).mean(1)

    def downsample(self, inputs: Mapping[str, Tensor], sizes: Sequence[tuple[int, int]]) -> dict[str, Tensor]:
        small = shorten_prompts(inputs, self.image_token_id, self.image_sizes(inputs), sizes)
        grids = [(h * self._merge, w * self._merge) for h, w in sizes]
        patches = inputs["pixel_values"].split(inputs["image_grid_thw"].prod(1).tolist())
        old_grids = inputs["image_grid_thw"][:, 1:].tolist()
        resized = [self._resize(*one) for one in zip(patches, old_grids, grids, strict=True)]
        grid_thw = torch.tensor([[1, *grid] for grid in grids], device=inputs["image_grid_thw"].device)
        return {**small, "pixel_values": torch.cat(resized), "image_grid_thw": grid_thw}

    def crop(self, inputs: Mapping[str, Tensor], crops: Sequence[Crop]) -> dict[str, Tensor]:
        """Patches stand token by token, so those of a box are taken as they are: its pixels are not resized."""
        patches = inputs["pixel_values"].split(inputs["image_grid_thw"].prod(1).tolist())
        sizes = self.image_sizes(inputs)
        taken = []
        for crop in crops:
            (height, width), (top, left, bottom, right) = sizes[crop.image], crop.box
            tokens = patches[crop.image].view(height, width, self._merge**2, -1)[top:bottom, left:right]
            taken.append(tokens.flatten(0, 2))
        return {"pixel_values": torch.cat(taken), **self.image_facts([crop.size for crop in crops])}

    def image_facts(self, sizes: Sequence[tuple[int, int]]) -> dict[str, Tensor]:
        return {"image_grid_thw": torch.tensor([[1, h * self._merge, w * self._merge] for h, w in sizes])}

    def _resize(self, patches: Tensor, old: Sequence[int], new: Sequence[int]) -> Tensor:
        """One image as the processor cuts it, [h w, 3 * frames * side * side]; sizes in patches."""
        side, merge = self.vision_config.patch_size, self._merge
        given = patches.shape[1] // (self.vision_config.in_channels * side**2)  # 1 where one frame stands for all
        frames = patches.view(len(patches), -1, given, side, side)
        if given > 1 and torch.equal(frames[:, :, :-1], frames[:, :, 1:]):  # a still image, once for each frame
            frames = frames[:, :, :1]
        rows = frames.view(old[0] // merge, old[1] // merge, merge, merge, *frames.shape[1:])
        # patches to their places first and lines of pixels then: in one go it takes twice as long
        placed = rows.permute(5, 4, 0, 2, 1, 3, 6, 7).flatten(2, 3).flatten(3, 4)
        image = placed.transpose(3, 4).reshape(*placed.shape[:2], old[0] * side, old[1] * side)
        image = resize_pixels(image, new[0] * side, new[1] * side).expand(given, -1, -1, -1)
        blocks = image.unflatten(3, (new[1] // merge, merge, side)).unflatten(2, (new[0] // merge, merge, side))
        return blocks.permute(2, 5, 3, 6, 1, 0, 4, 7).reshape(new[0] * new[1], -1)

    def _deepstack(self, seen: BaseModelOutputWithPooling) -> dict[int, Tensor]:
        """Decoder layer -> what it adds to the visual tokens; nothing in this family."""
        return {}

    def positions(self, inputs: Mapping[str, Tensor], attention_mask: Tensor) -> Tensor:
        input_ids = inputs["input_ids"]
        grid = inputs.get("image_grid_thw")  # where the ids are
        position_ids, _ = self.model.model.get_rope_index(
            input_ids,
            mm_token_type_ids=(input_ids == self.image_token_id).int(),
            image_grid_thw=grid,
            attention_mask=attention_mask,
        )
        return position_ids
