"""Pixel values travel from the worker to the device as 8-bit levels, an eighth of the bytes (LLaVA: a quarter).

A resized image has 256 levels, and what image processors do to it afterwards (rescaling, normalising) depends on level
and channel only. So workers send levels, and the device that uses a batch looks the values up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

LEVELS = 256
AS_IT_IS = {"do_resize": False, "do_center_crop": False, "do_pad": False}


@dataclass(frozen=True)
class PixelTable:
    """Pixel values that an image processor makes of 8-bit levels.

    Args:
        values: [3, 256], the pixel value of each level in each channel.
        frames: how often it repeats an image: `temporal_patch_size` in the Qwen family, else 1.
    """

    values: Tensor
    frames: int

    @classmethod
    def from_processor(cls, processor: Any) -> PixelTable:
        """Asks the processor itself with an image of all levels, so the values are its own to the last bit.

        Args:
            processor: of a base, from `gp.backbones.processor.load_processor`.
        """
        images = processor.image_processor
        side = 16 * getattr(images, "patch_size", 1) * getattr(images, "merge_size", 1)  # at least 256 pixels
        picture = np.resize(np.arange(LEVELS, dtype=np.uint8), (side, side, 1)).repeat(3, axis=2)
        given = {"images": [picture], "input_data_format": "channels_last", "return_tensors": "pt", **AS_IT_IS}
        values = images(**given)["pixel_values"]
        levels = images(**given, **processor.levels_only)["pixel_values"]
        frames = values.numel() // levels.numel()
        values = values.reshape(len(values), 3, frames, -1)[:, :, 0].transpose(0, 1).flatten(1)  # [3, pixels]
        levels = levels.reshape(len(levels), 3, -1).transpose(0, 1).flatten(1)
        return cls(values.new_empty(3, LEVELS).scatter_(1, levels.long(), values), frames)

    def __call__(self, levels: Tensor) -> Tensor:
        """The processor's pixel values, on the device of `levels`.

        Args:
            levels: uint8 [N, 3 * P] (patches of P pixels) or [N, 3, H, W].

        Returns:
            [N, 3 * frames * P] or [N, 3, H, W], of the processor's dtype.
        """
        num_patches, pixels = len(levels), levels.reshape(len(levels), 3, -1)
        made = _empty((num_patches, 3, self.frames, pixels.shape[2]), self.values)
        for channel, values in enumerate(self.values):
            made[:, channel] = values.index_select(0, pixels[:, channel].int().flatten()).view(num_patches, 1, -1)
        return made.view(num_patches, self.frames * levels.shape[1], *levels.shape[2:])


def _empty(shape: Sequence[int], like: Tensor) -> Tensor:
    """Allocates memory, on a CPU by NumPy: it takes huge pages; touching small ones takes longer than the lookup."""
    if like.device.type != "cpu":
        return like.new_empty(shape)
    return torch.from_numpy(np.empty(shape, like.numpy().dtype))
