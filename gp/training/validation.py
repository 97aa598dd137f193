"""Validation of a glimpse: masks against evidence, and answers with and without pruning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gp.data.batch import Batch
from gp.engine.generation import GREEDY
from gp.engine.prefill import Prefill, crop_counts
from gp.metrics import (
    AnswerScores,
    CropShares,
    EvidenceRecall,
    KeepRatio,
    MaskScores,
    MeanMaskIoU,
    crop_shares,
    mask_counts,
)
from gp.model import GlimpseModel
from gp.pruners import Pruner

ANSWER_SCORES = ("answer_accuracy", "answer_accuracy_unpruned", "agreement")


class Validation(nn.Module):
    """Metrics of one pass over a validation split. Sums and counts; processes meet in `compute` only.

    The un-pruned answers of a frozen base are computed in the first pass and kept by sample id.

    Args:
        model: with its processor.
        max_new_tokens: of an answer.
        pruner: the method; None: the model's glimpse.
        base_learns: the un-pruned answers change, too.

    Attributes:
        any_process: whether a process says yes; None: processes do not share the base and need not go in step.
    """

    any_process: Callable[[bool], bool] | None = None

    def __init__(
        self, model: GlimpseModel, max_new_tokens: int, pruner: Pruner | None = None, base_learns: bool = False
    ) -> None:
        super().__init__()
        self.__dict__["pruner"] = pruner
        self.base_learns = base_learns
        self.__dict__["model"] = model  # not a submodule of this one: its owner has it already
        self.max_new_tokens = max_new_tokens
        self.masks = MaskScores()
        self.evidence_recall = EvidenceRecall()
        self.mean_iou = MeanMaskIoU()
        self.keep_ratio = KeepRatio()
        self.answers = AnswerScores()
        self.looks_closer = pruner is not None and pruner.looks_closer
        self.crops = CropShares()
        self.unpruned_answers: dict[str, str] = {}

    def step(self, batch: Batch) -> dict[str, Any]:
        """Adds one batch.

        Returns:
            `keep_masks` (one bool [h, w] an image, what lies behind a kept token) and `answers` (texts).
        """
        done = self._prefill(batch)
        layout, masks = done.full_layout, [mask.to(done.keep_mask.device) for mask in batch.evidence_masks]
        seen = torch.cat([mask.flatten() for mask in done.seen_masks])
        evidence = torch.cat([mask.flatten() for mask in masks])
        kept, wanted = (layout.split_by_prompt(mask) for mask in (seen, evidence))
        counts = torch.stack([mask_counts(*masks) for masks in zip(kept, wanted, strict=True)])
        self.masks.update(counts)
        self.evidence_recall.update(counts)
        self.mean_iou.update(counts)
        sizes = torch.tensor(layout.prompt_sizes, device=evidence.device)
        if self.looks_closer:
            self._add_crops(done, batch.evidence_masks)
        self.keep_ratio.update(torch.tensor(done.num_kept, device=evidence.device), sizes)
        answers = self._decode(batch, done)
        self.answers.update(answers, [sample.answer for sample in batch.samples], self._unpruned(batch))
        return {"keep_masks": done.seen_masks, "answers": answers}

    def repeat(self, batch: Batch) -> None:
        """Runs what `step` runs, for the sake of other processes, and counts nothing."""
        self._decode(batch, self._prefill(batch))
        self._unpruned(batch)

    def _prefill(self, batch: Batch) -> Prefill:
        pictures = [sample.image for sample in batch.samples if sample.image is not None]
        return self.model.prefill(
            batch.inputs_for(self.model.backbone),
            self.pruner,
            evidence_masks=batch.evidence_masks,
            originals=pictures if len(pictures) == len(batch) else None,
        )

    def compute(self) -> dict[str, Tensor]:
        """All figures of the pass, the same on every process; starts afresh."""
        figures = {f"mask_{name}": value for name, value in self.masks.compute().items()}
        figures["evidence_recall"] = self.evidence_recall.compute()
        figures["mask_mean_iou"] = self.mean_iou.compute()
        figures["keep_ratio"] = self.keep_ratio.compute()["keep_ratio"]
        if self.looks_closer:
            figures.update(self.crops.compute())
        answers = self.answers.compute()
        figures.update({name: answers[name] for name in ANSWER_SCORES if name in answers})
        for metric in (self.masks, self.evidence_recall, self.mean_iou, self.keep_ratio, self.answers, self.crops):
            metric.reset()
        return {name: value.float() for name, value in figures.items()}

    def _add_crops(self, done: Prefill, evidence_masks: Sequence[Tensor]) -> None:
        found = crop_counts(done, evidence_masks)
        rows, encoded, visual = done.full_layout.rows, done.layout.prompt_sizes, done.full_layout.prompt_sizes
        evidence = [
            sum(int(mask.sum()) for mask, of_row in zip(evidence_masks, rows, strict=True) if of_row == row)
            for row in range(len(found))
        ]
        shares = [crop_shares(*one, *rest) for one, *rest in zip(found, evidence, encoded, visual, strict=True)]
        self.crops.update(torch.tensor(shares, dtype=torch.double).reshape(-1, 4))

    def _unpruned(self, batch: Batch) -> list[str]:
        ids = [sample.id for sample in batch.samples]
        missing = self.base_learns or not self.unpruned_answers.keys() >= set(ids)
        if missing if self.any_process is None else self.any_process(missing):
            answers = self._decode(batch, self.model.prefill(batch.inputs_for(self.model.backbone), pruner="none"))
            self.unpruned_answers.update(zip(ids, answers))
        return [self.unpruned_answers[key] for key in ids]

    def _decode(self, batch: Batch, done: Prefill) -> list[str]:
        """Greedy answers, as text; the prefill is used up."""
        tokenizer = self.model.processor.tokenizer
        prompt = batch.sent["input_ids"]
        stop = {"max_new_tokens": self.max_new_tokens, "pad_token_id": tokenizer.pad_token_id}
        if self.any_process is not None:
            stop["synced_gpus"] = True  # transformers' word for: decode until no process has an answer to finish
        ids = self.model.decode(prompt, done, consume=True, **stop, **GREEDY)
        texts = tokenizer.batch_decode(ids[:, prompt.shape[1] :], skip_special_tokens=True)
        return [text.strip() for text in texts]
