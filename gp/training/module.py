"""The LightningModule: a frozen LVLM in eval mode, in which only glimpse token and VIP learn."""

from __future__ import annotations

from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from gp.config import TrainConfig
from gp.data.batch import Batch
from gp.engine.teacher_forcing import teacher_forced
from gp.formats.glimpse_folder import base_facts
from gp.model import GlimpseModel
from gp.runs.checkpoint import TRAINED, trained_parts
from gp.runs.resuming import NOTE, SETTINGS
from gp.training.continuing import apply_settings, count_batches_anew
from gp.training.objective import BatchSums, StepLoss, batch_sums, kept_counts, step_loss
from gp.training.optimizer import make_optimizer, parameter_groups, refuse_other_groups
from gp.training.schedule import Length, samples_per_step, warmup_cosine
from gp.training.steps import ends_step
from gp.training.validation import Validation


class GlimpseModule(pl.LightningModule):
    """Trains the glimpse of a model.

    The base is neither in the optimizer nor in the `state_dict`, so a checkpoint holds the trained parts and the
    optimizer's state alone. Every loss is that of the whole optimizer step, however its samples are dealt to processes
    and micro-batches.

    Args:
        config: of the run.
        model: with its glimpse parts and its processor.

    Attributes:
        length: of the run; None: as the trainer's `max_steps` says, and never resumed.
    """

    length: Length | None = None

    def __init__(self, config: TrainConfig, model: GlimpseModel) -> None:
        super().__init__()
        self.config = config
        self.model = model
        model.base.requires_grad_(False)
        self.strict_loading = False  # the base is loaded from its own files
        self.validation = Validation(model, config.eval.max_new_tokens)
        self.loss_of_step: Tensor = torch.zeros(())  # of the last optimizer step, all processes
        self._micro_batches: list[Tensor] = []
        # torch's DDP neither broadcasts nor synchronises these: every process has loaded the same base
        self._ddp_params_and_buffers_to_ignore = [n for n, _ in self.named_parameters() if not n.startswith(TRAINED)]
        self._ddp_params_and_buffers_to_ignore += [n for n, _ in self.named_buffers() if not n.startswith(TRAINED)]

    # ---- training ---------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Lightning keeps the modes that it finds, also after validation."""
        self.model.train()

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Loss of one micro-batch, and what callbacks show of it.

        Returns:
            `loss` (scalar, for backward), `num_kept` and `num_visual` ([B], visual tokens of each prompt that the
            current scores would keep, and in all).

        Raises:
            ValueError: one of several micro-batches that does not know what its optimizer step holds.
        """
        num_micro_batches = self.trainer.accumulate_grad_batches
        if num_micro_batches > 1 and batch.counts is None:
            raise ValueError(
                f"accumulate_grad_batches {num_micro_batches} needs a loader that counts: gp.data.windows.StepWindows"
            )
        answers = (batch.answer_ids, batch.answer_mask) if self.config.loss.answer > 0 else (None, None)
        forced = teacher_forced(self.model.backbone, self.model.glimpse, batch.inputs, *answers)
        num_kept = kept_counts(forced, self.model.options)
        local = batch_sums(forced, batch.evidence_masks, *answers, num_kept)
        num_parts = self.trainer.world_size * num_micro_batches
        loss, whole = step_loss(local, self.config.loss, batch.counts, num_parts, self._sum_over_processes)
        self._log_losses(loss, whole, batch_idx)
        num_visual = num_kept.new_tensor(forced.layout.prompt_sizes)
        return {"loss": loss.backward, "num_kept": num_kept, "num_visual": num_visual}

    def _sum_over_processes(self, values: Tensor) -> Tensor:
        return self.trainer.strategy.reduce(values, reduce_op="sum")

    def _log_losses(self, loss: StepLoss, whole: BatchSums, batch_idx: int) -> None:
        """Logs the optimizer step's losses once its last micro-batch is in; a loss of weight 0 is not one of them."""
        values = [loss.total, loss.dice, loss.bce, loss.answer, whole.num_kept, whole.num_visual]
        self._micro_batches.append(torch.stack([v.detach().float() for v in values]))
        if not ends_step(self.trainer, batch_idx):
            return
        total, dice, bce, answer, num_kept, num_visual = torch.stack(self._micro_batches).sum(0).unbind()
        self._micro_batches.clear()
        self.loss_of_step = total
        terms = {name: value for name, value in (("dice", dice), ("bce", bce), ("answer", answer))
                 if getattr(self.config.loss, name) > 0}  # fmt: skip
        rates = {group["name"]: group["lr"] for group in self.optimizers().param_groups}
        self.log("train/loss", total, batch_size=1)
        self.log_dict(
            {
                **{f"train/loss_{name}": value for name, value in terms.items()},
                "train/keep_ratio": num_kept / num_visual,
                **self._epoch(self.trainer.global_step + 1),
                "train/lr": rates["vip"],
                "train/lr_glimpse_token": rates["glimpse_token"],
            },
            batch_size=1,
        )

    # ---- validation -------------------------------------------------------------------------------------------

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """One pruned prefill and its answers; the un-pruned ones are computed once a run.

        Returns:
            `keep_masks` (one bool [h, w] an image) and `answers` (texts), for callbacks.
        """
        return self.validation.step(batch)

    def on_validation_epoch_end(self) -> None:
        """The only place where validation synchronises processes."""
        figures = {f"val/{name}": value for name, value in self.validation.compute().items()}
        self.log_dict({**figures, **self._epoch(self.trainer.global_step)}, batch_size=1)

    def _epoch(self, step: int) -> dict[str, float]:
        """Passes over the data after an optimizer step; nothing where it is not known what an epoch is.

        Lightning's own count stays 0: to it, the endless stream is one epoch.
        """
        epochs = self._length().epochs(step)
        return {} if epochs is None else {"epoch": epochs}

    # ---- optimizer and checkpoint -----------------------------------------------------------------------------

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer, scheduler = self._make_optimizer()
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _make_optimizer(self) -> tuple[torch.optim.Optimizer, LambdaLR]:
        optimizer, length = make_optimizer(self.model.glimpse, self.config.optim), self._length()
        return optimizer, warmup_cosine(optimizer, self.config.optim, length.max_steps, length.schedule_shift)

    def _length(self) -> Length:
        return self.length or Length(self.trainer.max_steps, samples_per_step(self.config, self.trainer.world_size))

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """The trained parts only."""
        full = super().state_dict(*args, **kwargs)
        return {key: value for key, value in full.items() if key.startswith(TRAINED)}

    @cached_property
    def _base_facts(self) -> dict[str, Any]:
        return base_facts(self.model.backbone)  # the base is frozen

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what the weights mean and how the run went, as plain values: the file loads with `weights_only=True`."""
        base = {"name": self.config.model.base, "revision": self.config.model.revision}
        checkpoint[NOTE] = {
            "base": {**base, **self._base_facts},
            "parts": self.model.glimpse.meaning(),
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
        parts = self.model.glimpse
        trained_parts(checkpoint, self._base_facts, parts.meaning(), parts.state_dict(), where)
        refuse_other_groups(checkpoint, parameter_groups(parts, self.config.optim), str(where))
