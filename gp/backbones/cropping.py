"""Prompts with more images: parts of those that are there, each as an image of its own behind the last one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Size = tuple[int, int]  # height and width


@dataclass(frozen=True)
class Crop:
    """A part of an image that is seen again, as an image of its own.

    Args:
        image: number of the image in the batch.
        box: top, left, bottom, right in visual tokens of that image; the ends are exclusive.
    """

    image: int
    box: tuple[int, int, int, int]

    @property
    def size(self) -> Size:
        top, left, bottom, right = self.box
        return bottom - top, right - left


def append_images(
    input_ids: Tensor, mask: Tensor, image_token_id: int, frame: tuple[int, int], added: Sequence[Sequence[int]]
) -> tuple[Tensor, Tensor, list[int]]:
    """Puts image tokens into the prompts, behind the last image of each row and what frames it.

    Args:
        input_ids: [B, S], left padded, on the host.
        mask: [B, S] bool.
        image_token_id: marks the image tokens.
        frame: number of text tokens that stand before and behind an image's tokens and belong to it; each new image
            gets copies of those of the row's last image.
        added: of each row, the sizes of its new images in visual tokens.

    Returns:
        Ids and mask of the longer prompts, and where each row's new tokens begin, counted without padding; for a row
        without new images, its length.
    """
    rows, starts = [], []
    for ids, real, sizes in zip(input_ids, mask, added, strict=True):
        ids = ids[real]
        if not sizes:
            rows.append(ids)
            starts.append(len(ids))
            continue
        visual = (ids == image_token_id).nonzero().flatten()
        end = int(visual[-1]) + 1
        first = end
        while first > 0 and ids[first - 1] == image_token_id:
            first -= 1
        before, behind = ids[first - frame[0] : first], ids[end : end + frame[1]]
        new = [torch.cat([before, ids.new_full((size,), image_token_id), behind]) for size in sizes]
        start = end + len(behind)
        rows.append(torch.cat([ids[:start], *new, ids[start:]]))
        starts.append(start)
    longest = max(map(len, rows))
    longer = torch.stack([torch.nn.functional.pad(row, (longest - len(row), 0)) for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    return longer, torch.arange(longest) >= longest - lengths.unsqueeze(1), starts
