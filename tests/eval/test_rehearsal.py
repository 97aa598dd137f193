"""A row that cannot run shows before the first long one, by name; what is done is not rehearsed again."""

from __future__ import annotations

import re

import pytest

import evaluate as script
from gp.eval import evaluate, load_run, rehearsal
from gp.pruners import OraclePruner, RandomPruner
from gp.stages import StageFailed
from tests.support.eval_results import OVERRIDES

SETTINGS = ("pruner=glimpse,random,oracle", "budget=null,0.5")


def raising(error: Exception):
    def function(*arguments, **options):
        raise error

    return function


def test_a_broken_row_is_named_before_the_first_row_runs(micro, tmp_path, monkeypatch):
    broken = AttributeError("no attribute 'draw'")
    monkeypatch.setattr(RandomPruner, "scores", raising(broken))
    with pytest.raises(StageFailed, match=r"before the evaluation: row random-own on 2 questions: .*'draw'") as e:
        script.main([f"ckpt={micro.ckpt}", *SETTINGS, f"out={tmp_path}"])
    assert e.value.__cause__ is broken
    assert not list((tmp_path / "samples").glob("*"))


def test_a_mistake_in_a_row_is_one_line_and_status_2(micro, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(OraclePruner, "scores", raising(ValueError("no evidence")))
    assert script.main([f"ckpt={micro.ckpt}", *SETTINGS, f"out={tmp_path}"]) == 2
    assert "error: before the evaluation: row oracle-own on 2 questions: no evidence" in capsys.readouterr().err


def test_what_costs_are_taken_of_is_rehearsed(micro, tmp_path, monkeypatch):
    monkeypatch.setattr(rehearsal, "kv_cache_mib", raising(AttributeError("layers")))
    with pytest.raises(StageFailed, match=r"time and memory of row none-own: .*layers"):
        evaluate(*load_run(micro.ckpt, OVERRIDES), tmp_path)


def test_a_split_that_cannot_be_read_is_named(micro, tmp_path):
    (tmp_path / "empty.tar").write_bytes(bytes(10240))
    model, config = load_run(micro.ckpt, OVERRIDES)
    config.data.test["empty"] = [str(tmp_path / "empty.tar")]
    config.eval.splits = ["test", "empty"]
    with pytest.raises(ValueError, match=r"before the evaluation: reading split empty: .*empty\.tar"):
        evaluate(model, config, tmp_path / "eval")


def test_only_rows_with_work_left_are_rehearsed(copied, micro, capsys):
    before = (copied / "summary.json").read_text()
    evaluate(*load_run(micro.ckpt, OVERRIDES), copied)
    assert "checked" not in capsys.readouterr().out
    (copied / "samples/test-random-own.jsonl").unlink()
    (copied / "samples/test-oracle-own.jsonl").unlink()
    evaluate(*load_run(micro.ckpt, OVERRIDES), copied)
    # and glimpse, which the other one is matched to
    assert re.search(r"checked in \d+\.\d s: a small batch through 3 rows", capsys.readouterr().out)
    assert (copied / "summary.json").read_text() == before


def test_a_model_is_as_it_was_after_a_rehearsal(micro):
    model, config = load_run(micro.ckpt, [*OVERRIDES, "eval.methods.fastv.layer=1"])
    model.train()
    assert rehearsal.rehearse_evaluation(model, config) == "6 rows of the evaluation"
    assert model.training and not model.base.training and "fastv" not in model.pruner_settings
