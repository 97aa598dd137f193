"""Training's loss of random answers and masks."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gp.config import LossConfig
from gp.engine.teacher_forcing import TeacherForced
from gp.training.objective import batch_sums, kept_counts, step_loss
from gp.types import PruneOptions
from tests.support.tiny_models import random_masks, tiny_answers

ANSWERS = (3, 1, 5)  # tokens of each row's answer


def loss_of(forced: TeacherForced, lengths: Sequence[int] = ANSWERS) -> torch.Tensor:
    answers = tiny_answers(lengths)
    sums = batch_sums(forced, random_masks(forced.layout.grids), *answers, kept_counts(forced, PruneOptions()))
    return step_loss(sums, LossConfig())[0].backward
