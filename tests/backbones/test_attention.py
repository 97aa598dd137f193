"""Attention rows read from projections, against torch's own attention and the stock rotary embedding."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from gp.backbones.attention import read_attention, rotate


@pytest.fixture
def states() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Query [2, 4, 3, 8], keys [2, 2, 5, 8] (two query heads per key head), visible [2, 5] with padding on the left."""
    torch.manual_seed(0)
    return torch.randn(2, 4, 3, 8), torch.randn(2, 2, 5, 8), torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]]).bool()


def test_normalised_rows_weigh_values_as_torchs_attention_does(states):
    query, keys, visible = states
    values = torch.randn(2, 2, 5, 8)
    weights = read_attention(query, keys, visible, log_softmax=True).exp()
    expected = scaled_dot_product_attention(query, keys, values, visible[:, None, None], enable_gqa=True)
    torch.testing.assert_close(weights @ values.repeat_interleave(2, dim=1), expected)
    assert not weights[1, ..., :2].any()


def test_raw_logits_are_those_before_the_softmax(states):
    query, keys, visible = states
    raw = read_attention(query, keys, None, log_softmax=False)
    hidden = raw.masked_fill(~visible[:, None, None], float("-inf"))
    torch.testing.assert_close(hidden.log_softmax(-1), read_attention(query, keys, visible, log_softmax=True))


def test_rotation_is_the_stock_one(states):
    query, _, _ = states
    angles = torch.rand(2, 3, 4).repeat(1, 1, 2)
    expected, _ = apply_rotary_pos_emb(query, query, angles.cos(), angles.sin())
    assert torch.equal(rotate(query, (angles.cos(), angles.sin())), expected)
    assert rotate(query, None) is query


def test_float16_does_not_overflow_where_logits_do_not():
    """Products of 90,000 are too large for float16, logits of 11,250 are not; attention kernels scale first, too."""
    query, keys = torch.full((1, 2, 1, 64), 37.5), torch.full((1, 1, 3, 64), 37.5)
    keys[0, 0, 1] *= -1
    row = read_attention(query.half(), keys.half(), None, log_softmax=False)
    assert row.dtype == torch.float16 and row.isfinite().all()
    torch.testing.assert_close(row.float(), read_attention(query, keys, None, log_softmax=False), rtol=1e-3, atol=1.0)
