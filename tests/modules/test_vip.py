"""The VIP's attention spans and rotary embedding against dense references; its behaviour over several images."""

from __future__ import annotations

import pytest
import torch

from gp.modules.rms_norm import rms_norm
from gp.modules.vip import AttentionSpans, VisualImportancePredictor, rope_2d, rotate
from gp.types import VisualLayout

LAYOUT = VisualLayout(grids=((3, 5), (4, 4), (2, 2)), rows=(0, 0, 1), num_prompts=2)
EQUAL = VisualLayout(grids=((3, 4), (3, 4)), rows=(0, 1), num_prompts=2)


def dense_attention(query, key, value, allowed):
    logits = torch.einsum("nhd,mhd->hnm", query, key) / query.shape[-1] ** 0.5
    return torch.einsum("hnm,mhe->nhe", logits.masked_fill(~allowed, float("-inf")).softmax(-1), value)


def same_span(layout: VisualLayout, window: int | None) -> torch.Tensor:
    names = []
    for number, (height, width) in enumerate(layout.grids):
        for row in range(height):
            for col in range(width):
                names.append((number, row // window, col // window) if window else (number,))
    return torch.tensor([[a == b for b in names] for a in names])


@pytest.mark.parametrize("layout", [LAYOUT, EQUAL], ids=["ragged", "equal"])
@pytest.mark.parametrize("window", [None, 2, 4])
def test_spans_equal_a_dense_mask(layout, window):
    torch.manual_seed(0)
    query, key = torch.randn(2, layout.num_tokens, 2, 6)
    value = torch.randn(layout.num_tokens, 2, 3)
    expected = dense_attention(query, key, value, same_span(layout, window))
    torch.testing.assert_close(AttentionSpans(layout, window).attend(query, key, value), expected)


def test_rotary_turns_pairs_by_row_and_column():
    row_col, dim = torch.tensor([[2, 3]]), 8
    x = torch.randn(1, 1, dim)
    out = rotate(x, rope_2d(row_col, dim))[0, 0]
    freqs = [10000.0 ** (-2 * i / (dim // 2)) for i in range(dim // 4)]
    angles = [2 * f for f in freqs] + [3 * f for f in freqs]
    for i, angle in enumerate(angles):
        pair = torch.complex(x[0, 0, i], x[0, 0, i + dim // 2]) * torch.polar(torch.tensor(1.0), torch.tensor(angle))
        torch.testing.assert_close(torch.complex(out[i], out[i + dim // 2]), pair)


def make_vip(**changes) -> VisualImportancePredictor:
    torch.manual_seed(1)
    sizes = {"num_features": 4, "vision_hidden_size": 6, "num_taps": 2, "hidden_size": 8, "cond_size": 8}
    return VisualImportancePredictor(**{"num_heads": 2, **sizes, **changes})


def test_images_do_not_see_each_other():
    vip = make_vip().eval()
    features, taps = torch.randn(LAYOUT.num_tokens, 4), [torch.randn(LAYOUT.num_tokens, 6) for _ in range(2)]
    together = vip(features, taps, LAYOUT)[-1]
    first = VisualLayout(grids=LAYOUT.grids[:1], rows=(0,), num_prompts=1)
    size = first.num_tokens
    alone = vip(features[:size], [t[:size] for t in taps], first)[-1]
    torch.testing.assert_close(together[:size], alone)


def test_norms_in_mixed_precision_are_those_of_float32(recwarn):
    """In one kernel: torch warns if the types of states and weight keep it from that."""
    norm = torch.nn.RMSNorm(6, eps=1e-6)
    torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
    hidden = torch.randn(4, 6).bfloat16()
    exact = hidden.double()
    expected = exact / (exact.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * norm.weight.double()
    out = rms_norm(hidden, norm)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out.double(), expected, atol=1e-6, rtol=1e-6)
    vip = make_vip().train()
    with torch.autocast("cpu", torch.bfloat16):
        vip(torch.randn(24, 4), [torch.randn(24, 6) for _ in range(2)], EQUAL)
    assert not [warning for warning in recwarn if "Mismatch dtype" in str(warning.message)]


def test_deep_supervision_has_a_head_per_block_only_in_training():
    vip = make_vip(deep_supervision=True)
    arguments = torch.randn(24, 4), [torch.randn(24, 6) for _ in range(2)], EQUAL
    assert len(vip.train()(*arguments)) == 2
    assert len(vip.eval()(*arguments)) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention": "local"}, "attention must be one of"),
        ({"attention": "window"}, "needs a vision tower with windows"),
        ({"num_heads": 3}, "num_heads 3 must divide"),
    ],
)
def test_bad_sizes_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make_vip(**changes)
