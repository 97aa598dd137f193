"""What every training of a part of a model shares: length, optimizer, and checkpoints of what it trains alone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from gp.backbones.sharded import is_sharded
from gp.config import TrainConfig
from gp.data.batch import Batch
from gp.model import GlimpseModel
from gp.runs.resuming import NOTE, SETTINGS
from gp.training.continuing import apply_settings, count_batches_anew
from gp.training.in_step import InStep
from gp.training.optimizer import adamw, refuse_other_groups
from gp.training.schedule import Length, samples_per_step, warmup_cosine
from gp.training.validation import Validation


class RunModule(pl.LightningModule):
    """Trains a part of a model; the rest is frozen.

    What is frozen is neither in the optimizer nor in the `state_dict`, so a checkpoint holds the trained parts and the
    optimizer's state alone. Every loss is that of the whole optimizer step, however its samples are dealt to processes
    and micro-batches.

    Args:
        config: of the run.
        model: with its processor.
        validation: of the model.

    Attributes:
        length: of the run; None: as the trainer's `max_steps` says, and never resumed.
        loss_of_step: of the last optimizer step, all processes.
    """

    length: Length | None = None
    _in_step: InStep | None = None

    def __init__(self, config: TrainConfig, model: GlimpseModel, validation: Validation) -> None:
        super().__init__()
        self.config = config
        self.model = model
        self.strict_loading = False  # the base is loaded from its own files
        self.validation = validation
        self.loss_of_step: Tensor = torch.zeros(())
        # torch's DDP neither broadcasts nor synchronises these: every process has loaded the same base
        names = [name for name, _ in (*self.named_parameters(), *self.named_buffers())]
        self._ddp_params_and_buffers_to_ignore = [name for name in names if not self.is_trained(name)]

    # ---- what each training says ------------------------------------------------------------------------------

    @staticmethod
    @abstractmethod
    def is_trained(name: str) -> bool:
        """Whether a parameter or buffer, by its name in this module, is of the trained parts."""

    @abstractmethod
    def groups(self) -> list[dict[str, Any]]:
        """The optimizer's groups of what is trained, with their names and rates."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """`base` and `parts` of a checkpoint: what its weights belong to, and what they mean; plain values."""

    @abstractmethod
    def check_parts(self, checkpoint: Mapping[str, Any], where: str | Path) -> None:
        """Refuses trained parts of another base, meaning or shape (ValueError)."""

    # ---- training and validation ------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Lightning keeps the modes that it finds, also after validation."""
        self.model.train()

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """One pruned prefill and its answers, and un-pruned ones.

        Returns:
            `keep_masks` (one bool [h, w] an image) and `answers` (texts), for callbacks.
        """
        if self._in_step is not None:
            self._in_step.begin(batch)
        return self.validation.step(batch)

    def on_validation_epoch_start(self) -> None:
        """Processes that share a sharded base answer batch by batch together."""
        sharded = is_sharded(self.model.backbone.model)
        self._in_step = InStep(self.any_process) if sharded else None
        self.validation.any_process = self.any_process if sharded else None

    def any_process(self, yes: bool) -> bool:
        """Whether a process says yes; takes all of them."""
        return self.trainer.strategy.reduce_boolean_decision(yes, all=False)

    def on_validation_epoch_end(self) -> None:
        """The only place where validation synchronises processes, unless they share a sharded base."""
        if self._in_step is not None:
            self._in_step.finish(self.validation.repeat)
        figures = {f"val/{name}": value for name, value in self.validation.compute().items()}
        self.log_dict({**figures, **self._epoch(self.trainer.global_step)}, batch_size=1)

    def _epoch(self, step: int) -> dict[str, float]:
        """Passes over the data after an optimizer step; nothing where it is not known what an epoch is.

        Lightning's own count stays 0: to it, the endless stream is one epoch.
        """
        epochs = self._length().epochs(step)
        return {} if epochs is None else {"epoch": epochs}

    def _sum_over_processes(self, values: Tensor) -> Tensor:
        return self.trainer.strategy.reduce(values, reduce_op="sum")

    # ---- optimizer and checkpoint -----------------------------------------------------------------------------

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer, scheduler = self._make_optimizer()
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _make_optimizer(self) -> tuple[torch.optim.Optimizer, LambdaLR]:
        optimizer, length = adamw(self.groups(), self.config.optim), self._length()
        return optimizer, warmup_cosine(optimizer, self.config.optim, length.max_steps, length.schedule_shift)

    def _length(self) -> Length:
        return self.length or Length(self.trainer.max_steps, samples_per_step(self.config, self.trainer.world_size))

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """The trained parts only."""
        return {key: value for key, value in super().state_dict(*args, **kwargs).items() if self.is_trained(key)}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what the weights mean and how the run went, as plain values: the file loads with `weights_only=True`."""
        base = {"name": self.config.model.base, "revision": self.config.model.revision}
        facts = self.facts()
        checkpoint[NOTE] = {
            "base": {**base, **facts["base"]},
            "parts": facts["parts"],
            SETTINGS: asdict(self.config),
            "length": self._length().note(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses parts of another base, meaning or shape, or other optimizer groups; then puts in this run's settings.

        Raises:
            ValueError: naming what differs.
        """
        self.check_checkpoint(checkpoint, self.config.ckpt or "of this run")
        if self.length is not None:
            apply_settings(checkpoint, *self._make_optimizer())
            count_batches_anew(checkpoint, self.config.trainer.accumulate_grad_batches)

    def check_checkpoint(self, checkpoint: dict[str, Any], where: str | Path) -> None:
        """Refuses trained parts of another base, meaning or shape (ValueError); changes nothing."""
        self.check_parts(checkpoint, where)
        refuse_other_groups(checkpoint, self.groups(), str(where))
