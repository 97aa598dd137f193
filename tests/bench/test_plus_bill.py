"""The bill of a GRPO step by hand, against the adapter that peft makes, and through the command."""

from __future__ import annotations

import pytest

from gp.bench.plus_bill import Draw, adapter_size, plus_bill, plus_work
from gp.bench.presets import PRESETS, random_model
from gp.bench.sizes import DecoderSizes
from tests.support.bench_commands import run_bench

TINY = PRESETS["tiny"]
DRAW = Draw(group=3, kept=4, rank=2)


def test_entries_by_hand():
    """3 layers of 64 (inner 128, 2 heads, 1 kv head of 32), 16 visual (4 kept) + 6 text, 3 answers of 2 tokens each."""
    early = TINY.prune_layer + 1
    bill = plus_bill(TINY, DRAW, 4, "sdpa", "whole prompt")
    assert bill.moments["drawing"]["cache of all rows"] == 2 * 3 * (10 + 2) * 3 * 32 * 4
    backward = bill.moments["backward"]
    assert backward["cache of all tokens, early layers"] == 2 * 22 * early * 32 * 4
    assert backward["cache of kept tokens"] == backward["gradients of the cache"] == 2 * 10 * 3 * 32 * 4
    assert backward["inputs of the answers"] == 3 * 6 * 64 * 4
    assert backward["inputs of the prompt"] == (early * 22 + (3 - early) * 10) * 64 * 4
    assert backward["logits"] == 6 * 1100 * (4 + 20)
    short = plus_bill(TINY, DRAW, 4, "sdpa", "last token")
    assert short.total_bytes < bill.total_bytes and "inputs of the prompt" not in short.moments["backward"]


def test_the_adapter_is_the_one_that_is_made():
    pytest.importorskip("peft")
    from gp.backbones.adapters import adapter_weights, new_adapter

    model = random_model(TINY, "meta")
    made = sum(weight.numel() for _, weight in adapter_weights(new_adapter(model.backbone, 2, 4)))
    assert adapter_size(DecoderSizes.from_config(TINY.config.text_config), 2) == made


def test_gradients_through_the_prompt_cost_twice_its_forward():
    works = [plus_work(TINY, DRAW, 4, "sdpa", way).flops for way in ("whole prompt", "last token")]
    assert works[0]["training, prompt"] == 3 * works[1]["training, prompt"] > 0
    assert works[0]["training, answers"] == works[1]["training, answers"]


def test_through_the_command(tmp_path):
    figures, markdown = run_bench(tmp_path, "memory", "--preset", "qwen7b", "--task", "grpo")
    whole, last = (figures["bills"][way] for way in ("whole prompt", "last token"))
    assert whole["standing_bytes"]["adapter"] == 4 * 80_740_352  # rank 32 on the seven matrices of 28 layers
    assert last["total_bytes"] < whole["total_bytes"]
    assert figures["work"]["whole prompt"]["bound_s"] > figures["work"]["last token"]["bound_s"] > 0
    assert "seconds, at least" in markdown
