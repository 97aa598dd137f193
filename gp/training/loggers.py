"""Loggers of a run: figures to TensorBoard, CSV files or Weights & Biases; pictures and histograms to TensorBoard."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from gp.config import TrainConfig
from gp.runs.folder import EVENTS

CSV = "csv"


def logger_names(given: str | Sequence[str]) -> list[str]:
    """`trainer.logger` as a list."""
    return [given] if isinstance(given, str) else list(given)


def check_loggers(given: str | Sequence[str]) -> None:
    """ValueError if a logger's package is missing."""
    if "wandb" in logger_names(given) and importlib.util.find_spec("wandb") is None:
        raise ValueError("trainer.logger wandb needs the package wandb, which is not installed: pip install wandb")


def make_loggers(config: TrainConfig, folder: Path, step: int) -> list[Logger]:
    """Loggers that write below the run's folder.

    Args:
        config: of the run.
        folder: of the run.
        step: where it goes on; what TensorBoard was told of later steps by a killed run is void. CSV files of the run
            before stay: each part of a run has its own `csv/version_N/`.
    """
    make = {
        "tensorboard": lambda: TensorBoardLogger(
            str(folder), name=EVENTS, version="", default_hp_metric=False, purge_step=step or None
        ),
        CSV: lambda: CSVLogger(str(folder), name=CSV),
        "wandb": lambda: WandbLogger(name=config.name, save_dir=str(folder)),
    }
    return [make[name]() for name in logger_names(config.trainer.logger)]


def tensorboard_writer(trainer: pl.Trainer) -> Any:
    """TensorBoard's `SummaryWriter` on the first process; None without this logger and on the others."""
    if not trainer.is_global_zero:
        return None
    return next((one.experiment for one in trainer.loggers if isinstance(one, TensorBoardLogger)), None)
