"""The loss of GRPO against cases by hand, against a plain reference, and against the formula that trl publishes."""

from __future__ import annotations

import math

import pytest
import torch

from gp.config.plus import AdvantageConfig, PlusConfig, PlusLossConfig
from gp.training.grpo.loss import MicroBatch, advantages, kl_estimate, policy_loss, summed, units


def settings(aggregation="sequence", scale="std", kl=0.04) -> PlusConfig:
    return PlusConfig(
        name="x", loss=PlusLossConfig(kl=kl, aggregation=aggregation), advantage=AdvantageConfig(scale=scale)
    )


def test_advantages_by_hand():
    nan = float("nan")
    rewards = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [1.0, nan, nan], [nan, nan, nan], [1.0, nan, 0.0]])
    spread = math.sqrt(((2 / 3) ** 2 + 2 * (1 / 3) ** 2) / 2)  # unbiased
    first = [(2 / 3) / (spread + 1e-4), -(1 / 3) / (spread + 1e-4), -(1 / 3) / (spread + 1e-4)]
    found = advantages(rewards, "std")
    assert found[0].tolist() == pytest.approx(first)
    assert found[1:4].abs().max() == 0  # no signal, one reward alone, no rewards
    two = 0.5 / (math.sqrt(0.5) + 1e-4)
    assert found[4].tolist() == pytest.approx([two, 0, -two])  # the two that were scored, against each other
    assert advantages(rewards, "none")[0].tolist() == pytest.approx([2 / 3, -1 / 3, -1 / 3])


TWO_BY_THREE = torch.tensor([[-1.0, -2.0, -0.5], [-0.1, -3.0, 0.0]])
MASK = torch.tensor([[True, True, True], [True, True, False]])


def test_two_answers_of_three_tokens_by_hand():
    """Advantages 2 and -1; the reference differs by log 2 in one token of each answer."""
    log_probs = TWO_BY_THREE.clone().requires_grad_(True)
    reference = TWO_BY_THREE + torch.tensor([[math.log(2), 0, 0], [0, -math.log(2), 9.0]])
    advantage = torch.tensor([2.0, -1.0])
    by_hand = [2 - math.log(2) - 1, 0.5 + math.log(2) - 1]  # exp(d) - d - 1 at d = log 2 and -log 2
    expected = {
        "sequence": (-2.0 + 1.0, by_hand[0] / 3 + by_hand[1] / 2, 2, [-2 / 3, 1 / 2]),
        "token": (-6.0 + 2.0, sum(by_hand), 5, [-2.0, 1.0]),
    }
    for how, (policy, kl, count, slopes) in expected.items():
        found = summed(policy_loss(log_probs, advantage), MASK, how)
        assert found.item() == pytest.approx(policy)
        assert summed(kl_estimate(log_probs, reference), MASK, how).item() == pytest.approx(kl)
        assert int(units(MASK, how)) == count
        (gradient,) = torch.autograd.grad(found, log_probs)
        assert gradient[0].tolist() == pytest.approx([slopes[0]] * 3)
        assert gradient[1].tolist() == pytest.approx([slopes[1]] * 2 + [0.0])


def published(log_probs, reference, rewards, mask, beta, loss_type, scale_rewards):
    """Loss of trl's GRPOTrainer (0.18): one update a draw, so that the old log-probabilities are the detached ones."""
    groups = rewards.shape[1]
    means = rewards.mean(dim=1).repeat_interleave(groups, dim=0)
    stds = rewards.std(dim=1).repeat_interleave(groups, dim=0)
    gain = rewards.flatten() - means
    if scale_rewards:
        gain = gain / (stds + 1e-4)
    per_token_kl = torch.exp(reference - log_probs) - (reference - log_probs) - 1
    coefficient = torch.exp(log_probs - log_probs.detach())
    clipped = torch.clamp(coefficient, 0.8, 1.2)
    per_token = -torch.min(coefficient * gain.unsqueeze(1), clipped * gain.unsqueeze(1)) + beta * per_token_kl
    mask = mask.float()
    if loss_type == "grpo":
        return ((per_token * mask).sum(-1) / mask.sum(-1).clamp(min=1.0)).mean()
    return (per_token * mask).sum() / mask.sum().clamp(min=1.0)  # "bnpo"


@pytest.mark.parametrize("aggregation, loss_type", [("sequence", "grpo"), ("token", "bnpo")])
@pytest.mark.parametrize("scale", ["std", "none"])
@pytest.mark.parametrize("seed", range(3))
def test_equal_to_the_published_formula(aggregation, loss_type, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    log_probs = (-3 * torch.rand(12, 7, generator=generator)).requires_grad_(True)
    reference = log_probs.detach() + 0.3 * torch.randn(12, 7, generator=generator)
    rewards = torch.rand(3, 4, generator=generator)
    mask = torch.arange(7) < torch.randint(1, 8, (12, 1), generator=generator)
    config = settings(aggregation, scale)
    found = MicroBatch.make(
        config, log_probs, reference, torch.zeros(12, 7), mask, torch.zeros(12, dtype=torch.bool), rewards
    )
    loss = (found.policy + config.loss.kl * found.kl) / found.units
    wanted = published(log_probs, reference, rewards, mask, config.loss.kl, loss_type, scale == "std")
    assert loss.item() == pytest.approx(wanted.item(), abs=1e-6)
    one, other = (torch.autograd.grad(value, log_probs)[0] for value in (loss, wanted))
    assert float(other.abs().max()) > 0
    assert torch.allclose(one, other, atol=1e-7)


def test_answers_without_a_reward_are_left_out():
    """They neither teach nor count, in the KL divergence neither; the others of their question are a smaller group."""
    generator = torch.Generator().manual_seed(1)
    log_probs, mask = -torch.rand(4, 5, generator=generator), torch.ones(4, 5, dtype=torch.bool)
    reference, rest = log_probs + 0.1 * torch.rand(4, 5, generator=generator), torch.tensor([0, 1, 3])
    cut_off, entropy = torch.zeros(4, dtype=torch.bool), torch.ones(4, 5)
    rewards = torch.tensor([[1.0, 0.25, float("nan"), 0.0]])
    found = MicroBatch.make(settings(), log_probs, reference, entropy, mask, cut_off, rewards)
    assert found.unscored == 1 and found.skipped == 0
    alone = MicroBatch.make(
        settings(), log_probs[rest], reference[rest], entropy[rest], mask[rest], cut_off[rest], rewards[:, rest]
    )
    for name in ("policy", "kl", "units", "reward", "spread", "groups", "no_signal"):
        assert getattr(found, name) == pytest.approx(float(getattr(alone, name))), name
    assert found.kl > 0 and found.reward > 0.4


def test_a_question_without_rewards_is_left_out():
    """So is one with a single reward, with which there is nothing to compare."""
    generator = torch.Generator().manual_seed(0)
    log_probs, mask = -torch.rand(6, 5, generator=generator), torch.ones(6, 5, dtype=torch.bool)
    reference = log_probs + 0.1
    rewards = torch.tensor([[1.0, 0.0, 0.0], [float("nan"), 1.0, float("nan")]])
    cut_off, entropy = torch.tensor([True] + [False] * 5), torch.ones(6, 5)
    both = MicroBatch.make(settings(), log_probs, reference, entropy, mask, cut_off, rewards)
    rows = slice(0, 3)
    alone = MicroBatch.make(
        settings(), log_probs[rows], reference[rows], entropy[rows], mask[rows], cut_off[rows], rewards[:1]
    )
    for name in ("policy", "kl", "units", "reward", "spread", "groups", "no_signal"):
        assert getattr(both, name) == getattr(alone, name), name
    figures = both.figures(0.04)
    assert figures["skipped_questions"] == 1 and figures["reward"] == pytest.approx(1 / 3)
    assert figures["answer_tokens"] == 5 and figures["cut_off"] == pytest.approx(1 / 6) and figures["entropy"] == 1
    nothing = MicroBatch.make(settings(), log_probs, None, entropy, mask, cut_off, rewards.fill_(float("nan")))
    assert all(value.isfinite() for value in nothing.figures(0.04).values())
