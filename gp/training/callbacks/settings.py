"""The settings of a run in its loggers: TensorBoard's HPARAMS tab and a text, and what other loggers make of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import lightning.pytorch as pl
from omegaconf import OmegaConf
from torch.utils.tensorboard.summary import hparams

from gp.config import TrainConfig
from gp.config.gate import GateRunConfig
from gp.config.schema import GATE_FIGURES, VALIDATION_FIGURES
from gp.training.loggers import tensorboard_writer


class LogSettings(pl.Callback):
    """Tells every logger the settings when training begins.

    Lightning's TensorBoard logger writes them only together with values of figures; here the HPARAMS tab takes these
    from the curves themselves.

    Args:
        config: of the run.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        settings = asdict(self.config)
        for logger in trainer.loggers:
            logger.log_hyperparams(settings)
        writer = tensorboard_writer(trainer)
        if writer is None:
            return
        named = GATE_FIGURES if isinstance(self.config, GateRunConfig) else VALIDATION_FIGURES
        figures = dict.fromkeys(("train/loss", *named), 0.0)  # their names count
        for summary in hparams(dict(flat(settings)), figures):
            writer._get_file_writer().add_summary(summary)
        text = OmegaConf.to_yaml(OmegaConf.create(settings))
        writer.add_text("config", "\n".join(f"    {line}" for line in text.splitlines()), trainer.global_step)


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and the values that the HPARAMS tab can show: numbers, true, false, and anything else as text."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, bool | int | float | str) else str(value)
