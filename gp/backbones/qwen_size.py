"""The size that Qwen's image processors give an image."""

from __future__ import annotations

from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize


def resized(size: tuple[int, int], factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Takes and gives (width, height) in pixels.

    Args:
        size: of the image.
        factor: both sides become multiples of it; the side of a visual token.
        min_pixels, max_pixels: area of the result.

    Raises:
        ValueError: one side is more than 200 times the other.
    """
    width, height = size
    height, width = smart_resize(height, width, factor, min_pixels, max_pixels)
    return width, height
