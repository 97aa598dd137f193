"""Evaluation that is killed with SIGKILL at random points: the same results, nothing lost, nothing twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from gp.eval import evaluate, load_run
from tests.support.eval_results import OVERRIDES, results_in, summary_in
from tests.support.killing import kill_at, points, run_to_end
from tests.support.micro_eval import NUM_SAMPLES

METHODS = 6


def run(ckpt: Path, out: Path) -> None:
    """What evaluate.py does, two samples a batch, read by two workers; runs in a process of its own."""
    evaluate(*load_run(ckpt, [*OVERRIDES, "data.eval_batch_size=2", "data.num_workers=2"]), out)


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
