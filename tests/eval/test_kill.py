"""Evaluation that is killed with SIGKILL at random points: the same results, nothing lost, nothing twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gp.eval import evaluate, load_run
from tests.eval.conftest import OVERRIDES
from tests.support.killing import kill_at, points, run_to_end
from tests.support.micro_eval import NUM_SAMPLES

METHODS = 6
# what hangs on the machine and on the batch size, which the uninterrupted run has larger
COSTS = ("prefill_s", "decode_s", "prefill_ratio", "decode_ratio", "peak_mib", "kv_cache_mib")


def run(ckpt: Path, out: Path) -> None:
    """What evaluate.py does, two samples a batch, read by two workers; runs in a process of its own."""
    evaluate(*load_run(ckpt, [*OVERRIDES, "data.eval_batch_size=2", "data.num_workers=2"]), out)


def without_costs(row: dict) -> dict:
    return {key: value for key, value in row.items() if key not in COSTS}


def results_in(out: Path) -> dict[str, list[dict]]:
    """File -> its results in the order of their ids."""
    found = {}
    for path in sorted((out / "samples").glob("*.jsonl")):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        found[path.name] = sorted(map(without_costs, lines), key=lambda line: line["id"])
    return found


def summary_in(out: Path) -> list[dict]:
    return [without_costs(row) for row in json.loads((out / "summary.json").read_text())]


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 8))])
def test_killed_three_times(micro, evaluated, tmp_path, seed):
    out = tmp_path / "eval"

    def logs() -> list[Path]:
        return list((out / "samples").glob("*.jsonl"))

    kills = [kill_at(run, (micro.ckpt, out), logs, *point) for point in points(seed, 3, METHODS * NUM_SAMPLES)]
    run_to_end(run, micro.ckpt, out)
    assert any(kills)
    found = results_in(out)
    assert all(len({line["id"] for line in lines}) == len(lines) == NUM_SAMPLES for lines in found.values())
    assert found == results_in(evaluated)
    assert summary_in(out) == summary_in(evaluated)
