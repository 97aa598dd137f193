"""Keeping the best checkpoints, and stopping early, by a figure of validation: Lightning's own callbacks."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from gp.config import TrainerConfig
from gp.config.schema import OptimConfig
from gp.runs.folder import BEST
from gp.training.callbacks.averaging import AveragedParts

LESS_IS_BETTER = ("val/keep_ratio",)


class StopEarly(EarlyStopping):
    """Stops when a figure of validation has not become better for some validations, and says so."""

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.wait_count >= self.patience and trainer.is_global_zero:
            text = f"stopped early after step {trainer.global_step}: {self.monitor} has not been better than"
            print(f"{text} {float(self.best_score):.4g} for {self.wait_count} validations", flush=True)


def choosing_callbacks(settings: TrainerConfig, folder: Path) -> list[pl.Callback]:
    """Callbacks for `trainer.best_metric` and `trainer.stop_metric`.

    Args:
        settings: of the trainer.
        folder: of the run; the best checkpoints lie in it as `best-STEP.ckpt`, beside `last.ckpt`.
    """
    callbacks: list[pl.Callback] = []
    if settings.stop_metric is not None:
        mode = _mode(settings.stop_metric)
        callbacks.append(
            StopEarly(settings.stop_metric, patience=settings.stop_patience, mode=mode, check_on_train_epoch_end=False)
        )
    if settings.best_metric is not None:
        callbacks.append(
            ModelCheckpoint(
                folder,
                BEST.removesuffix("*.ckpt") + "{step:06d}",
                monitor=settings.best_metric,
                mode=_mode(settings.best_metric),
                save_top_k=settings.best_kept,
                auto_insert_metric_name=False,
                save_on_train_epoch_end=False,
            )
        )
    return callbacks


def averaging_callbacks(settings: OptimConfig) -> list[pl.Callback]:
    """The callback for `optim.ema`."""
    return [] if settings.ema is None else [AveragedParts(decay=settings.ema)]


def _mode(figure: str) -> str:
    return "min" if figure in LESS_IS_BETTER else "max"
