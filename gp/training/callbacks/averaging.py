"""Exponential moving average of the trained parts: what validation, evaluation and export use."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch.optim.swa_utils import AveragedModel

from gp.runs.checkpoint import TRAINED

AVERAGED = "module."  # what AveragedModel calls its model
TRAINED_STATE, AVERAGING_STATE = "current_model_state", "averaging_state"  # Lightning's own keys


class AveragedParts(EMAWeightAveraging):
    """Lightning's average, of the trained parts alone: it would copy the frozen base as well.

    Averages begin with the weights after step 1. In a checkpoint, `state_dict` has the averages, and
    `current_model_state` the weights that training goes on with.
    """

    _average_model: AveragedModel | None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit":
            device = trainer.strategy.root_device  # the module comes there later
            self._average_model = AveragedModel(_parts(pl_module), device, use_buffers=True, **self._kwargs)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, _parts(pl_module), outputs, batch, batch_idx)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Nothing yet: the last checkpoint is written after this, and needs both."""

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Leaves the averages in the module at the end of training."""
        if stage == "fit" and self._average_model is not None:
            self._copy_average_to_current(_parts(pl_module))
            self._average_model = None

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_validation_epoch_start(trainer, _parts(pl_module))

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_validation_epoch_end(trainer, _parts(pl_module))

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Averages take the place of the weights: whoever reads the file gets them."""
        assert self._average_model is not None  # checkpoints are written while training only
        state = self._average_model.state_dict()
        averages = {name.removeprefix(AVERAGED): value for name, value in state.items() if name.startswith(AVERAGED)}
        checkpoint[TRAINED_STATE] = checkpoint["state_dict"]
        checkpoint["state_dict"] = {TRAINED + name: value for name, value in averages.items()}
        checkpoint[AVERAGING_STATE] = {name: state[name] for name in state if not name.startswith(AVERAGED)}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """The module has got the averages by now; a checkpoint without them is refused before: `optim.ema` is fixed."""
        assert self._average_model is not None
        averages = {AVERAGED + name.removeprefix(TRAINED): value for name, value in checkpoint["state_dict"].items()}
        self._average_model.load_state_dict({**averages, **checkpoint[AVERAGING_STATE]})
        trained = {name.removeprefix(TRAINED): value for name, value in checkpoint[TRAINED_STATE].items()}
        _parts(pl_module).load_state_dict(trained)


def trained_state(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Weights that training goes on with; they are not those to evaluate if there are averages."""
    return checkpoint.get(TRAINED_STATE, checkpoint["state_dict"])


def _parts(module: Any) -> Any:
    return module.model.glimpse
