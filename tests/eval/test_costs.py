"""Times are ratios of neighbours, and nothing is measured twice."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from transformers import DynamicCache

from gp.eval import costs, timing
from gp.eval.costs import RowCost, kv_cache_mib
from gp.eval.plan import OWN_GLIMPSE, UNPRUNED, Method
from tests.support.slowing import Batch, Model, SlowingClock


@pytest.fixture
def calls(monkeypatch):
    clock = SlowingClock()
    monkeypatch.setattr(timing, "time_batch", clock)
    monkeypatch.setattr(costs, "memory_mib", lambda *arguments: (None, 1.5))
    return clock.calls


def test_kept_figures_are_reused_unless_batches_or_device_differ(calls, tmp_path):
    methods, seen = [UNPRUNED, OWN_GLIMPSE], []
    first = costs.measure_costs(Model, [Batch([1, 2])], methods, 0, {}, tmp_path, "test", seen.append)
    assert first[UNPRUNED] == RowCost(1.0, 1.0, None, 1.5) and seen == methods
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
