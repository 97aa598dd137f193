"""The training loss of an optimizer step, computed so that it does not depend on how its samples are dealt.

Mask losses are means over images and the answer loss is a mean over tokens, of *all* processes and micro-batches
together. Ragged batches make means of means wrong, so every micro-batch contributes sums, over counts of the step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gp.config import LossConfig
from gp.data.batch import StepCounts
from gp.engine.teacher_forcing import TeacherForced
from gp.modules import answer_loss, bce_loss, dice_loss
from gp.selection import select
from gp.types import PruneOptions


@dataclass
class BatchSums:
    """What one micro-batch of one process adds to the loss of a step. All scalars.

    Args:
        dice: sum over images and VIP output heads, differentiable.
        bce: likewise.
        answer: cross-entropy summed over answer tokens, differentiable; 0 if the answer was not run.
        num_images: images.
        num_answer_tokens: answer tokens.
        num_kept: visual tokens that the current logits would keep.
        num_visual: visual tokens.
    """

    dice: Tensor
    bce: Tensor
    answer: Tensor
    num_images: Tensor
    num_answer_tokens: Tensor
    num_kept: Tensor
    num_visual: Tensor

    def packed(self) -> Tensor:
        """All fields, detached, float32 [7], so that one reduction adds them up over processes."""
        return torch.stack([value.detach().float() for value in vars(self).values()])


def batch_sums(
    forced: TeacherForced,
    evidence_masks: Sequence[Tensor],
    answer_ids: Tensor | None,
    answer_mask: Tensor | None,
    kept_per_prompt: Tensor,
) -> BatchSums:
    """Sums of one micro-batch.

    Args:
        forced: of `teacher_forced`.
        evidence_masks: one [h, w] an image.
        answer_ids: [B, A] int64; used if the answer was run.
        answer_mask: [B, A] bool.
        kept_per_prompt: [B], of `kept_counts`.
    """
    dice = bce = answer = forced.importance_logits[0].new_zeros(())
    for logits in forced.importance_logits:
        for scores, mask in zip(forced.layout.split_by_image(logits), evidence_masks, strict=True):
            scores, mask = scores.flatten(), mask.flatten().to(scores.device, non_blocking=True)
            dice = dice + dice_loss(scores, mask)
            bce = bce + bce_loss(scores, mask)
    num_tokens = dice.new_zeros(())
    if forced.answer_logits is not None:
        answer, num_tokens = answer_loss(forced.answer_logits, answer_ids, answer_mask)
    return BatchSums(
        dice=dice,
        bce=bce,
        answer=answer,
        num_images=dice.new_full((), float(len(forced.layout.grids))),
        num_answer_tokens=num_tokens,
        num_kept=kept_per_prompt.sum(),
        num_visual=dice.new_full((), float(forced.layout.num_tokens)),
    )


def kept_counts(forced: TeacherForced, options: PruneOptions) -> Tensor:
    """Visual tokens of each prompt that the current importance logits would keep, [B] int64."""
    keep = select(forced.importance_logits[-1].detach(), forced.layout, options)
    sizes = forced.layout.prompt_sizes
    prompt = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes)).to(keep.device, non_blocking=True)
    return torch.zeros(len(sizes), dtype=torch.long, device=keep.device).index_add(0, prompt, keep.long())


@dataclass
class StepLoss:
    """Shares of one micro-batch, of all processes, in the losses of an optimizer step; they add up over micro-batches.

    Each is unweighted; `total` weighs them. Detached scalars except `backward`.

    Args:
        backward: what this process calls backward on: scaled so that the *mean* of the gradients over processes (what
            DDP takes) and micro-batches (what Lightning takes) is the gradient of the step's `total`.
    """

    backward: Tensor
    total: Tensor
    dice: Tensor
    bce: Tensor
    answer: Tensor


def step_loss(
    local: BatchSums,
    weights: LossConfig,
    counts: StepCounts | None = None,
    num_parts: int = 1,
    reduce: Callable[[Tensor], Tensor] | None = None,
) -> tuple[StepLoss, BatchSums]:
    """Loss of an optimizer step, as far as one micro-batch contributes to it.

    Args:
        local: of this process's micro-batch.
        weights: of the three terms.
        counts: of this process's share of the optimizer step; None: the micro-batch is all of it.
        num_parts: processes times micro-batches, over which gradients are averaged.
        reduce: sums a tensor over the processes; None: there is one.

    Returns:
        The losses, and the micro-batch's sums over all processes.
    """
    packed = local.packed()
    of_step = packed[3:5] if counts is None else packed.new_tensor([counts.num_images, counts.num_answer_tokens])
    packed = torch.cat([packed, of_step])
    *sums, num_images, num_tokens = (packed if reduce is None else reduce(packed)).unbind()
    whole = BatchSums(*sums)
    num_images, num_tokens = num_images.clamp(min=1), num_tokens.clamp(min=1)

    def weigh(sums: BatchSums) -> Tensor:
        masks = weights.dice * sums.dice + weights.bce * sums.bce
        return masks / num_images + weights.answer * sums.answer / num_tokens

    loss = StepLoss(
        backward=num_parts * weigh(local),
        total=weigh(whole),
        dice=whole.dice / num_images,
        bce=whole.bce / num_images,
        answer=whole.answer / num_tokens,
    )
    return loss, whole
