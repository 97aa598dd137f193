"""Several questions behind one prefix of images, each computing what it would alone.

    prefix   user header, images             seen by all
    block    [a crop] question header answer  sees the prefix and its own past

Rotary positions of a block start right behind the prefix, or its crop, as they would in a prompt of its own.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

HEADER = "<|im_start|>user\n"
IMAGE_START, IMAGE_PAD, IMAGE_END = "<|vision_start|>", "<|image_pad|>", "<|vision_end|>"

Grid = tuple[int, int]
"""Rows and columns of an image in visual tokens."""


def prefix_text(grids: Sequence[Grid]) -> str:
    """Text before the questions: user header and the placeholders of the images."""
    return HEADER + "".join(image_text(grid) for grid in grids)


def image_text(grid: Grid) -> str:
    """Placeholders of one image with its start and end tokens."""
    return IMAGE_START + IMAGE_PAD * (grid[0] * grid[1]) + IMAGE_END


def text_positions(start: int, length: int) -> torch.Tensor:
    """Rotary positions of text, int64 [3, length]."""
    return torch.arange(start, start + length).expand(3, -1)


def image_positions(start: int, grid: Grid) -> torch.Tensor:
    """Rotary positions of an image with its start and end tokens, int64 [3, rows * columns + 2].

    All visual tokens have one time, and rows and columns count from it; text goes on behind the larger side.
    """
    rows, columns = grid
    down, across = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    visual = torch.stack([torch.zeros_like(down), down, across]).flatten(1) + start + 1
    return torch.cat([text_positions(start, 1), visual, text_positions(start + 1 + max(grid), 1)], dim=1)


def prefix_positions(header_length: int, grids: Sequence[Grid]) -> torch.Tensor:
    """Rotary positions of `prefix_text`, int64 [3, P]."""
    parts = [text_positions(0, header_length)]
    for grid in grids:
        parts.append(image_positions(int(parts[-1].max()) + 1, grid))
    return torch.cat(parts, dim=1)


def packed_mask(num_prefix: int, is_token: torch.Tensor) -> torch.Tensor:
    """Keys that each query may see, bool [B, 1, L, L], L = num_prefix + Q * T.

    Args:
        is_token: bool [B, Q, T], False where a block holds nothing; such a query keeps the prefix, so that no row of
            the mask is empty.
    """
    _, num_questions, length = is_token.shape
    block = torch.cat([torch.full((num_prefix,), -1), torch.arange(num_questions).repeat_interleave(length)])
    is_causal = torch.ones(len(block), len(block), dtype=torch.bool).tril()
    allowed = is_causal & ((block[None] == -1) | (block[None] == block[:, None]))
    return (allowed[None] & F.pad(is_token.flatten(1), (num_prefix, 0), value=True)[:, None, :])[:, None]
