"""A base that a device map places, trained and evaluated: here there is one device to place it on."""

from __future__ import annotations

import json

import pytest
import torch

from gp.eval import evaluate, load_run
from gp.training.train import train
from tests.support.bases import BASES
from tests.support.micro_run import write_config


@pytest.mark.slow
def test_the_same_parts_are_trained(tmp_path):
    base = BASES["qwen2_5_vl"](tmp_path / "base")
    how = ("eval.costs=false", "eval.overlays=0", "trainer.devices=1")
    states = []
    for name, more in (("plain", ()), ("placed", ("model.device_map=auto",))):
        _, folder, _ = train(write_config(tmp_path, base, f"name={name}", *how, *more))
        states.append(torch.load(folder / "last.ckpt", weights_only=True)["state_dict"])
        evaluate(*load_run(folder), folder / "eval")
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    summaries = [json.loads((tmp_path / f"runs/{name}/eval/summary.json").read_text()) for name in ("plain", "placed")]
    assert summaries[0] == summaries[1]
