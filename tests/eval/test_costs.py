"""Times are ratios of neighbours, and nothing is measured twice."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from transformers import DynamicCache

from gp.eval import costs, row_costs, timing
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
    path = costs.costs_path(tmp_path)
    first = costs.measure_costs(Model, [Batch([1, 2])], methods, 0, {}, path, "test", seen.append)
    none = first[UNPRUNED]
    assert (none.prefill_ratio, none.decode_ratio, none.peak_mib, none.kv_cache_mib) == (1.0, 1.0, None, 1.5)
    assert none.prefill_ms > 0 and none.decode_ms > 0 and none.questions_per_s > 0 and seen == methods
    done = len(calls)
    again = costs.measure_costs(Model, [Batch([1, 2])], [*methods, Method("oracle")], 0, {}, path, "test")
    assert again[OWN_GLIMPSE] == first[OWN_GLIMPSE] and len(calls) == 2 * done  # only the new row
    costs.measure_costs(Model, [Batch([1])], methods, 0, {}, path, "test")
    assert len(calls) == 3 * done
    labels = {"test-none-own", "test-glimpse-own", "test-oracle-own"}
    assert set(json.loads((tmp_path / "costs.json").read_text())) == labels


def test_figures_of_another_process_are_reused(calls, tmp_path):
    """Each process has a file of its own; with another number of them every file still counts."""
    methods = [UNPRUNED, OWN_GLIMPSE]
    of_second = costs.measure_costs(Model, [Batch([1])], methods[1:], 0, {}, costs.costs_path(tmp_path, 1), "test")
    done = len(calls)
    found = costs.measure_costs(Model, [Batch([1])], methods, 0, {}, costs.costs_path(tmp_path), "test")
    assert found[OWN_GLIMPSE] == of_second[OWN_GLIMPSE]
    assert {method for _, method in calls[done:]} == {UNPRUNED}
    assert set(json.loads((tmp_path / "costs.json").read_text())) == {"test-none-own"}


def test_figures_of_an_earlier_version_are_taken_again(calls, tmp_path):
    """It took no absolute times."""
    path = costs.costs_path(tmp_path)
    costs.measure_costs(Model, [Batch([1])], [UNPRUNED], 0, {}, path, "test")
    entry = json.loads(path.read_text())["test-none-own"]
    path.write_text(json.dumps({"test-none-own": {k: v for k, v in entry.items() if k != "questions_per_s"}}))
    done = len(calls)
    costs.measure_costs(Model, [Batch([1])], [UNPRUNED], 0, {}, path, "test")
    assert len(calls) == 2 * done and json.loads(path.read_text())["test-none-own"].keys() == entry.keys()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 3}'])
def test_a_broken_file_is_named(calls, tmp_path, text):
    path = costs.costs_path(tmp_path)
    path.write_text(text)
    with pytest.raises(ValueError, match=r"costs\.json: not the costs of an evaluation .*delete it"):
        costs.measure_costs(Model, [Batch([1])], [UNPRUNED], 0, {}, path, "test")


def test_groups_share_their_unpruned_runs(calls, tmp_path):
    methods = [*(Method("random", share / 10) for share in range(1, 6)), UNPRUNED]
    costs.measure_costs(Model, [Batch([1])], methods, 0, {}, costs.costs_path(tmp_path), "test")
    unpruned = [method for _, method in calls].count(UNPRUNED)
    assert unpruned == 2 * (1 + timing.ROUNDS)  # two groups, of three and of two pruned rows


def test_one_process_knows_a_row_and_all_learn_it():
    """A process adds what it has measured; another one nothing, and what a system cannot tell nobody knows."""
    metrics = row_costs.cost_metrics()
    for cost in (costs.NOT_MEASURED, RowCost(0.5, 0.1234, None, 1.9453, 12.5)):
        row_costs.update_costs(metrics, cost)
    assert row_costs.compute_costs(metrics) == RowCost(0.5, 0.1234, None, 1.9453, 12.5)
    nothing = row_costs.cost_metrics()
    row_costs.update_costs(nothing, costs.NOT_MEASURED)
    assert row_costs.compute_costs(nothing) == costs.NOT_MEASURED


@pytest.mark.parametrize(("device", "of_ranks"), [("cpu", ["abcde", ""]), ("cuda", ["ace", "bd"])])
def test_who_measures(device, of_ranks):
    """Processes that share cores do not measure at the same time; GPUs do, and every row is measured once."""
    module = SimpleNamespace(model=SimpleNamespace(backbone=SimpleNamespace(device=torch.device(device))))
    for rank, rows in enumerate(of_ranks):
        trainer = SimpleNamespace(global_rank=rank, world_size=2, is_global_zero=rank == 0)
        assert "".join(row_costs.rows_to_measure(list("abcde"), trainer, module)) == rows


def test_they_are_taken_once_for_all_splits(calls, tmp_path, monkeypatch):
    methods, logged = [UNPRUNED, OWN_GLIMPSE], []
    monkeypatch.setattr(row_costs, "log_rows", lambda module, rows: logged.append(rows))
    module = SimpleNamespace(
        config=SimpleNamespace(eval=SimpleNamespace(costs=True), seed=0),
        runs=[SimpleNamespace(split=split, methods=methods, folder=tmp_path) for split in ("test", "test_hard")],
        **{"group": None, "model": Model, "out": tmp_path, "console": None},
        first_batches=lambda split: [Batch([1])] if split == "test" else pytest.fail("measured on a second split"),
        wait=lambda: None,
    )
    rows = row_costs.RowCosts()
    rows.on_test_epoch_end(SimpleNamespace(global_rank=0, is_global_zero=True), module)
    assert rows.figures["test"] == rows.figures["test_hard"] and rows.figures["test"][UNPRUNED].decode_ratio == 1.0
    assert set(json.loads((tmp_path / "costs.json").read_text())) == {"test-none-own", "test-glimpse-own"}
    assert set(logged[0]) == {"test", "test_hard"}


def test_figures_of_another_way_to_decode_do_not_count(calls, tmp_path, monkeypatch):
    path = costs.costs_path(tmp_path)
    costs.measure_costs(Model, [Batch([1])], [UNPRUNED], 0, {}, path, "test")
    done = len(calls)
    again = SimpleNamespace(backbone=Model.backbone, compile_decode=True)
    costs.measure_costs(again, [Batch([1])], [OWN_GLIMPSE], 0, {}, path, "test")
    with_it = len(calls) - done
    costs.measure_costs(again, [Batch([1])], [OWN_GLIMPSE], 0, {}, path, "test")
    assert len(calls) == done + with_it
    costs.measure_costs(Model, [Batch([1])], [OWN_GLIMPSE], 0, {}, path, "test")
    assert len(calls) == done + 2 * with_it


def test_kv_cache_from_tensors():
    cache = DynamicCache()
    for layer, length in enumerate((512, 256)):
        states = torch.zeros(2, 4, length, 32, dtype=torch.bfloat16)
        cache.update(states, states, layer)
    assert kv_cache_mib(SimpleNamespace(cache=cache)) == 2 * (2 * 4 * (512 + 256) * 32) * 2 / 2**20
