"""Methods with caches of different lengths, and methods that make the images smaller, through the whole evaluation."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from gp.eval import evaluate, load_run, runner
from gp.pruners import BASELINES, NoPruner, OraclePruner, RandomPruner
from tests.support.eval_results import lines_of, rows_of, without_costs
from tests.support.micro_eval import NUM_SAMPLES

BUDGET = 0.7


@pytest.fixture
def few_methods(monkeypatch, half_way, quarter_size):
    """`all` is these, and `glimpse`."""
    kept = {NoPruner.name, half_way.name, quarter_size.name, RandomPruner.name, OraclePruner.name}
    for name in BASELINES.keys() - kept:
        monkeypatch.delitem(BASELINES, name)


class Killed(BaseException):
    pass


@pytest.mark.slow  # test_kill kills and resumes, with fewer methods
def test_all_methods_killed_between_two_of_them_and_resumed(micro, few_methods, monkeypatch, tmp_path):
    overrides = ["eval.pruners=[all]", f"eval.budgets=[{BUDGET},0.3]"]
    run = load_run(micro.ckpt, overrides)
    whole = evaluate(*run, tmp_path / "whole")
    labels = ["none-own", "glimpse-0.7", "glimpse-0.3", "half_way-0.7", "quarter_size-0.7", "quarter_size-0.3"]
    labels += ["random-0.7", "random-0.3", "oracle-own"]
    assert [f"{row['pruner']}-{row['budget'] or 'own'}" for row in whole] == labels
    calls, answer = [], runner.answer_batch

    def dying(model, batch, method, *rest):
        calls.append(method)
        if len(calls) == 2 * len(labels) + 4:  # behind the rehearsal, in the second batch, after three of its methods
            raise Killed
        return answer(model, batch, method, *rest)

    monkeypatch.setattr(runner, "answer_batch", dying)
    with pytest.raises(Killed):
        evaluate(*run, tmp_path / "cut")
    done = {label: len(lines_of(tmp_path / "cut", label)) for label in labels}
    assert list(done.values()) == [8] * 3 + [4] * 6
    monkeypatch.setattr(runner, "answer_batch", answer)
    rows = evaluate(*run, tmp_path / "cut")
    assert [without_costs(row) for row in rows] == [without_costs(row) for row in whole]
    assert all(len(lines_of(tmp_path / "cut", label)) == NUM_SAMPLES for label in labels)


def test_budgets_are_realised_and_the_unreachable_is_reported(micro, few_methods, tmp_path):
    overrides = ["eval.pruners=[all]", f"eval.budgets=[{BUDGET},0.4]", "eval.overlays=1"]
    console = Console(width=150, record=True, file=io.StringIO())
    evaluate(*load_run(micro.ckpt, overrides), tmp_path, console=console)
    rows = rows_of(tmp_path)
    assert ("half_way", 0.4) not in rows
    for pruner in ("glimpse", "half_way", "random"):
        row = rows[pruner, BUDGET]
        assert BUDGET - 0.2 < row["cache_ratio"] <= BUDGET + 1e-6  # images of 4 to 12 tokens
    late = rows["half_way", BUDGET]
    assert late["compute_ratio"] == late["cache_ratio"] > late["keep_ratio"]
    assert rows["glimpse", BUDGET]["compute_ratio"] > rows["glimpse", BUDGET]["cache_ratio"]
    assert late["peak_mib"] is None or late["peak_mib"] >= 0
    reason = "a budget of 0.4 cannot be met"
    printed = console.export_text()
    assert printed.count("left out: half_way-0.4: ") == 1 and reason in printed
    for name in ("report.md", "report.html"):
        text = (tmp_path / name).read_text()
        assert "Left out" in text and "half_way-0.4" in text and reason in text
