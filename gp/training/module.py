"""The LightningModule: a frozen LVLM in eval mode, in which only glimpse token and VIP learn."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gp.config import TrainConfig
from gp.data.batch import Batch
from gp.engine.compiled_suffix import CompiledSuffix
from gp.engine.teacher_forcing import teacher_forced
from gp.formats.facts import base_facts
from gp.model import GlimpseModel
from gp.pruners import Pruner, Zoom
from gp.runs.checkpoint import TRAINED, trained_parts
from gp.training.objective import BatchSums, StepLoss, batch_sums, kept_counts, step_loss
from gp.training.optimizer import parameter_groups
from gp.training.recomputing import recomputes
from gp.training.run_module import RunModule
from gp.training.steps import ends_step
from gp.training.validation import Validation


class GlimpseModule(RunModule):
    """Trains the glimpse of a model, whose base is frozen, with its adapter if it has one.

    Args:
        config: of the run.
        model: with its glimpse parts and its processor.

    Raises:
        ValueError: the base has an adapter that is to be trained.
    """

    def __init__(self, config: TrainConfig, model: GlimpseModel) -> None:
        if count := model.trainable()["adapter"]:
            raise ValueError(
                f"the base has an adapter of which {count:,} parameters require gradients, and a glimpse learns on a "
                "frozen base: freeze it by model.base.requires_grad_(False), or train it by task grpo"
            )
        model.base.requires_grad_(False)
        super().__init__(config, model, Validation(model, config.eval.max_new_tokens, validation_pruner(config, model)))
        self._micro_batches: list[Tensor] = []
        self._compiled_suffix: CompiledSuffix | None = None

    @staticmethod
    def is_trained(name: str) -> bool:
        return name.startswith(TRAINED)

    def on_train_start(self) -> None:
        super().on_train_start()
        if self.config.trainer.compile:  # the base is on its device now
            self._compiled_suffix = CompiledSuffix(self.model.backbone)

    # ---- training ---------------------------------------------------------------------------------------------

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
        again = recomputes(self.config.trainer.recompute, self.model.backbone, batch)
        inputs = batch.inputs_for(self.model.backbone)
        forced = teacher_forced(
            self.model.backbone, self.model.glimpse, inputs, *answers, recompute=again, compiled=self._compiled_suffix
        )
        num_kept = kept_counts(forced, self.model.options)
        local = batch_sums(forced, batch.evidence_masks, *answers, num_kept)
        num_parts = self.trainer.world_size * num_micro_batches
        loss, whole = step_loss(local, self.config.loss, batch.counts, num_parts, self._sum_over_processes)
        self._log_losses(loss, whole, batch_idx)
        num_visual = num_kept.new_tensor(forced.layout.prompt_sizes)
        return {"loss": loss.backward, "num_kept": num_kept, "num_visual": num_visual}

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
                **{f"train/lr_{name}": rates[name] for name in ("glimpse_token", "twig") if name in rates},
            },
            batch_size=1,
        )

    # ---- what a checkpoint holds --------------------------------------------------------------------------------

    def groups(self) -> list[dict[str, Any]]:
        return parameter_groups(self.model.glimpse, self.config.optim)

    def facts(self) -> dict[str, Any]:
        return {"base": self._base_facts, "parts": self.model.glimpse.meaning()}

    @cached_property
    def _base_facts(self) -> dict[str, Any]:
        return base_facts(self.model.backbone)  # the base is frozen

    def check_parts(self, checkpoint: Mapping[str, Any], where: str | Path) -> None:
        parts = self.model.glimpse
        trained_parts(checkpoint, self._base_facts, parts.meaning(), parts.state_dict(), where)


def validation_pruner(config: TrainConfig, model: GlimpseModel) -> Pruner | None:
    """The method that `trainer.val_pruner` names, with its settings of `eval.methods`; None: the glimpse itself."""
    if config.trainer.val_pruner != Zoom.name:
        return None
    return model.find_pruner(Zoom.name, config.eval.methods.get(Zoom.name, {}))
