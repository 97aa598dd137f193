"""Seeded draws: of the right distribution, and of nothing but each row's seed."""

from __future__ import annotations

import torch

from gp.engine.sampling import SeededNoise


def test_draws_from_the_softmax():
    logits = torch.tensor([1.0, -0.5, 0.3, 2.0])
    count = 4000
    noise = SeededNoise(range(count), 2.0, "cpu")
    drawn = noise(torch.empty(count, 0), logits.expand(count, -1)).argmax(1)
    shares = torch.bincount(drawn, minlength=4) / count
    assert float((shares - (logits / 2).softmax(0)).abs().max()) < 0.025  # more than three standard errors


def test_a_row_does_not_depend_on_the_others():
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    together = SeededNoise([5, 6, 7], 1.0, "cpu")
    alone = SeededNoise([6], 1.0, "cpu")
    for _ in range(2):  # and goes on alike
        of_all = together(torch.empty(3, 0), logits)
        assert torch.equal(of_all[1:2], alone(torch.empty(1, 0), logits[1:2]))
    assert not torch.equal(of_all[0] - logits[0], of_all[1] - logits[1])
