"""Boxes against the published masks (tests/golden/box_masks) and against hand-made ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gp.boxes import clip_boxes, evidence_mask, has_area, normalize_boxes

GOLDEN = Path(__file__).parent / "golden" / "box_masks"
CASES = json.loads((GOLDEN / "boxes.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["id"]))
def test_evidence_mask_equals_published_one(case):
    expected = load_file(GOLDEN / "masks.safetensors")[f"mask.{case['id']}"].bool()
    height, width = case["grid_hw"]
    mask = evidence_mask(case["boxes_xyxy_normed"], height, width)
    assert mask.dtype == torch.bool
    assert torch.equal(mask, expected)
    assert int(mask.sum()) == case["ones"]


def test_all_published_lists_are_there():
    """25 lists of boxes on each of 5 grids."""
    assert len(CASES) == 125
    assert len({tuple(case["grid_hw"]) for case in CASES}) == 5


def test_evidence_mask_of_a_tensor_of_boxes():
    boxes = torch.tensor([[0.25, 0.25, 0.5, 0.5]])
    assert torch.equal(evidence_mask(boxes, 4, 6), evidence_mask(boxes.tolist(), 4, 6))


def test_whole_token_boxes_mark_exactly_their_tokens():
    """A box drawn over tokens r..r+1, c..c+2 (last pixel inclusive) marks these and no other, whatever the size."""
    for token_px in (28, 14, 10):
        for row in range(7):
            for column in range(6):
                box = [column * token_px, row * token_px, (column + 3) * token_px - 1, (row + 2) * token_px - 1]
                expected = torch.zeros(9, 9, dtype=torch.bool)
                expected[row : row + 2, column : column + 3] = True
                norm = normalize_boxes([box], 9 * token_px, 9 * token_px)
                assert torch.equal(evidence_mask(norm, 9, 9), expected)


def test_normalize():
    boxes = [[0, 0, 640, 480], [64, 48, 320, 240.5]]
    norm = normalize_boxes(boxes, 640, 480)
    assert norm.tolist() == [[0.0, 0.0, 1.0, 1.0], [0.1, 0.1, 0.5, 240.5 / 480]]


def test_clip_and_area():
    boxes = [[-5, -5, 10, 10], [90, 40, 200, 60], [120, 0, 130, 10], [10, 10, 10, 20], [30, 30, 20, 40], [1, 1, 2, 2]]
    clipped = clip_boxes(boxes, 100, 50)
    assert clipped.tolist()[:3] == [[0, 0, 10, 10], [90, 40, 100, 50], [100, 0, 100, 10]]
    assert has_area(clipped).tolist() == [True, True, False, False, False, True]


def test_no_boxes():
    assert not evidence_mask([], 3, 3).any()
    assert clip_boxes([], 10, 10).shape == (0, 4)
    assert has_area([]).shape == (0,)


@pytest.mark.parametrize("boxes", [[1, 2, 3, 4], [[1, 2, 3]], [[[0, 0, 1, 1]]]])
def test_wrong_shape_is_refused(boxes):
    with pytest.raises(ValueError, match=r"\[n, 4\]"):
        evidence_mask(boxes, 4, 4)


def test_bad_grid_image_and_numbers_are_refused():
    with pytest.raises(ValueError, match="grid"):
        evidence_mask([], 0, 4)
    with pytest.raises(ValueError, match="0 x 10 px"):
        normalize_boxes([], 0, 10)
    with pytest.raises(ValueError, match="finite"):
        evidence_mask([[0.0, float("nan"), 1.0, 1.0]], 4, 4)
