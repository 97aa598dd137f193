"""Stage 1: the vision tower on a batch of scenes, and dense heads that read every visual token."""

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

from gp.backbones.qwen2_5_vl import Qwen2_5_VL
from gp.data.pixels import PixelTable
from gp.embedded.making.model import build_processor
from gp.embedded.making.scene_stream import COLOR_CLASSES, IGNORE, SHAPE_CLASSES


def encode_images(model: PreTrainedModel, images: torch.Tensor) -> torch.Tensor:
    """Run the vision tower, as the rest of the package does, on images of one size.

    Args:
        model: `Qwen2_5_VLForConditionalGeneration`.
        images: uint8 [B, 3, H, W], sides multiples of the pixels of a visual token (28).

    Returns:
        Visual tokens [B, V, D] in raster order.
    """
    config: Any = model.config.vision_config
    batch = len(images)
    grid = torch.tensor([[1, *(side // config.patch_size for side in images.shape[2:])]]).expand(batch, -1)
    levels = patchify(images, config.patch_size, config.spatial_merge_size)
    inputs = {"pixel_values": _pixel_table()(levels), "image_grid_thw": grid}
    return Qwen2_5_VL(model).encode_images(inputs, taps=()).embeds.unflatten(0, (batch, -1))


def patchify(images: torch.Tensor, patch_size: int, merge_size: int) -> torch.Tensor:
    """Patches in the order of Qwen's image processor, which takes images one by one.

    Args:
        images: uint8 [B, 3, H, W], sides multiples of patch_size * merge_size.

    Returns:
        uint8 [B * N, 3 * patch_size**2], the merge_size**2 patches of one visual token next to each other.
    """
    batch, channels, height, width = images.shape
    rows, columns = height // (patch_size * merge_size), width // (patch_size * merge_size)
    # [B, C, rows, merge, patch, columns, merge, patch] -> [B, rows, columns, merge, merge, C, patch, patch]
    pixels = images.reshape(batch, channels, rows, merge_size, patch_size, columns, merge_size, patch_size)
    return pixels.permute(0, 2, 5, 3, 6, 1, 4, 7).reshape(-1, channels * patch_size**2)


@cache
def _pixel_table() -> PixelTable:
    """Pixel values of the embedded model's processor."""
    return PixelTable.from_processor(build_processor())


class DenseHeads(nn.Module):
    """Linear heads that name colour, shape, left and right digit of the card under every visual token."""

    def __init__(self, hidden_size: int):
        super().__init__()
        self.sizes = [len(COLOR_CLASSES), len(SHAPE_CLASSES), 10, 10]
        self.linear = nn.Linear(hidden_size, sum(self.sizes))

    def forward(self, tokens: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean cross-entropy summed over the four heads, and their accuracies.

        Args:
            tokens: [B, V, D]. targets: int64 [B, 4, V], -100 where ignored.

        Returns:
            Loss (scalar) and accuracies float32 [4] (nan where a head has no target).
        """
        losses, accuracies = [], []
        for index, logits in enumerate(self.linear(tokens).split(self.sizes, dim=-1)):
            target = targets[:, index]
            losses.append(F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=IGNORE))
            known = target != IGNORE
            accuracies.append((logits.argmax(-1) == target)[known].float().mean())
        return torch.stack(losses).sum(), torch.stack(accuracies)
