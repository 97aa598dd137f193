"""Rotary positions of prompts in which images have fewer tokens than their grids: each token keeps its original one.

vLLM asks for a prompt's positions before its images are encoded. Text knows its place then, because an image takes as
much of the position range as its grid, however many of its tokens stay; which tokens those are travels with their
embeddings. The time axis is the same for all tokens of an image, so it tells where the image begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

NUM_CHANNELS = 4  # columns behind an embedding that say where its token was
BASE = 128  # of the digits in them: bfloat16 holds whole numbers up to 256


@dataclass(frozen=True)
class PlacedImage:
    """An image in a prompt.

    Args:
        offset: of its first token in the prompt.
        count: its tokens in the prompt.
        grid: (height, width) of the image in visual tokens.
    """

    offset: int
    count: int
    grid: tuple[int, int]


def prompt_positions(length: int, images: Sequence[PlacedImage]) -> tuple[Tensor, int]:
    """Positions of a prompt whose images are not encoded yet.

    Args:
        length: N, tokens of the prompt.
        images: in the order of the prompt.

    Returns:
        Positions [3, N] int64 (time, height, width), right for text and for the time axis of images; the other axes of
        image tokens hold that of time until `place_images`. And what is to be added to the number of a later token of
        the sequence to get its position.
    """
    positions = torch.empty(3, length, dtype=torch.long)
    done, position = 0, 0
    for image in images:
        text = image.offset - done
        positions[:, done : image.offset] = torch.arange(position, position + text)
        positions[:, image.offset : image.offset + image.count] = position + text
        done, position = image.offset + image.count, position + text + max(image.grid)
    positions[:, done:] = torch.arange(position, position + length - done)
    return positions, position - done


def place_images(positions: Tensor, is_image: Tensor, start: int, rows_columns: Tensor) -> Tensor:
    """Puts kept tokens where they were in their image.

    Args:
        positions: [3, N] int64, of `prompt_positions`.
        is_image: [N] bool, True at image tokens.
        start: token of the prompt from which on image tokens are placed.
        rows_columns: [k, 2] int64, of the next k image tokens.

    Returns:
        The positions with those of these tokens.
    """
    places = is_image[start:].nonzero()[: len(rows_columns), 0] + start
    placed = positions.clone()
    placed[1:, places] = positions[0, places] + rows_columns.T.to(positions)
    return placed


def with_places(embeds: Tensor, kept: Tensor, grid: tuple[int, int]) -> Tensor:
    """Embeddings [k, D] of the tokens `kept` [k] of an image with their row and column behind them, [k, D + 4]."""
    rows_columns = torch.stack([kept // grid[1], kept % grid[1]], dim=1)
    digits = torch.stack([rows_columns // BASE, rows_columns % BASE], dim=2).flatten(1)
    return torch.cat([embeds, digits.to(embeds.dtype)], dim=1)


def take_places(embeds: Tensor) -> tuple[Tensor, Tensor]:
    """Takes apart what `with_places` has made: embeddings [k, D], rows and columns [k, 2] int64."""
    high, low = embeds[:, -NUM_CHANNELS:].long().unflatten(1, (2, 2)).unbind(2)
    return embeds[:, :-NUM_CHANNELS], high * BASE + low
