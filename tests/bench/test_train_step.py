"""The three ways compute the same; the bench reports them; its times are not asserted."""

from __future__ import annotations

from argparse import Namespace

import pytest
import torch

from gp.bench import train_step
from gp.bench.options import read_setup
from gp.bench.presets import PRESETS, random_answers, random_inputs, random_model
from tests.support.bench_commands import assert_spread, run_bench

TINY = PRESETS["tiny"]
OPTIONS = ("--preset", "tiny", "--repeats", "1", "--answer", "3", "--compile")


def gradients(way: str) -> dict[str, torch.Tensor]:
    model = random_model(TINY).train()
    inputs, answers = random_inputs(TINY), random_answers(TINY)
    forced = train_step.ALL_WAYS[way](model.backbone, model.glimpse, inputs, *answers[:2])
    (forced.importance_logits[-1].sum() + forced.answer_logits.logsumexp(-1).sum()).backward()
    return {name: p.grad for name, p in model.glimpse.named_parameters()}


@pytest.mark.parametrize(
    "way", ["whole", "whole, checkpointed", pytest.param("prefix, compiled", marks=pytest.mark.slow)]
)
def test_all_ways_have_the_same_gradients(way):
    expected, got = gradients("prefix"), gradients(way)
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name], gradient, atol=1e-5, rtol=1e-3, msg=name)


def test_through_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(train_step, "in_own_process", lambda arguments, way: 2.0 if way == "prefix" else 6.0)
    monkeypatch.setitem(train_step.ALL_WAYS, "prefix, compiled", train_step.WAYS["prefix"])  # compiling takes a minute
    figures, markdown = run_bench(tmp_path, "train", *OPTIONS)
    assert set(figures["ways"]) == set(train_step.ALL_WAYS)
    for entry in figures["ways"].values():
        assert_spread(entry["step_s"])
        assert entry["flops"] > 0 and entry["bill_mib"] > 0
    assert figures["against"]["whole"]["memory_ratio"] == 3.0
    assert figures["against"]["whole, checkpointed"]["bound"] > figures["against"]["whole"]["bound"] > 1
    assert figures["against"]["prefix, compiled"]["bound"] < 1 and figures["graphs"] == 0
    bills = {way: entry["bill_mib"] for way, entry in figures["ways"].items()}
    assert bills["prefix, compiled"] < bills["prefix, kept"]
    assert figures["where"]["preset"]["answer"] == 3
    assert figures["command"] == " ".join(["python -m gp.bench train", *OPTIONS])
    assert "3 answer tokens" in markdown and figures["command"] in markdown


def test_memory_of_one_way():
    options = {"preset": "tiny", "device": "cpu", "dtype": None, "attn": "sdpa", "repeats": 1, "arguments": []}
    assert train_step.measure_memory_mib(read_setup(Namespace(**options)), "prefix") >= 0
