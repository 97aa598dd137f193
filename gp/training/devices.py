"""Asks Lightning whether devices, strategy and precision go together here, before a model is loaded."""

from __future__ import annotations

import logging

import lightning.pytorch as pl
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from gp.config import TrainerConfig

LIGHTNING = "lightning.pytorch"


def check_devices(settings: TrainerConfig) -> None:
    """Builds a trainer that does nothing.

    Raises:
        ValueError: a strategy that does not exist, devices that are not there, or settings that contradict each other.
    """
    log = logging.getLogger(LIGHTNING)
    level = log.level
    log.setLevel(logging.ERROR)
    given = {name: getattr(settings, name) for name in ("accelerator", "devices", "num_nodes", "strategy", "precision")}
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    try:
        pl.Trainer(**given, **quiet)
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        shown = ", ".join(f"trainer.{name} {value}" for name, value in given.items())
        raise ValueError(f"{shown}: {error}") from error
    finally:
        log.setLevel(level)
