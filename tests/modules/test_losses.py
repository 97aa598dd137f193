"""Losses against plain formulas and torch's own."""

from __future__ import annotations

import torch

from gp.modules import answer_loss, bce_loss, dice_loss


def test_dice_by_hand():
    logits = torch.tensor([0.0, 100.0, -100.0, 100.0])  # probabilities 0.5, 1, 0, 1
    mask = torch.tensor([True, True, False, False])
    expected = 1 - (2 * 1.5 + 1e-6) / (2.5 + 2 + 1e-6)
    torch.testing.assert_close(dice_loss(logits, mask), torch.tensor(expected))


def test_dice_of_nothing_wanted_and_nothing_found_is_zero():
    assert dice_loss(torch.full((4,), -200.0), torch.zeros(4, dtype=torch.bool)).item() == 0.0


def test_bce_is_the_mean_negative_log_likelihood():
    logits, mask = torch.randn(9), torch.rand(9) > 0.5
    prob = logits.sigmoid()
    expected = -(mask * prob.log() + ~mask * (1 - prob).log()).mean()
    torch.testing.assert_close(bce_loss(logits, mask), expected)


def test_answer_loss_leaves_padding_out():
    logits, ids = torch.randn(2, 3, 5), torch.tensor([[1, 2, 3], [4, 0, 0]])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    total, count = answer_loss(logits, ids, mask)
    labels = ids.masked_fill(~mask, -100)
    expected = torch.nn.functional.cross_entropy(logits.view(-1, 5), labels.view(-1), ignore_index=-100)
    assert count == 4
    torch.testing.assert_close(total / count, expected)
