"""A glimpse with a twig through the commands: trained, interrupted, gone on with, evaluated, loaded and asked."""

from __future__ import annotations

import pytest
import torch

import evaluate
import gp
from gp.data.sample import parse_record
from gp.data.shards import read_records
from tests.support.eval_results import lines_of
from tests.support.micro_run import save_base, write_config
from tests.support.train_command import checkpoint, finish, start

END = """
import os
from gp.training.module import GlimpseModule
stock = GlimpseModule.training_step
def step(self, batch, batch_idx):
    if self.trainer.global_step == 3:
        os.kill(os.getpid(), 15)
    return stock(self, batch, batch_idx)
GlimpseModule.training_step = step
"""
TWIG = ("glimpse.twig=1", "optim.max_steps=6", "trainer.val_every=100", "trainer.save_every=100", "ckpt=auto")


@pytest.mark.slow
def test_interrupted_gone_on_with_evaluated_and_asked(tmp_path):
    base = save_base(tmp_path / "base")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        write_config(folder, base)
    status, _, err = finish(start(whole, *TWIG))
    assert status == 0, err
    status, _, err = finish(start(broken, *TWIG, patch=END))
    begun = checkpoint(broken)
    assert status == 143 and begun["global_step"] == 4, err
    status, _, err = finish(start(broken, *TWIG))
    assert status == 0, err
    assert_learned_the_same(begun, checkpoint(whole), checkpoint(broken))
    run, out = broken / "runs/micro", tmp_path / "out"
    fast = ("pruner=glimpse", "eval.costs=false", "eval.overlays=0", f"out={out}")
    assert evaluate.main([f"ckpt={run / 'last.ckpt'}", *fast]) == 0
    lines = lines_of(out, "glimpse-own")
    model = gp.from_pretrained(base, glimpse=str(run / "glimpse"), dtype="float32")
    assert model.glimpse.twig is not None
    samples = [parse_record(record) for record in read_records(str(broken / "val.tar"), "val")]
    assert len(lines) == len(samples) == 5
    for sample in samples:
        answer, line = model.ask(sample.image, sample.question, max_new_tokens=3), lines[sample.id]
        assert (answer.text, answer.num_kept) == (line["prediction"], line["num_kept"])


def assert_learned_the_same(begun: dict, whole: dict, broken: dict) -> None:
    twig = [name for name in whole["state_dict"] if "twig" in name]
    assert twig and whole["global_step"] == broken["global_step"] == 6
    assert any(not torch.equal(begun["state_dict"][name], broken["state_dict"][name]) for name in twig)
    for name, value in whole["state_dict"].items():
        assert torch.equal(value, broken["state_dict"][name]), name
