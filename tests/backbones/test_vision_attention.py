"""The vision tower's attention against full weights of what the tower itself hands to its attention kernel."""

from __future__ import annotations

import pytest
import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from gp.backbones import backbone_of
from gp.backbones.vision_attention import received_attention
from tests.support.tiny_models import MERGE, WINDOW, tiny_inputs, tiny_llava, tiny_llava_inputs, tiny_qwen

GRIDS = [(3, 5), (4, 2)]  # merged tokens; no multiple of the window, not square


PROMPTS = [([GRIDS[0]], 4), ([GRIDS[1]], 6)]


@pytest.fixture
def record(monkeypatch):
    """Makes a vision tower note queries and keys of every attention call; returns (module, q, k) a call."""

    def start(base, tower) -> list[tuple]:
        calls, stock = [], ALL_ATTENTION_FUNCTIONS["sdpa"]

        def recorded(module, query, key, value, attention_mask=None, **kwargs):
            calls.append((module, query, key))
            return stock(module, query, key, value, attention_mask, **kwargs)

        monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._local_mapping, "recorded", recorded)
        for config in (base.config.vision_config, tower.config):
            monkeypatch.setattr(config, "_attn_implementation_internal", "recorded")
        return calls

    return start


def weights_of(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """All of softmax(q k^T / sqrt(d)), [images, A, P, P]."""
    return (query.double() @ key.double().transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(-1)


def window_order(height: int, width: int) -> list[int]:
    """Raster numbers of an image's tokens in the order of the tower: window by window, each in raster order.

    Windows of one size stand side by side, the largest first.
    """
    windows = [
        [
            row * width + column
            for row in range(top, min(top + WINDOW, height))
            for column in range(left, min(left + WINDOW, width))
        ]
        for top in range(0, height, WINDOW)
        for left in range(0, width, WINDOW)
    ]
    return [token for window in sorted(windows, key=len, reverse=True) for token in window]


def in_raster_order(values: torch.Tensor, height: int, width: int) -> torch.Tensor:
    out = torch.empty_like(values)
    out[window_order(height, width)] = values
    return out


@pytest.mark.parametrize("block", [1, 3])
def test_qwen_against_full_weights(record, block):
    base = tiny_qwen()
    backbone, inputs = backbone_of(base), tiny_inputs(PROMPTS)
    stock = backbone.see(inputs, attended=[block])
    calls = record(base, base.model.visual)
    seen = backbone.see(inputs, attended=[block])
    torch.testing.assert_close(seen.embeds, stock.embeds)
    mine = [(q, k) for module, q, k in calls if module is base.model.visual.blocks[block].attn]
    assert len(mine) == len(GRIDS)  # full attention: one call an image
    received, keys = [], []
    for (query, key), (height, width) in zip(mine, GRIDS):
        per_patch = weights_of(query, key)[0].mean(0).sum(0)
        assert len(per_patch) == MERGE**2 * height * width
        received.append(in_raster_order(per_patch.view(-1, MERGE**2).mean(1), height, width))
        merged_keys = key[0].mean(0).view(height * width, MERGE**2, -1).mean(1)
        keys.append(in_raster_order(merged_keys, height, width))
    torch.testing.assert_close(stock.attention[block].received.double(), torch.cat(received), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(stock.attention[block].keys, torch.cat(keys), atol=1e-5, rtol=1e-5)
    # every patch hands out 1
    assert float(stock.attention[block].received.sum()) == pytest.approx(sum(h * w for h, w in GRIDS), rel=1e-5)


@pytest.mark.parametrize("block", [0, 2])
def test_qwen_in_a_windowed_block_a_patch_receives_from_its_window_only(record, block):
    base = tiny_qwen()
    stock = backbone_of(base).see(tiny_inputs(PROMPTS[:1]), attended=[block])
    calls = record(base, base.model.visual)
    backbone_of(base).see(tiny_inputs(PROMPTS[:1]))
    windows = [weights_of(q, k)[0].mean(0).sum(0) for m, q, k in calls if m is base.model.visual.blocks[block].attn]
    assert [len(window) // MERGE**2 for window in windows] == [4, 4, 2, 2, 2, 1]  # of 3 x 5 tokens
    per_token = torch.cat(windows).view(-1, MERGE**2).mean(1)
    expected = in_raster_order(per_token, *GRIDS[0])
    torch.testing.assert_close(stock.attention[block].received.double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("block", [0, 2])
def test_llava_reads_the_row_of_cls(record, block):
    base = tiny_llava()
    backbone, inputs = backbone_of(base), tiny_llava_inputs([([(5, 5)], 4), ([(5, 5)], 6)])
    stock = backbone.see(inputs, attended=[block])
    tower = base.model.vision_tower
    tower = getattr(tower, "vision_model", tower)
    calls = record(base, tower)
    backbone.see(inputs)
    ((query, key),) = [(q, k) for module, q, k in calls if module is tower.encoder.layers[block].self_attn]
    weights = weights_of(query, key)  # [2 images, A, 26, 26]
    torch.testing.assert_close(
        stock.attention[block].received.double(), weights[:, :, 0, 1:].mean(1).flatten(), atol=1e-6, rtol=1e-5
    )
    torch.testing.assert_close(stock.attention[block].keys, key[:, :, 1:].mean(1).flatten(0, 1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("make", [tiny_qwen, tiny_llava])
def test_attention_kernel_and_dtype_do_not_matter(make):
    inputs = (tiny_inputs if make is tiny_qwen else tiny_llava_inputs)([([(5, 5)], 4)])
    exact, eager, half = (
        backbone_of(make(**how)).see(inputs, attended=[1]).attention[1]
        for how in ({}, {"attn_implementation": "eager"}, {"dtype": torch.bfloat16})
    )
    torch.testing.assert_close(exact.received, eager.received, atol=1e-5, rtol=1e-4)
    assert half.received.dtype == half.keys.dtype == torch.float32
    assert torch.corrcoef(torch.stack([half.received, exact.received]))[0, 1] > 0.99


@pytest.mark.parametrize("max_entries", [1, 13 * 4, 1 << 23])
def test_chunks_change_nothing(max_entries):
    generator = torch.Generator().manual_seed(0)
    query, keys = (torch.randn(2, n, 8, generator=generator) for n in (11, 13))
    expected = weights_of(query, keys).mean(0).sum(0)
    torch.testing.assert_close(received_attention(query, keys, max_entries).double(), expected, atol=1e-6, rtol=1e-5)


def test_memory_is_bounded_by_the_chunk(monkeypatch):
    """No tensor of attention weights has more entries than allowed."""
    sizes, softmax = [], torch.Tensor.softmax
    monkeypatch.setattr(torch.Tensor, "softmax", lambda x, *a, **k: sizes.append(x.numel()) or softmax(x, *a, **k))
    received_attention(torch.randn(2, 50, 8), torch.randn(2, 60, 8), max_entries=300)
    assert max(sizes) == 300 and sum(sizes) == 2 * 50 * 60
