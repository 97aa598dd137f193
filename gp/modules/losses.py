"""The three terms of the glimpse's loss: Dice and BCE between importance logits and evidence mask, and the answer's."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

DICE_EPS = 1e-6


def dice_loss(importance_logits: Tensor, evidence_mask: Tensor) -> Tensor:
    """Dice of one image: 1 - (2 sum(p m) + eps) / (sum p + sum m + eps) with p = sigmoid(logits), eps 1e-6.

    Args:
        importance_logits: [V] float.
        evidence_mask: [V] bool or 0..1.

    Returns:
        Scalar in [0, 1], float32.

    Source: GlimpsePrune (arXiv 2508.01548), equation of the localisation loss.
    """
    prob, mask = importance_logits.float().sigmoid(), evidence_mask.float()
    return 1 - (2 * (prob * mask).sum() + DICE_EPS) / (prob.sum() + mask.sum() + DICE_EPS)


def bce_loss(importance_logits: Tensor, evidence_mask: Tensor) -> Tensor:
    """Binary cross-entropy with logits, mean over the tokens of one image; arguments as in `dice_loss`."""
    return F.binary_cross_entropy_with_logits(importance_logits.float(), evidence_mask.float())


def answer_loss(logits: Tensor, answer_ids: Tensor, answer_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the answer tokens, as a sum, so that ranks and batches can be averaged exactly.

    Args:
        logits: [B, L, vocabulary], row j predicts answer token j (the glimpse token predicts the first).
        answer_ids: [B, L] int64.
        answer_mask: [B, L] bool, False on padding.

    Returns:
        Sum over the answer tokens (scalar, float32) and their number (scalar int64).
    """
    losses = F.cross_entropy(logits.float().flatten(0, 1), answer_ids.flatten(), reduction="none")
    return (losses * answer_mask.flatten()).sum(), answer_mask.sum()
