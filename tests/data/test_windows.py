"""Counts of optimizer steps, known before their first micro-batch."""

from __future__ import annotations

import pytest
import torch

from gp.data.batch import Batch
from gp.data.windows import StepWindows

pytestmark = pytest.mark.core


def batches(*sizes: tuple[int, int]):
    """Batches of so many images and answer tokens, with padding."""
    for num_images, num_tokens in sizes:
        mask = torch.arange(num_tokens + 2)[None] < num_tokens
        yield Batch({}, torch.zeros_like(mask, dtype=torch.long), mask, [torch.ones(1, 1)] * num_images, [])


def counts(windows: StepWindows) -> list[tuple[int, int]]:
    return [(batch.counts.num_images, batch.counts.num_answer_tokens) for batch in windows]


SIZES = ((1, 1), (2, 9), (1, 4), (3, 2), (1, 5))


def test_every_batch_knows_the_counts_of_its_step():
    assert counts(StepWindows(list(batches(*SIZES)), 2)) == [(3, 10)] * 2 + [(4, 6)] * 2 + [(1, 5)]


def test_a_step_that_was_begun_is_finished_first():
    assert counts(StepWindows(list(batches(*SIZES)), 3, done=lambda: 5)) == [(1, 1)] + [(6, 15)] * 3 + [(1, 5)]


def test_a_step_ends_where_the_epoch_is_made_to():
    assert counts(StepWindows(list(batches(*SIZES)), 2, limit=3)) == [(3, 10)] * 2 + [(1, 4)]


def test_counts_follow_the_batch_to_its_device():
    (batch,) = StepWindows(list(batches((2, 3))), 4)
    assert batch.to("cpu").counts == batch.counts


def test_the_loader_is_read_one_step_ahead_and_no_further():
    read = []

    def loader():
        for batch in batches(*SIZES):
            read.append(batch)
            yield batch

    windows = iter(StepWindows(loader(), 2))
    next(windows)
    assert len(read) == 2
