"""Batches of images of one size through the vision tower, and what is done to them before."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from transformers import PreTrainedModel

from gp.backbones.processor import load_processor
from gp.backbones.qwen2_5_vl import Qwen2_5_VL
from gp.data.pixels import PixelTable
from gp.embedded import BASE_DIR
from gp.embedded.cards.views import through_jpeg

JPEG_SHARE = 0.3


def sometimes_through_jpeg(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """`through_jpeg` for JPEG_SHARE of the calls."""
    return through_jpeg(image) if rng.random() < JPEG_SHARE else image


def to_tensor(images: list[Image.Image]) -> torch.Tensor:
    """Images of one size as uint8 [B, 3, H, W]."""
    return torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2)


def encode_images(model: PreTrainedModel, images: torch.Tensor) -> torch.Tensor:
    """Runs the vision tower, as the rest of the package does, on images of one size.

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
    with _patches_by_matmul(model.model.visual.patch_embed):
        return Qwen2_5_VL(model).encode_images(inputs, taps=()).embeds.unflatten(0, (batch, -1))


@contextmanager
def _patches_by_matmul(patch_embed: nn.Module) -> Iterator[None]:
    """Embeds patches by a matrix product; the stock convolution over patches takes a quarter of a step on a CPU."""
    weight: torch.Tensor = patch_embed.proj.weight  # type: ignore[union-attr, assignment]
    patch_embed.forward = lambda pixels: F.linear(pixels.to(weight.dtype), weight.flatten(1))  # type: ignore[method-assign]
    try:
        yield
    finally:
        del patch_embed.forward


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
    return PixelTable.from_processor(load_processor(BASE_DIR))
