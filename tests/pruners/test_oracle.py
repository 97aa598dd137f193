"""Exactly the evidence stays."""

from __future__ import annotations

import pytest
import torch

from gp.pruners.oracle import OraclePruner
from gp.types import PruneOptions
from tests.support.views import hand_view

GRIDS = [(2, 2), (1, 3)]
MASKS = [torch.tensor([[1, 0], [0, 1]]).bool(), torch.tensor([[0, 0, 1]]).bool()]


def view(masks):
    shown = hand_view([[1.0]] * 7, GRIDS, evidence_masks=masks)
    shown.options = PruneOptions()
    return shown


@pytest.mark.parametrize("low_high", [None, (0.2, 0.9)], ids=["bool", "probabilities"])
def test_the_evidence_is_kept_and_nothing_else(low_high):
    low, high = low_high or (False, True)
    masks = MASKS if low_high is None else [torch.where(mask, high, low) for mask in MASKS]
    pruner, shown = OraclePruner(), view(masks)
    assert pruner.keep(pruner.scores(shown), shown).tolist() == [1, 0, 0, 1, 0, 0, 1]


@pytest.mark.parametrize(("masks", "named"), [(None, "evidence_masks"), (MASKS[::-1], r"\(1, 3\).*\(2, 2\)")])
def test_masks_that_do_not_fit_the_images_are_refused(masks, named):
    with pytest.raises(ValueError, match=named):
        OraclePruner().scores(view(masks))
