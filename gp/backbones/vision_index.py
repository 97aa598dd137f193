"""Indices that a Qwen-style vision tower derives from the images' grids, computed once and on the host.

The tower would compute it from a grid on the device, waiting for the device each time; and with kernels other than
FlashAttention every block reads where its windows end, which costs nothing if that is on the host.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PretrainedConfig
from transformers.vision_utils import get_vision_cu_seqlens, get_vision_position_ids, get_vision_window_index

from gp.backbones import windows


@dataclass(frozen=True)
class VisionIndex:
    """Indices of the images of one batch; all tensors on the host.

    Args:
        raster: [N] int64, where each visual token, in raster order, is among the tower's own.
        tensors: argument of the tower -> its value.
        is_flash: whether the tower's attention kernel wants the sequences' ends on the device.
    """

    raster: Tensor
    tensors: dict[str, Tensor]
    is_flash: bool = False

    @classmethod
    def from_grid(cls, grid: Tensor, config: PretrainedConfig) -> VisionIndex:
        """Computes the indices from `image_grid_thw` [n, 3] on the host and the tower's config."""
        merge, image_ends = config.spatial_merge_size, get_vision_cu_seqlens(grid)
        tensors = {"position_ids": get_vision_position_ids(grid, merge), "cu_seqlens": image_ends}
        raster = torch.arange(int(grid.prod(1).sum()) // merge**2)
        if getattr(config, "window_size", None):
            order, ends = get_vision_window_index(grid, merge, config.window_size, config.patch_size)
            order, ends = windows.side_by_side(order, ends, image_ends[1:])
            tensors |= {"window_index": order, "cu_window_seqlens": ends}
            raster = order.argsort()
        return cls(raster, tensors, "flash" in (config._attn_implementation or ""))

    def arguments(self, device: torch.device) -> dict[str, Tensor | int]:
        """Arguments of the tower's call, each tensor where it is needed."""
        if not self.is_flash:
            return {
                name: tensor if name.startswith("cu_") else tensor.to(device, non_blocking=True)
                for name, tensor in self.tensors.items()
            }
        greatest = {
            f"max_{name.removeprefix('cu_').removesuffix('s')}": int(ends.diff().max())
            for name, ends in self.tensors.items()
            if name.startswith("cu_")
        }
        return {name: tensor.to(device, non_blocking=True) for name, tensor in self.tensors.items()} | greatest
