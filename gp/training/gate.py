"""The LightningModule of task `gate`: a linear head learns whether the answer from the small copy is right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric
from torchmetrics.classification import BinaryAccuracy, BinaryAUROC

from gp.config.gate import GateRunConfig
from gp.data.batch import Batch
from gp.engine.generation import GREEDY
from gp.formats.facts import base_facts
from gp.metrics import SCORERS
from gp.model import GlimpseModel
from gp.modules import Gate
from gp.pruners import HIDDEN
from gp.runs.checkpoint import gate_parts
from gp.selection import select
from gp.training.run_module import RunModule
from gp.training.steps import ends_step
from gp.types import PruneOptions

KEEP_ALL = PruneOptions(fixed_keep_ratio=1.0)
PREFIX = "model.glimpse.gate."  # what the module calls the head's weights


@dataclass(frozen=True)
class Looked:
    """What one un-pruned pass over a batch of small copies leaves.

    Args:
        hidden: [B, 2, D], what the gate reads.
        right: [B] float32, 1 where the answer is right.
        answers: texts.
        keep_masks: of each image bool [h, w], what the glimpse would keep.
        num_kept, num_visual: [B] int64, of it and in all.
    """

    hidden: Tensor
    right: Tensor
    answers: list[str]
    keep_masks: list[Tensor]
    num_kept: Tensor
    num_visual: Tensor


class Look:
    """Answers a batch un-pruned, with the glimpse token behind the prompts, in one pass.

    Args:
        model: with its glimpse and its processor. Its images are as large as `model.max_pixels` lets them be: that is
            the glance.
        scorer: key of `gp.metrics.SCORERS`.
        least: an answer is right from this score on.
        max_new_tokens: of an answer.
    """

    def __init__(self, model: GlimpseModel, scorer: str, least: float, max_new_tokens: int) -> None:
        self.model, self.scorer, self.least, self.max_new_tokens = model, SCORERS[scorer], least, max_new_tokens

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Looked:
        model, ids = self.model, batch.sent["input_ids"]
        done = model.prefill(batch.inputs_for(model.backbone), "glimpse", KEEP_ALL)
        assert done.importance_logits is not None  # the glimpse has scored
        hidden, layout = done.notes[HIDDEN], done.layout
        keep = select(done.importance_logits, layout, model.options)
        tokenizer = model.processor.tokenizer
        stop = {"max_new_tokens": self.max_new_tokens, "pad_token_id": tokenizer.pad_token_id}
        new = model.decode(ids, done, consume=True, **stop, **GREEDY)[:, ids.shape[1] :]
        answers = [text.strip() for text in tokenizer.batch_decode(new, skip_special_tokens=True)]
        scores = [self.scorer(text, sample.answer) for text, sample in zip(answers, batch.samples, strict=True)]
        kept = torch.stack([part.sum() for part in layout.split_by_prompt(keep)])
        return Looked(
            hidden=hidden,
            right=torch.tensor([score >= self.least for score in scores], device=hidden.device).float(),
            answers=answers,
            keep_masks=layout.split_by_image(keep),
            num_kept=kept,
            num_visual=kept.new_tensor(layout.prompt_sizes),
        )


class GateValidation(nn.Module):
    """Figures of the head over a validation split; processes meet in `compute` only.

    Args:
        model: its glimpse has the head.
        look: answers a batch.
    """

    def __init__(self, model: GlimpseModel, look: Look) -> None:
        super().__init__()
        self.__dict__["model"] = model  # not a submodule of this one: its owner has it already
        self.look = look
        self.accuracy, self.auroc = BinaryAccuracy(), BinaryAUROC()
        self.right = MeanMetric()

    def step(self, batch: Batch) -> dict[str, Any]:
        """Adds one batch; returns `keep_masks` and `answers`, as callbacks show them."""
        looked = self.look(batch)
        sure = gate_of(self.model)(looked.hidden).sigmoid()
        target = looked.right.long()
        self.accuracy.update(sure, target)
        self.auroc.update(sure, target)
        self.right.update(looked.right)
        return {"keep_masks": looked.keep_masks, "answers": looked.answers}

    def compute(self) -> dict[str, Tensor]:
        """`gate_accuracy` at one half, `gate_auroc`, and `glance_accuracy`, the share of right answers; then afresh."""
        figures = {"gate_accuracy": self.accuracy.compute(), "gate_auroc": self.auroc.compute()}
        figures["glance_accuracy"] = self.right.compute()
        for metric in (self.accuracy, self.auroc, self.right):
            metric.reset()
        return {name: value.float() for name, value in figures.items()}


class GateModule(RunModule):
    """Trains the gate of a model; its base and its glimpse stay as they are.

    Args:
        config: of the run.
        model: of `gp.loading.load_gate`.
    """

    config: GateRunConfig

    def __init__(self, config: GateRunConfig, model: GlimpseModel) -> None:
        self.look = Look(model, config.eval.scores[0], config.gate.right, config.eval.max_new_tokens)
        super().__init__(config, model, GateValidation(model, self.look))
        self._sums: list[Tensor] = []  # of the step's micro-batches so far

    @staticmethod
    def is_trained(name: str) -> bool:
        return name.startswith(PREFIX)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Loss of one micro-batch: its share of the mean over all questions of the optimizer step.

        Returns:
            `loss` (scalar, for backward), `num_kept` and `num_visual` ([B], what the glimpse would keep, and in all).
        """
        looked = self.look(batch)
        logits = gate_of(self.model)(looked.hidden)
        local = F.binary_cross_entropy_with_logits(logits, looked.right, reduction="sum")
        of_step = len(batch) if batch.counts is None else batch.counts.num_images  # a sample has one image
        mine = torch.stack([local.detach(), looked.right.sum(), ((logits > 0) == (looked.right > 0.5)).sum().float()])
        sums = self._sum_over_processes(torch.cat([mine, mine.new_tensor([len(batch), of_step])]))
        num_parts = self.trainer.world_size * self.trainer.accumulate_grad_batches
        self._log_sums(sums, batch_idx)
        loss = num_parts * local / sums[4].clamp(min=1)
        return {"loss": loss, "num_kept": looked.num_kept, "num_visual": looked.num_visual}

    def _log_sums(self, sums: Tensor, batch_idx: int) -> None:
        """Logs the optimizer step's figures once its last micro-batch is in."""
        self._sums.append(sums)
        if not ends_step(self.trainer, batch_idx):
            return
        loss, right, agreed, count, _ = torch.stack(self._sums).sum(0).unbind()
        self._sums.clear()
        self.loss_of_step = loss / count
        (group, *_) = self.optimizers().param_groups
        figures = {"loss": self.loss_of_step, "glance_accuracy": right / count, "gate_accuracy": agreed / count}
        self.log_dict(
            {
                **{f"train/{name}": value for name, value in figures.items()},
                **self._epoch(self.trainer.global_step + 1),
                "train/lr": group["lr"],
            },
            batch_size=1,
        )

    # ---- what a checkpoint holds --------------------------------------------------------------------------------

    def groups(self) -> list[dict[str, Any]]:
        """The weight decays, the bias does not."""
        linear, optim = gate_of(self.model).linear, self.config.optim
        return [
            {"name": "gate", "params": [linear.weight], "lr": optim.lr, "weight_decay": optim.weight_decay},
            {"name": "gate_no_decay", "params": [linear.bias], "lr": optim.lr, "weight_decay": 0.0},
        ]

    def facts(self) -> dict[str, Any]:
        assert self.model.glimpse is not None
        return {"base": self._base_facts, "parts": self.model.glimpse.meaning()}

    @cached_property
    def _base_facts(self) -> dict[str, Any]:
        return base_facts(self.model.backbone)  # the base is frozen

    def check_parts(self, checkpoint: Mapping[str, Any], where: str | Path) -> None:
        gate_parts(checkpoint, self._base_facts, self.facts()["parts"], gate_of(self.model).state_dict(), where)


def gate_of(model: GlimpseModel) -> Gate:
    """The head of a model that has one."""
    assert model.glimpse is not None and model.glimpse.gate is not None
    return model.glimpse.gate
