"""The cost model against what torch itself counts while small models of every family run."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from gp.backbones import backbone_of
from gp.bench.cost import CostModel, Work, total
from gp.bench.whole_sequence import whole_sequence
from gp.bench.zoom import GivenCrop
from gp.engine.conversation import Conversation
from gp.engine.teacher_forcing import teacher_forced
from gp.pruners import NoPruner
from gp.types import PruneOptions
from tests.support.glimpses import micro_configs, micro_glimpse
from tests.support.tiny_models import FAMILIES, tiny_answers

PROMPTS = [([(6, 5)], 11), ([(4, 3)], 11)]  # the windows of 2 x 2 tokens do not fit 5 columns
TEXT = 11 + 2  # the tokens around an image


def counted(run) -> int:
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # plain matrix products
        run()
    return counter.get_total_flops()


def padding(cost: CostModel, grids) -> int:
    """On a CPU the VIP's values are padded to the width of its queries: work that the cost model does not count."""
    return 2 * len(cost.vip.taps) * sum(map(cost.vip_pairs, grids)) * cost.vip.cond_size


def make(family: str, **changes):
    micro = FAMILIES[family]
    base = micro.make(attn_implementation="eager")  # its attention is plain matrix products
    model = micro_glimpse(base, **changes)
    prompts = micro.fit(PROMPTS)
    cost = CostModel(base.config, *micro_configs(**changes), causal_half=False)
    return model, micro.inputs(prompts), [grids[0] for grids, _ in prompts], cost


@pytest.mark.parametrize("family", FAMILIES)
def test_vision(family):
    model, inputs, grids, cost = make(family)
    assert counted(lambda: model.backbone.encode_images(inputs, ())) == cost.vision(grids).flops


@pytest.mark.parametrize("family", FAMILIES)
def test_unpruned_prefill(family):
    model, inputs, grids, cost = make(family)
    assert counted(lambda: model.prefill(inputs, NoPruner())) == total(cost.prefill(grids, TEXT)).flops


TWIG = {"read_layers": [0, 1, 2], "prune_layer": 0, "twig": 2}


@pytest.mark.parametrize("changes", [{}, {"read_layers": [0, 2], "prune_layer": 2, "num_tokens": 2}, TWIG], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_pruned_prefill(family, changes):
    model, inputs, grids, cost = make(family, **changes)
    kept = (5, 9)
    flops = counted(lambda: model.prefill(inputs, options=PruneOptions(num_keep=kept)))
    assert flops == total(cost.prefill(grids, TEXT, kept)).flops + padding(cost, grids)


def test_windowed_importance():
    model, inputs, grids, cost = make("qwen2_5_vl", attention="window")
    flops = counted(lambda: model.prefill(inputs, options=PruneOptions(num_keep=(5, 9))))
    assert flops == total(cost.prefill(grids, TEXT, (5, 9))).flops + padding(cost, grids)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_decoded_token(family):
    model, inputs, _, cost = make(family)
    done = model.prefill(inputs, options=PruneOptions(num_keep=(5, 9)))
    token, position = inputs["input_ids"][:, -1:], done.next_position.unsqueeze(1)

    def step():
        mask = torch.cat([done.attention_mask, done.attention_mask.new_ones(2, 1)], dim=1)
        out = model.backbone.decode(token, position, mask, done.cache)
        model.backbone.model.lm_head(out.last_hidden_state)

    assert counted(step) == cost.decode(2, TEXT + 9 + 1).flops


@pytest.mark.parametrize("way", ["prefix", "prefix, kept", "whole"])
@pytest.mark.parametrize("changes", [{}, {"attention_logits": False, "num_tokens": 2}], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_training_step(family, changes, way):
    model, inputs, grids, cost = make(family, **changes)
    answer_ids, answer_mask = tiny_answers([5, 5])
    kept = {"recompute": False}
    run = {"prefix": teacher_forced, "prefix, kept": partial(teacher_forced, **kept), "whole": whole_sequence}[way]

    def step():
        forced = run(backbone_of(model.base), model.glimpse.train(), inputs, answer_ids, answer_mask)
        (forced.importance_logits[-1].sum() + forced.answer_logits.sum()).backward()

    count = {"prefix": cost.prefix_step, "prefix, kept": partial(cost.prefix_step, **kept), "whole": cost.whole_step}
    expected = count[way](grids, TEXT, 5) + 3 * padding(cost, grids)
    # the whole-sequence reference projects queries and keys of the read layer twice
    assert counted(step) == (expected if way != "whole" else pytest.approx(expected, rel=0.04))


def test_bytes_of_a_decoded_token_by_hand():
    base = FAMILIES["qwen2_5_vl"].make()  # 4 layers of 64, 4 heads and 2 kv heads of 16, inner 128, 64 words
    cost = CostModel(base.config, *micro_configs(), itemsize=2)
    layer = 64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 128
    assert cost.decode(3, 10).bytes == 2 * (4 * (layer + 2 * 3 * 10 * 32) + 64 * 64)
    assert cost.cache_bytes(3, 10) == 2 * 4 * 2 * 3 * 10 * 32


def test_a_causal_kernel_computes_half():
    base = FAMILIES["llava"].make()
    dense, half = (CostModel(base.config, *micro_configs(), causal_half=flag) for flag in (False, True))
    saved = dense.layers(1, 1, 10).flops - half.layers(1, 1, 10).flops
    assert saved == 4 * 64 * (100 - 55)
    assert Work(1, 2) + Work(3, 4) == Work(4, 6)


@pytest.mark.parametrize("family", FAMILIES)
def test_zoom(family):
    """A copy of half of the tokens and a crop of a part, in a batch of two alike."""
    micro = FAMILIES[family]
    base = micro.make(attn_implementation="eager")
    model, prompts = micro_glimpse(base), micro.fit([([(6, 4)], 11)] * 2)
    cost = CostModel(base.config, *micro_configs(), causal_half=False)
    pruner = GivenCrop(model.glimpse, None if model.backbone.one_image_size else 0.5, crop_keep="all")
    pruner.share, kept = 0.3, 5
    inputs = micro.inputs(prompts)
    done = model.prefill(inputs, pruner, PruneOptions(num_keep=kept, min_kept=0))
    glance, crop = done.layout.grids[:2]
    before = int((inputs["input_ids"][0] == base.config.image_token_id).nonzero()[0]) + model.backbone.image_frame[1]
    behind = int(done.full_length[0]) - before - done.full_layout.image_sizes[0]
    work = cost.zoom([glance] * 2, [crop] * 2, before, behind, kept, crop[0] * crop[1])
    flops = counted(lambda: model.prefill(inputs, pruner, PruneOptions(num_keep=kept, min_kept=0)))
    assert flops == total(work).flops + padding(cost, [glance] * 2)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_next_turn_of_a_conversation(family):
    micro = FAMILIES[family]
    base = micro.make(attn_implementation="eager")
    model, prompts = micro_glimpse(base), micro.fit([([(6, 4)], 21)])
    cost, new, kept = CostModel(base.config, *micro_configs(), causal_half=False), 6, 5
    whole = micro.inputs(prompts)
    first = {k: v[:, :-new] if v.shape == whole["input_ids"].shape else v for k, v in whole.items()}
    talk, options = Conversation(model.backbone, model.glimpse), PruneOptions(num_keep=kept, min_kept=0)
    layout = talk.turn(first, options).layout
    text = whole["input_ids"].shape[1] - layout.num_tokens
    flops = counted(lambda: talk.turn(whole, options))
    work = cost.next_turn(layout.grids[0], text, new, kept)
    assert flops == total(work).flops + padding(cost, [layout.grids[0]])
