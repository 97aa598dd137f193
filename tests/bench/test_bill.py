"""The memory bill against a hand computation, and against what autograd really keeps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gp.bench import train_step
from gp.bench.bill import bill_of, standing_bytes
from gp.bench.presets import PRESETS, random_answers, random_inputs, random_model

TINY = PRESETS["tiny"]


def test_entries_by_hand():
    """3 layers of 64 (inner 128, 2 heads, 1 kv head of 32), 16 visual + 6 text tokens, 1 glimpse + 2 answer tokens."""
    bill = bill_of(TINY, 4, "sdpa", "prefix")
    backward = bill.moments["backward"]
    assert backward["prefix cache"] == 2 * 22 * 3 * 32 * 4
    assert backward["inputs of the suffix"] == 3 * 3 * 64 * 4
    own, seen = 3 * 4 * (2 * 64 + 2 * 64 + 3 * 128), 2 * 25 * 4  # per token; per entry of a key and a value
    assert backward["one layer, again"] == own + seen * (32 + 64 + 64)
    half = bill_of(TINY, 2, "flash_attention_2", "prefix").moments[
        "backward"
    ]  # norms keep float32; nothing is repeated
    assert half["one layer, again"] == 3 * (4 * 2 * 64 + 2 * (2 * 64 + 3 * 128)) + 2 * 25 * 2 * (32 + 32)
    assert backward["taps"] == 2 * 16 * 32 * 4
    assert backward["logits"] == 2 * 1100 * (4 + 12)
    whole = bill_of(TINY, 4, "sdpa", "whole").moments["backward"]
    assert whole["activations of all layers"] == 3 * 25 * 4 * (2 * 64 + 4 * 64 + 3 * 128)
    checkpointed = bill_of(TINY, 4, "sdpa", "whole, checkpointed").moments["backward"]
    assert checkpointed["inputs of all layers"] == 3 * 25 * 64 * 4


def test_standing_bytes():
    model, standing = random_model(TINY), standing_bytes(TINY, 2)
    trained = sum(p.numel() for p in model.glimpse.parameters())
    assert standing["frozen weights"] == 2 * sum(p.numel() for p in model.base.parameters())
    assert standing["optimizer (AdamW)"] == 2 * standing["gradients"] == 2 * 4 * trained


@pytest.mark.parametrize("way", ["prefix", "whole"])
def test_what_autograd_keeps(way):
    """Distinct storages saved for the backward pass, frozen weights left out, against the bill's entries."""
    preset = replace(TINY, layers=8, heads=4, kv_heads=2, inner=320, visual=256)
    model, batch = random_model(preset).train(), (random_inputs(preset), random_answers(preset))
    frozen = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in frozen:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        inputs, answers = batch
        forced = train_step.WAYS[way](model.backbone, model.glimpse, inputs, *answers[:2])
    assert forced.answer_logits is not None
    entries = bill_of(preset, 4, "sdpa", way).moments["backward"]
    elsewhere = {"logits", "gradients of one layer", "prefix cache"}  # no loss, nothing runs backward; in the cache
    elsewhere |= {"inputs of the suffix", "one layer, again"}  # kept by checkpoints; not before the backward pass
    expected = sum(size for name, size in entries.items() if name not in elsewhere)
    # on a CPU the VIP's values, and what comes of them, are padded to the width of its queries
    expected += len(preset.taps) * preset.visual * 2 * preset.vip_cond * 4
    assert sum(kept.values()) == pytest.approx(expected, rel=0.15)
