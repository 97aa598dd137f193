"""Rewards: weighted sums, and what has none."""

from __future__ import annotations

import pytest
import torch

from gp.config.plus import REWARDS as NAMES
from gp.config.plus import PlusConfig, RewardConfig
from gp.training.grpo import rewards
from gp.training.grpo.rewards import REWARDS, Answered, Reward, WeightedRewards

ANSWERS = [Answered("?", "stop", said) for said in ("stop", "shop", "red")]


def rewards_of(weights) -> WeightedRewards:
    return WeightedRewards(PlusConfig(name="x", reward=RewardConfig(weights)))


class Away(Reward):
    """A judge that does not answer for the second one."""

    def start(self, answers):
        return lambda: [1.0, None, 0.0]


def test_weighted_sum():
    found = rewards_of({"exact": 2.0, "anls": 1.0}).start(ANSWERS)()
    assert found.tolist() == pytest.approx([3.0, 0.75, 0.0])


def test_an_answer_that_nobody_scored_has_no_reward(monkeypatch):
    monkeypatch.setitem(rewards.REWARDS, "away", lambda config: Away())
    found = rewards_of({"exact": 1.0, "away": 1.0}).start(ANSWERS)()
    assert found.isnan().tolist() == [False, True, False] and found[0] == 2 and found[2] == 0


def test_the_config_knows_all_rewards():
    assert set(NAMES) == set(REWARDS)
    assert torch.is_tensor(rewards_of({NAMES[0]: 1.0}).start(ANSWERS)())
