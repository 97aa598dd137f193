"""The bench measures what it says; its figures are not asserted."""

from __future__ import annotations

import argparse
import json

import pytest
import torch

from gp.bench import train_step
from gp.bench.__main__ import main
from gp.bench.random_model import Size, random_batch, random_model
from gp.bench.whole_sequence import whole_sequence
from gp.teacher_forcing import teacher_forced

SMALL = Size(layers=2, hidden=128, visual=16, text=4, answer=2, batch=2, vision_layers=2, vision_hidden=64)


def test_both_ways_score_alike():
    model, batch = random_model(SMALL), random_batch(SMALL)
    answers = (batch["answer_ids"], batch["answer_mask"])
    first, second = (
        way(model.backbone, model.glimpse, batch["inputs"], *answers) for way in (teacher_forced, whole_sequence)
    )
    assert torch.allclose(first.importance_logits[-1], second.importance_logits[-1], atol=1e-4)
    assert torch.allclose(first.answer_logits, second.answer_logits, atol=1e-4)


def test_figures_and_table(capsys):
    seconds = train_step.measure_time_s(SMALL, 2, "cpu", torch.float32)
    assert {way: len(values) for way, values in seconds.items()} == {"prefix": 2, "whole": 2}
    memory = {way: train_step.measure_memory_mib(SMALL, way, "cpu", torch.float32) for way in train_step.WAYS}
    assert all(value >= 0 for value in memory.values())
    figures = train_step.summarize(SMALL, {"prefix": [1.0, 2.0], "whole": [3.0, 4.0]}, {"prefix": 10.0, "whole": 30.0})
    assert figures["step_ratio"] == 2.5 and figures["peak_ratio"] == 3.0
    train_step.print_table({**figures, "device": "cpu", "dtype": "float32"})
    assert "2.50 x" in capsys.readouterr().out
    json.dumps(figures)


def test_a_whole_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train_step, "_memory_of_process", lambda way, options: 1.0)
    sizes = ["--layers", "2", "--hidden", "128", "--visual", "16", "--vision-layers", "2", "--vision-hidden", "64"]
    assert main(["train", *sizes, "--steps", "1", "--json", str(tmp_path / "out.json")]) == 0
    assert json.loads((tmp_path / "out.json").read_text())["peak_ratio"] == 1.0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["size"]["layers"] == 2


@pytest.mark.parametrize(("field", "value"), [("visual", 300), ("hidden", 100), ("layers", 1), ("answer", 0)])
def test_sizes_that_cannot_be_are_named(field, value, capsys):
    with pytest.raises(ValueError, match=f"--{field}"):
        Size(**{field: value})
    parser = argparse.ArgumentParser()
    train_step.add_arguments(parser)
    assert train_step.run(parser.parse_args([f"--{field}", str(value)])) == 2
    assert f"--{field}" in capsys.readouterr().err
