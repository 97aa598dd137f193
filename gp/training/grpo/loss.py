"""The loss of GRPO as pure functions: advantages within a group, policy gradient, and the distance from a reference.

Source: Shao et al., "DeepSeekMath", 2024 (arXiv 2402.03300), section 4.1, with one update for each draw, so that the
ratio of probabilities is 1; Liu et al., "Understanding R1-Zero-Like Training", 2025 (arXiv 2503.20783) on what the mean
over each answer's tokens and the division by the standard deviation do to long answers and to easy questions.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from gp.config.plus import PlusConfig

SPREAD_FLOOR = 1e-4  # added to a standard deviation, as in the original
NO_SPREAD = 1e-6  # what rounding leaves of rewards that are all the same


def advantages(rewards: Tensor, scale: str) -> Tensor:
    """How much better each answer is than the mean of its group.

    Args:
        rewards: [B, G] float32; NaN: an answer that nobody scored, which counts for nothing.
        scale: `std` divides by the group's standard deviation (unbiased) + 1e-4; `none` does not.

    Returns:
        [B, G]; 0 for answers without a reward, and for one that is alone with its own.
    """
    means, spreads = moments(rewards)
    centred = (rewards - means[:, None]).nan_to_num(0.0)
    return centred / (spreads[:, None] + SPREAD_FLOOR) if scale == "std" else centred


def moments(rewards: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased standard deviation of the rewards that each group has, [B] each; 0 where it has too few.

    Args:
        rewards: [B, G], NaN where there is none.
    """
    count = (~rewards.isnan()).sum(1)
    means = rewards.nansum(1) / count.clamp(min=1)
    squares = (rewards - means[:, None]).nan_to_num(0.0).square().sum(1)
    return means, (squares / (count - 1).clamp(min=1)).sqrt()


def policy_loss(log_probs: Tensor, advantage: Tensor) -> Tensor:
    """-ratio * advantage of each token, [rows, L]; the ratio is 1 and has the gradient of its log-probability.

    Args:
        log_probs: [rows, L] of the drawn tokens.
        advantage: [rows].
    """
    return -(log_probs - log_probs.detach()).exp() * advantage[:, None]


def kl_estimate(log_probs: Tensor, reference: Tensor) -> Tensor:
    """exp(d) - d - 1 of each token, d = reference - log_probs: not negative, and the KL divergence in the mean.

    Source: Schulman, "Approximating KL Divergence", 2020, estimator k3.
    """
    difference = reference - log_probs
    return difference.exp() - difference - 1


def summed(per_token: Tensor, mask: Tensor, aggregation: str) -> Tensor:
    """Sum of what `units` counts: of each answer's mean over its tokens (`sequence`), or of all tokens (`token`).

    Args:
        per_token: [rows, L].
        mask: [rows, L] bool, the tokens that count; a row may have none.
        aggregation: `sequence` or `token`.
    """
    of_rows = (per_token * mask).sum(1)
    if aggregation == "sequence":
        of_rows = of_rows / mask.sum(1).clamp(min=1)
    return of_rows.sum()


def units(mask: Tensor, aggregation: str) -> Tensor:
    """What the loss is a mean over: answers, or tokens; a scalar."""
    return (mask.any(1) if aggregation == "sequence" else mask).sum()


@dataclass
class MicroBatch:
    """What one micro-batch of one process adds to an optimizer step. All scalars; the first two are differentiable.

    Args:
        policy, kl: sums over `units`.
        units: answers or tokens that count.
        reward, spread: sums over groups of a group's mean and standard deviation.
        no_signal: groups whose rewards are all the same.
        groups: with two rewards or more.
        skipped: groups without.
        unscored: answers that have no reward.
        entropy: nats, summed over tokens.
        tokens, answers: of all groups.
        cut_off: answers that reached no end.
    """

    policy: Tensor
    kl: Tensor
    units: Tensor
    reward: Tensor
    spread: Tensor
    no_signal: Tensor
    groups: Tensor
    skipped: Tensor
    unscored: Tensor
    entropy: Tensor
    tokens: Tensor
    answers: Tensor
    cut_off: Tensor

    @classmethod
    def make(
        cls,
        config: PlusConfig,
        log_probs: Tensor,
        reference: Tensor | None,
        entropy: Tensor,
        mask: Tensor,
        cut_off: Tensor,
        rewards: Tensor,
    ) -> MicroBatch:
        """Sums of B groups of G answers.

        Args:
            config: of the run.
            log_probs: [B * G, L].
            reference: of the base without adapter; None: not asked for.
            entropy: [B * G, L].
            mask: [B * G, L] bool, False on padding.
            cut_off: [B * G] bool.
            rewards: [B, G], NaN where there is none.
        """
        how, scored = config.loss.aggregation, ~rewards.isnan()
        known = scored.sum(1) > 1  # the worth of an answer is a comparison
        advantage = advantages(rewards, config.advantage.scale).flatten()
        counted = mask & (scored & known[:, None]).flatten()[:, None]
        kl = log_probs.new_zeros(()) if reference is None else summed(kl_estimate(log_probs, reference), counted, how)
        means, spreads = (values[known] for values in moments(rewards))
        values = {
            "policy": summed(policy_loss(log_probs, advantage), counted, how),
            "kl": kl,
            "units": units(counted, how),
            "reward": means.sum(),
            "spread": spreads.sum(),
            "no_signal": (spreads < NO_SPREAD).sum(),
            "groups": known.sum(),
            "skipped": (~known).sum(),
            "unscored": (~scored).sum(),
            "entropy": entropy.sum(),
            "tokens": mask.sum(),
            "answers": log_probs.new_tensor(float(len(mask))),
            "cut_off": cut_off.sum(),
        }
        return cls(**{name: value.float() for name, value in values.items()})

    def packed(self) -> Tensor:
        """All fields, detached, so that one reduction adds them up over processes."""
        return torch.stack([value.detach() for value in vars(self).values()])

    @classmethod
    def unpacked(cls, values: Tensor) -> MicroBatch:
        return cls(*values[: len(fields(cls))].unbind())

    def figures(self, kl_weight: float) -> dict[str, Tensor]:
        """Means of a whole step, by the names of curves."""
        num_units, groups = self.units.clamp(min=1), self.groups.clamp(min=1)
        policy, kl = self.policy / num_units, self.kl / num_units
        return {
            "loss": policy + kl_weight * kl,
            "loss_policy": policy,
            "kl": kl,
            "reward": self.reward / groups,
            "reward_spread": self.spread / groups,
            "no_signal": self.no_signal / groups,
            "skipped_questions": self.skipped,
            "unscored_answers": self.unscored,
            "entropy": self.entropy / self.tokens.clamp(min=1),
            "answer_tokens": self.tokens / self.answers,
            "cut_off": self.cut_off / self.answers,
        }
