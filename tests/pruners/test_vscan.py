"""VScan against numbers worked out here, and against projections of the stock model without rotary embedding."""

from __future__ import annotations

import math

import pytest
import torch

from gp.backbones import backbone_of
from gp.model import GlimpseModel
from gp.pruners import make_baseline
from gp.pruners.vscan import VScan, local_picks, merge_into_kept, scan
from gp.types import PruneOptions
from tests.support.tiny_models import FAMILIES, tiny_llava, tiny_qwen
from tests.support.views import hand_view, kept

# a grid of 2 x 5 tokens: windows of 2 are columns 0-1 and 2-4, the last one takes the remainder
SHALLOW = [[9.0, 8.0, 1.0, 2.0, 3.0], [7.0, 6.0, 0.5, 0.4, 0.3]]
DEEP = [0.9, 0.1, 0.8, 0.2, 0.95, 0.3, 0.7, 0.4, 0.5, 0.6]


def test_the_quota_of_each_window_holds():
    # 4 tokens, 2 windows, 2 each: 0 and 1 of the first (9, 8), 4 and 3 of the second (3, 2)
    assert sorted(local_picks(torch.tensor(SHALLOW), 4, 2).tolist()) == [0, 1, 3, 4]
    # 3 tokens: the quota is ceil(3 / 2) = 2, taken in the order 9, 8, 3
    assert sorted(local_picks(torch.tensor(SHALLOW), 3, 2).tolist()) == [0, 1, 4]
    assert local_picks(torch.tensor(SHALLOW), 0, 2).tolist() == []


def by_walking(shallow: torch.Tensor, count: int, window: int) -> list[int]:
    """The published walk: tokens by falling score, each taken while its window has room."""
    height, width = shallow.shape
    rows, columns = max(1, height // window), max(1, width // window)
    quota, room, taken = math.ceil(count / (rows * columns)), {}, []
    for j in sorted(range(height * width), key=lambda j: -float(shallow.flatten()[j])):
        place = (min(j // width // window, rows - 1), min(j % width // window, columns - 1))
        if len(taken) < count and room.get(place, 0) < quota:
            room[place] = room.get(place, 0) + 1
            taken.append(j)
    return taken


@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 14), (3, 11), (2, 2)])
@pytest.mark.parametrize("count", [1, 7, 20])
def test_picks_equal_the_walk(height, width, count):
    shallow = torch.rand(height, width, generator=torch.Generator().manual_seed(height))
    assert local_picks(shallow, count, 4).tolist() == by_walking(shallow, count, 4)


def test_the_global_scan_takes_the_best_of_the_rest():
    # 5 tokens: 2 local (one a window: 0 and 4), then the best in depth of the others: 2 (0.8), 6 (0.7), 9 (0.6)
    chosen = scan(torch.tensor(SHALLOW), torch.tensor(DEEP), 5, 2)
    assert chosen.nonzero().flatten().tolist() == [0, 2, 4, 6, 9]
    assert int(scan(torch.tensor(SHALLOW), torch.tensor(DEEP), 10, 2).sum()) == 10


def test_a_kept_token_becomes_the_mean_of_itself_and_those_that_joined():
    embeds = torch.tensor([[2.0, 0.0], [4.0, 0.2], [0.0, 1.0], [0.3, 5.0], [6.0, 0.0]])
    merged = merge_into_kept(embeds, torch.tensor([True, False, True, False, False]))
    torch.testing.assert_close(merged[0], torch.tensor([(2 + 4 + 6) / 3, 0.2 / 3]))
    torch.testing.assert_close(merged[2], torch.tensor([0.15, 3.0]))


def test_both_cuts_meet_the_budget():
    # 8 layers, second cut after 4: mean = (4 + 4 b) / 8 of the n tokens = 2/3 n for b = 1/3; half of 10 tokens: n = 7
    pruner = VScan((1, 3), window=2, layer=3)
    assert pruner.shares(0.5, 8) == pytest.approx([0.75, 0.25])
    grid, attention = [(2, 5)], {1: (SHALLOW[0] + SHALLOW[1], [[1.0]] * 10), 3: (DEEP, [[1.0]] * 10)}
    first = hand_view([[1.0]] * 10, grid, vision_attention=attention)
    assert len(kept(pruner, first)) == 7
    later = torch.tensor([[float(j), 0.0] for j in range(10)]).log_softmax(0)
    alive = torch.tensor([j != 9 for j in range(10)])
    second = hand_view([[1.0]] * 10, grid, stage=3, alive=alive, look_ahead=lambda rotate: later)
    assert kept(pruner, second) == [7, 8]


@pytest.mark.parametrize(
    ("num_layers", "layer", "budget", "first"),
    [(28, 13, 0.1113, 0.167), (28, 13, 0.222, 0.333), (28, 13, 0.3333, 0.5), (32, 15, 1 / 9, 96 / 576)],
)
def test_published_settings(num_layers, layer, budget, first):
    a, ab = VScan((7, 31), 4, layer).shares(budget, num_layers)
    assert a == pytest.approx(first, abs=1e-3) and ab == pytest.approx(first / 3, abs=1e-3)
    assert ((layer + 1) * a + (num_layers - layer - 1) * ab) / num_layers == pytest.approx(budget)


def test_a_budget_that_needs_more_than_all_tokens_first_keeps_more_in_the_llm():
    assert VScan((1, 3), 2, 3).shares(0.8, 8) == pytest.approx([1.0, 0.6])
    assert VScan((1, 3), 2, 3).shares(1.0, 8) == pytest.approx([1.0, 1.0])
    assert VScan((1, 3), 2, 3, compact_cache=True).shares(0.2, 8) == pytest.approx([0.6, 0.2])
    assert VScan((1, 3), 2, 3, compact_cache=True).shares(0.5, 8) == pytest.approx([1.0, 0.5])
    with pytest.raises(ValueError, match="kept_in_llm"):
        VScan((1, 3), 2, 3, kept_in_llm=0.0)


def test_settings_of_each_family():
    qwen, llava = (make_baseline("vscan", backbone_of(make(layers=8))) for make in (tiny_qwen, tiny_llava))
    assert (qwen.attended, qwen.window, qwen.stages) == ((1, 3), 2, (-1, 3))
    assert (llava.attended, llava.window, llava.stages) == ((0, 2), 6, (-1, 3))


def input_of(layer, call) -> torch.Tensor:
    """What a decoder layer is given: with deepstack more than the output of the layer before it."""
    seen = []
    hook = layer.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    call()
    hook.remove()
    return seen[0]


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_the_second_cut_ignores_rotary_embedding(family):
    """All tokens come through the first cut, so the stock model has the same hidden states."""
    base = family.make()
    inputs = family.inputs(family.fit([([(3, 4)], 7)]))
    pruner = make_baseline("vscan", backbone_of(base), settings={"layer": 1, "kept_in_llm": 0.5})
    done = GlimpseModel(base).prefill(inputs, pruner, PruneOptions(fixed_keep_ratio=0.9))
    layer = base.model.language_model.layers[2]
    normed = layer.input_layernorm(input_of(layer, lambda: base(**inputs))[0])
    attn, heads, kv_heads = layer.self_attn, 4, 2
    q_norm, k_norm = (getattr(attn, name, lambda states: states) for name in ("q_norm", "k_norm"))  # Qwen3-VL has them
    query = q_norm(attn.q_proj(normed[-1]).view(heads, -1))
    keys = k_norm(attn.k_proj(normed).view(len(normed), kv_heads, -1)).repeat_interleave(heads // kv_heads, 1)
    weights = (torch.einsum("ad,sad->as", query, keys) / math.sqrt(query.shape[1])).softmax(-1).mean(0)
    expected = weights[inputs["input_ids"][0] == base.config.image_token_id]
    torch.testing.assert_close(done.importance_logits, expected, atol=1e-6, rtol=1e-4)
