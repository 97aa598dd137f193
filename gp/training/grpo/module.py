"""The LightningModule of GlimpsePrune+: draws answers behind pruned prompts, and makes good ones likelier."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gp.backbones.adapters import MARK
from gp.config.plus import PlusConfig
from gp.data.batch import Batch
from gp.engine.answer_logprobs import AnswerLogProbs, answer_logprobs, pruned_prefix
from gp.formats.facts import base_facts
from gp.model import GlimpseModel
from gp.pruners import OraclePruner
from gp.runs.checkpoint import adapter_parts
from gp.runs.differences import ADAPTER
from gp.training.grpo.loss import MicroBatch
from gp.training.grpo.rewards import Answered, WeightedRewards
from gp.training.grpo.rollouts import Rollouts, roll_out, seed_of
from gp.training.optimizer import adapter_groups
from gp.training.run_module import RunModule
from gp.training.steps import ends_step
from gp.training.validation import Validation
from gp.types import ImageFeatures


@dataclass
class Drawn:
    """Answers that were drawn.

    Args:
        batch: the questions.
        images: their features.
        rollouts: the answers.
        waiting: waits for the rewards, as of `WeightedRewards.start`.
    """

    batch: Batch
    images: ImageFeatures
    rollouts: Rollouts
    waiting: Callable[[], Tensor]


class Learned(NamedTuple):
    """The loss of drawn answers, and a text per question that shows them."""

    loss: Tensor
    texts: list[str]


class PlusModule(RunModule):
    """Trains the adapter of a base by GRPO, one update for each draw; glimpse and base are frozen.

    Answers are drawn and differentiated without dropout, behind the same pruned prompts: the ratio of probabilities is
    1. Rewards are waited for only once the training forward has run; those that take time, such as a judge's, one
    micro-batch longer: the next answers of the step are drawn meanwhile, by the same weights.

    Args:
        config: of the run.
        model: of `gp.loading.load_plus`.
    """

    config: PlusConfig

    def __init__(self, config: PlusConfig, model: GlimpseModel) -> None:
        self.prune_layer = config.glimpse.prune_layer
        pruner = OraclePruner(self.prune_layer) if model.glimpse is None else None
        validation = Validation(model, config.eval.max_new_tokens, pruner, base_learns=True)
        super().__init__(config, model, validation)
        self.rewards = WeightedRewards(config)
        self._sums: list[Tensor] = []  # of the step's micro-batches so far
        self._open: list[Drawn] = []  # of the micro-batch before, which waits for its rewards
        self._waited_s = 0.0  # for rewards, in these
        self._ends_step = False

    @staticmethod
    def is_trained(name: str) -> bool:
        return MARK in name

    # ---- training ---------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Loss of one micro-batch, and what callbacks show of it.

        Returns:
            `loss` (scalar, for backward: a sum, which `on_after_backward` makes a mean; of the answers whose turn it
            is), `rollouts` (a text per question of these), `num_kept` and `num_visual` ([B], visual tokens of each
            prompt of this batch that were kept, and in all).
        """
        self._ends_step = ends_step(self.trainer, batch_idx)
        now = self._draw(batch)
        due = [now]
        if self.rewards.takes_time:  # the answers before these were scored while these were drawn
            due = [*self._open, now] if self._ends_step else self._open
            self._open = [] if self._ends_step else [now]
        found = [self._learn(one) for one in due]
        kept, sizes = _counts(batch, now.rollouts.keep_masks, self.device)
        return {
            "loss": torch.stack([one.loss for one in found]).sum() if found else self._nothing(),
            "num_kept": kept,
            "num_visual": sizes,
            "rollouts": [text for one in found for text in one.texts],
        }

    def _draw(self, batch: Batch) -> Drawn:
        """Answers to a micro-batch, whose rewards are on their way."""
        config = self.config.grpo
        method = "none" if config.mask == "boxes" else "glimpse"
        images = self.model.see(batch.inputs_for(self.model.backbone), [method])
        rollouts = roll_out(self.model, batch, config, self.prune_layer, images, self._seeds(batch))
        return Drawn(batch, images, rollouts, self.rewards.start(_answered(batch, rollouts, config.group_size)))

    def _learn(self, drawn: Drawn) -> Learned:
        """The loss of answers that were drawn, by the same weights."""
        rollouts, copies = drawn.rollouts, self.config.grpo.group_size
        reference = self._reference(drawn) if self.config.loss.kl > 0 else None
        found = self._log_probs(drawn, self.config.grpo.prefix_gradients)  # last: its graph is large
        rewards = self._wait(drawn.waiting).view(-1, copies)
        mine = MicroBatch.make(
            self.config,
            found.log_probs,
            reference,
            found.entropy,
            rollouts.mask,
            rollouts.cut_off,
            rewards.to(self.device),
        )
        kept, sizes = _counts(drawn.batch, rollouts.keep_masks, self.device)
        self._sums.append(torch.cat([mine.packed(), torch.stack([kept.sum(), sizes.sum()]).float()]))
        return Learned(mine.policy + self.config.loss.kl * mine.kl, _as_text(drawn.batch, rollouts, rewards))

    def _nothing(self) -> Tensor:
        """A loss of 0, for a micro-batch whose answers wait for their rewards."""
        _, weight = self._weights()[0]
        return 0.0 * weight.flatten()[0]

    def on_after_backward(self) -> None:
        """Behind the step's last micro-batch: makes the gradients of sums those of means over the whole step.

        How many answers and tokens a step has is known only now; Lightning took the mean over micro-batches, and DDP
        over processes.
        """
        if not self._ends_step:
            return
        num_parts = self.trainer.world_size * len(self._sums)
        sums = self._sum_over_processes(torch.stack(self._sums).sum(0))
        self._sums.clear()
        whole = MicroBatch.unpacked(sums)
        factor = num_parts / whole.units.clamp(min=1)
        for _, weight in self._weights():
            if weight.grad is not None:
                weight.grad.mul_(factor)
        self._log_figures(whole, sums[-2] / sums[-1].clamp(min=1))

    def _log_figures(self, whole: MicroBatch, keep_ratio: Tensor) -> None:
        figures = whole.figures(self.config.loss.kl)
        self.loss_of_step = figures["loss"]
        (group,) = self.optimizers().param_groups
        self.log_dict(
            {
                **{f"train/{name}": value for name, value in figures.items()},
                "train/keep_ratio": keep_ratio,
                "perf/reward_wait_s": self._waited_s,
                **self._epoch(self.trainer.global_step + 1),
                "train/lr": group["lr"],
            },
            batch_size=1,
        )
        self._waited_s = 0.0

    def _wait(self, waiting: Callable[[], Tensor]) -> Tensor:
        start_s = time.perf_counter()
        rewards = waiting()
        self._waited_s += time.perf_counter() - start_s
        return rewards

    def _seeds(self, batch: Batch) -> list[int]:
        """Of each answer: by question and step, whichever process draws it, and whether or not the run was resumed."""
        step, copies = self.trainer.global_step, range(self.config.grpo.group_size)
        return [seed_of(self.config.seed, step, sample.id, copy) for sample in batch.samples for copy in copies]

    def _log_probs(self, drawn: Drawn, gradients: bool) -> AnswerLogProbs:
        backbone, rollouts = self.model.backbone, drawn.rollouts
        inputs = drawn.batch.inputs_for(backbone)
        prefix = pruned_prefix(backbone, inputs, rollouts.keep_masks, self.prune_layer, drawn.images, gradients)
        return answer_logprobs(backbone, prefix, rollouts.ids, rollouts.mask, self.config.grpo.temperature)

    @torch.no_grad()
    def _reference(self, drawn: Drawn) -> Tensor:
        """Log-probabilities of the same answers behind the same prompts, by the base without its adapter."""
        with self.model.adapter.disable_adapter():
            return self._log_probs(drawn, gradients=False).log_probs

    # ---- what a checkpoint holds --------------------------------------------------------------------------------

    def _weights(self) -> list[tuple[str, torch.nn.Parameter]]:
        return [(name, weight) for name, weight in self.named_parameters() if self.is_trained(name)]

    def groups(self) -> list[dict[str, Any]]:
        return adapter_groups([weight for _, weight in self._weights()], self.config.optim)

    def facts(self) -> dict[str, Any]:
        adapter = self.config.adapter
        return {"base": self._base_facts, "parts": {"adapter": {"rank": adapter.rank, "alpha": adapter.alpha}}}

    @cached_property
    def _base_facts(self) -> dict[str, Any]:
        return {key: value for key, value in base_facts(self.model.backbone).items() if key != ADAPTER}

    def check_parts(self, checkpoint: Mapping[str, Any], where: str | Path) -> None:
        adapter_parts(checkpoint, self._base_facts, self.facts()["parts"], self.state_dict(), where)


def _answered(batch: Batch, drawn: Rollouts, copies: int) -> list[Answered]:
    samples = [sample for sample in batch.samples for _ in range(copies)]
    return [Answered(one.question, one.answer, text) for one, text in zip(samples, drawn.texts, strict=True)]


def _counts(batch: Batch, keep_masks: list[Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
    """Visual tokens of each question, kept and in all; a question has one image."""
    kept = torch.stack([mask.sum() for mask in keep_masks]).to(device)
    return kept, torch.tensor([mask.numel() for mask in keep_masks], device=device)


def _as_text(batch: Batch, drawn: Rollouts, rewards: Tensor) -> list[str]:
    texts, (_, copies) = iter(drawn.texts), rewards.shape
    shown = []
    for sample, row in zip(batch.samples, rewards.tolist(), strict=True):
        lines = [f"- {reward:.3g}: {next(texts)}" for reward, _ in zip(row, range(copies))]
        shown.append("\n".join([f"{sample.question} (right: {sample.answer})", "", *lines]))
    return shown
