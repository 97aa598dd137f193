"""Options of the task `gate`: a linear head learns when the small copy of an image is enough for `zoom`."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from gp.config.option import option
from gp.config.schema import TrainConfig


@dataclass
class GateLossConfig:
    """The loss: binary cross-entropy of the head against whether the un-pruned answer is right. It has no options."""


@dataclass
class GateConfig:
    """What the head is trained on."""

    glimpse: str = option(MISSING, "folder or hub id of a trained glimpse, which stays as it is")
    right: float = option(0.5, "least score of a right answer, by the first of eval.scores", within="(0, 1]")


@dataclass
class GateRunConfig(TrainConfig):
    """A run that trains a gate."""

    # a task has its own section of that name
    loss: GateLossConfig = field(default_factory=GateLossConfig)  # type: ignore[assignment]
    gate: GateConfig = field(default_factory=GateConfig)
