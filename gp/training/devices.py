"""Asks Lightning whether the settings of its trainer go together here, before a model is loaded."""

from __future__ import annotations

import logging

import lightning.pytorch as pl
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from gp.config import TrainerConfig
from gp.training.extra import check_extra
from gp.training.loggers import check_loggers
from gp.training.sharding import strategy_of

LIGHTNING = "lightning.pytorch"


def check_devices(settings: TrainerConfig) -> None:
    """Builds a trainer that does nothing.

    Raises:
        ValueError: a strategy that does not exist, devices that are not there, settings that contradict each other,
            unknown arguments in `trainer.extra`, or a logger that is not installed.
    """
    check_extra(settings.extra)
    check_loggers(settings.logger)
    log = logging.getLogger(LIGHTNING)
    level = log.level
    log.setLevel(logging.ERROR)
    given = {name: getattr(settings, name) for name in ("accelerator", "devices", "num_nodes", "strategy", "precision")}
    given["strategy"] = strategy_of(settings.strategy)
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    try:
        pl.Trainer(**{**given, **settings.extra, **quiet})
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        given |= {"strategy": settings.strategy, **{f"extra.{name}": value for name, value in settings.extra.items()}}
        shown = ", ".join(f"trainer.{name} {value}" for name, value in given.items())
        raise ValueError(f"{shown}: {error}") from error
    finally:
        log.setLevel(level)
