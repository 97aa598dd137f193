"""From kept tokens to rectangles: which parts of an image are worth a closer look."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, floor

import torch
from torch import Tensor

Box = tuple[int, int, int, int]  # top, left, bottom, right; the ends are exclusive
Frame = tuple[float, float, float, float]  # the same, between the lines of the grid
NEARLY_TOUCHING = 2  # cells apart at most, on either axis, within a group
TOUCHING = 1  # the same within a blob
RIM = 0.1  # share of the importance of a blob's best cell under which a cell is only its rim


def rectangles(keep: Tensor, importance: Tensor, max_boxes: int, margin: float) -> list[Frame]:
    """Boxes around groups of kept cells that touch or nearly do, the most important groups first.

    Args:
        keep: [h, w] bool.
        importance: [h, w], at least 0; a group counts what its cells have together.
        max_boxes: of several groups so many are taken.
        margin: cells around each group, as far as there are any; 0.5 is half a cell.

    Returns:
        Boxes that do not overlap: those that do with their margins become one. Rims make no box larger.
    """
    height, width = keep.shape
    groups = sorted(
        groups_of_cells(without_rims(keep, importance)),
        key=lambda cells: -sum(float(importance[cell]) for cell in cells),
    )
    boxes: list[Frame] = []
    for cells in groups[:max_boxes]:
        rows, columns = zip(*cells)
        top, left = max(min(rows) - margin, 0), max(min(columns) - margin, 0)
        boxes.append((top, left, min(max(rows) + 1 + margin, height), min(max(columns) + 1 + margin, width)))
    return joined(boxes)


def without_rims(keep: Tensor, importance: Tensor) -> Tensor:
    """Kept cells but those that are faint beside the best one of their blob, cells that touch; bool [h, w].

    A low threshold finds what a method is not sure of, and around what it is sure of a rim that makes crops larger. (Of
    two thresholds, as Canny's edges have them, the higher one is relative: what is unsure all over keeps its size.)
    """
    out, of_row = torch.zeros_like(keep), importance.tolist()
    for cells in groups_of_cells(keep, TOUCHING):
        least = RIM * max(of_row[row][column] for row, column in cells)
        for row, column in cells:
            out[row, column] = of_row[row][column] >= least
    return out


def groups_of_cells(keep: Tensor, reach: int = NEARLY_TOUCHING) -> Iterator[list[tuple[int, int]]]:
    """Groups of kept cells, each with another one at most `reach` apart, in raster order of their first cells."""
    left = {(row, column) for row, column in keep.nonzero().tolist()}
    near = range(-reach, reach + 1)
    for cell in sorted(left):
        if cell not in left:
            continue
        left.remove(cell)
        group = [cell]
        for row, column in group:  # grows
            for other in [(row + down, column + right) for down in near for right in near]:
                if other in left:
                    left.remove(other)
                    group.append(other)
        yield group


def joined(boxes: list[Frame]) -> list[Frame]:
    """Boxes with those that overlap joined, until none do."""
    out: list[Frame] = []
    for box in boxes:
        while hit := next((one for one in out if overlap(one, box)), None):
            out.remove(hit)
            box = (min(hit[0], box[0]), min(hit[1], box[1]), max(hit[2], box[2]), max(hit[3], box[3]))
        out.append(box)
    return out


def overlap(one: Frame, other: Frame) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def scaled(box: Frame, grid: tuple[int, int], to: tuple[int, int]) -> Box:
    """A box on another grid over the same image: everything that it touches."""
    down, right = to[0] / grid[0], to[1] / grid[1]
    first = [floor(round(edge * step, 6)) for edge, step in zip(box[:2], (down, right))]
    last = [ceil(round(edge * step, 6)) for edge, step in zip(box[2:], (down, right))]
    return first[0], first[1], last[0], last[1]


def centres(box: Box, size: tuple[int, int], grid: tuple[int, int], to: tuple[int, int]) -> Tensor:
    """Centres of a crop's tokens on a coarse grid: [h * w, 2] float32, down and right in cells.

    Args:
        box: of the crop, on the fine grid.
        size: the crop's own tokens (h, w).
        grid: the fine grid.
        to: the coarse one, over the same image.
    """
    top, left, bottom, right = box
    rows = (top + (torch.arange(size[0]) + 0.5) / size[0] * (bottom - top)) * to[0] / grid[0]
    columns = (left + (torch.arange(size[1]) + 0.5) / size[1] * (right - left)) * to[1] / grid[1]
    return torch.cartesian_prod(rows, columns).view(-1, 2)


def near(points: Tensor, cells: Tensor, margin: float) -> Tensor:
    """Points no further than `margin` cells from a cell of a mask, on either axis.

    Args:
        points: [n, 2] float, down and right in cells.
        cells: [h, w] bool.
        margin: 0: those inside a cell.

    Returns:
        Bool [n].
    """
    first = cells.nonzero()[None]
    apart = torch.maximum(first - points[:, None], points[:, None] - first - 1)  # [n, cells, 2]; below 0 inside
    return (apart <= margin).all(-1).any(-1)
