"""Times are ratios of neighbours, and nothing is measured twice."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from transformers import DynamicCache

from gp.eval import costs, timing
from gp.eval.costs import Cost, kv_cache_mib
from gp.eval.plan import OWN_GLIMPSE, UNPRUNED, Method


class Batch(list):
    """As many samples as it has items."""


class Model:
    class backbone:
        class device:
            type = "cpu"


@pytest.fixture
def calls(monkeypatch):
    """A slowing machine: every call takes one second more; pruned prefill costs half, its decoding a quarter."""
    made = []

    def time_batch(model, batch, method, seed, num_keep):
        made.append((len(batch), method))
        clock = len(made)
        return (clock, clock) if method == UNPRUNED else (0.5 * clock, 0.25 * clock)

    monkeypatch.setattr(timing, "time_batch", time_batch)
    monkeypatch.setattr(timing, "REPEATS", 5)
    monkeypatch.setattr(costs, "memory_mib", lambda *arguments: (None, 1.5))
    return made


def test_pairs_in_turn_after_a_warm_up(calls):
    prefill_ratio, decode_ratio = timing.time_ratios(Model, [Batch([1, 2]), Batch([1])], OWN_GLIMPSE, 0, {})
    assert len(calls) == (timing.REPEATS + 1) * 2 * 2
    assert [method for _, method in calls] == [UNPRUNED, OWN_GLIMPSE] * (len(calls) // 2)
    # in pair k the pruned run comes second, at clock 2 k instead of 2 k - 1; the first two pairs warm up
    ratios = [2 * k / (2 * k - 1) for k in range(3, 13)]
    middle = sum(sorted(ratios)[4:6]) / 2
    assert (prefill_ratio, decode_ratio) == pytest.approx((0.5 * middle, 0.25 * middle), abs=1e-4)


def test_kept_figures_are_reused_unless_batches_or_device_differ(calls, tmp_path):
    methods, seen = [UNPRUNED, OWN_GLIMPSE], []
    first = costs.measure_costs(Model, [Batch([1, 2])], methods, 0, {}, tmp_path, "test", seen.append)
    assert first[UNPRUNED] == Cost(1.0, 1.0, None, 1.5) and seen == methods
    done = len(calls)
    again = costs.measure_costs(Model, [Batch([1, 2])], [*methods, Method("oracle")], 0, {}, tmp_path, "test")
    assert again[OWN_GLIMPSE] == first[OWN_GLIMPSE] and len(calls) == 2 * done  # only the new row
    costs.measure_costs(Model, [Batch([1])], methods, 0, {}, tmp_path, "test")
    assert len(calls) == 3 * done
    labels = {"test-none-own", "test-glimpse-own", "test-oracle-own"}
    assert set(json.loads((tmp_path / "costs.json").read_text())) == labels


def test_kv_cache_from_tensors():
    cache = DynamicCache()
    for layer, length in enumerate((512, 256)):
        states = torch.zeros(2, 4, length, 32, dtype=torch.bfloat16)
        cache.update(states, states, layer)
    assert kv_cache_mib(SimpleNamespace(cache=cache)) == 2 * (2 * 4 * (512 + 256) * 32) * 2 / 2**20
