"""What a Qwen-style vision tower derives from the images' grids, computed once and on the host.

The tower would compute it from a grid on the device, waiting for the device each time; and with kernels other than
FlashAttention every block reads where its windows end, which costs nothing if that is on the host.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PretrainedConfig, vision_utils
from transformers.vision_utils import get_vision_cu_seqlens, get_vision_position_ids, get_vision_window_index

from gp.backbones import windows

TAKES_GREATEST_LENGTH = hasattr(vision_utils, "get_max_seqlen")  # newer transformers; others ask the device for it


@dataclass(frozen=True)
class VisionIndex:
    """Of the images of one batch; all tensors on the host.

    Args:
        raster: [N] int64, where each visual token, in raster order, is among the tower's own.
        tensors: argument of the tower -> its value, for towers that take it.
        is_flash: whether the tower's attention kernel wants the sequences' ends on the device.
    """

    raster: Tensor
    tensors: dict[str, Tensor] = field(default_factory=dict)
    is_flash: bool = False

    @classmethod
    def of(cls, grid: Tensor, config: PretrainedConfig) -> VisionIndex:
        """For `image_grid_thw` [n, 3] on the host and the tower's config."""
        merge = config.spatial_merge_size
        tensors = {}
        if takes_precomputed(get_vision_position_ids):
            tensors["position_ids"] = get_vision_position_ids(grid, merge)
        if takes_precomputed(get_vision_cu_seqlens):
            tensors["cu_seqlens"] = get_vision_cu_seqlens(grid)
        raster = torch.arange(int(grid.prod(1).sum()) // merge**2)
        if getattr(config, "window_size", None):
            order, ends = get_vision_window_index(grid, merge, config.window_size, config.patch_size)
            if takes_precomputed(get_vision_window_index):
                order, ends = windows.side_by_side(order, ends, get_vision_cu_seqlens(grid)[1:])
                tensors |= {"window_index": order, "cu_window_seqlens": ends}
            raster = order.argsort()
        kernel = config._attn_implementation or ""
        return cls(raster, tensors, "flash" in kernel and kernel != windows.NAME)

    def arguments(self, device: torch.device) -> dict[str, Tensor | int]:
        """What the tower is called with, each tensor where it is needed."""
        if not self.is_flash:
            return {
                name: tensor if name.startswith("cu_") else tensor.to(device, non_blocking=True)
                for name, tensor in self.tensors.items()
            }
        greatest = {
            f"max_{name.removeprefix('cu_').removesuffix('s')}": int(ends.diff().max())
            for name, ends in self.tensors.items()
            if name.startswith("cu_") and TAKES_GREATEST_LENGTH
        }
        return {name: tensor.to(device, non_blocking=True) for name, tensor in self.tensors.items()} | greatest


def takes_precomputed(function: Callable) -> bool:
    """Whether this version of transformers lets the tower's caller compute what the function returns."""
    return "kwargs" in inspect.signature(function).parameters
