"""The bill of a prefill that has run, against what torch counted while it ran."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from gp.bench.looked_bill import cost_of, operations
from gp.pruners import NoPruner
from gp.pruners.zoom import Zoom
from gp.types import PruneOptions
from tests.support.glimpses import micro_configs, micro_glimpse
from tests.support.tiny_models import FAMILIES

SETTINGS = {"cut": {"margin": 0.5}, "two crops": {"margin": 0, "max_crops": 2}, "copy alone": {"gate": "never"}}


def billed(model, inputs, pruner, options, glimpses, zooms=False):
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # plain matrix products
        done = model.prefill(inputs, pruner, options)
    cost = cost_of(model)
    grids = [(mask.shape[0], mask.shape[1]) for mask in done.keep_masks]
    # on a CPU the VIP's values are padded to the width of its queries, which the cost model does not count
    padding = 2 * len(cost.vip.taps) * sum(map(cost.vip_pairs, grids)) * cost.vip.cond_size if glimpses else 0
    image, looked = model.backbone.image_token_id, (glimpses, zooms)
    return done, operations(cost, done, inputs["input_ids"], image, *looked) + padding, counter.get_total_flops()


@pytest.fixture(scope="module", params=FAMILIES)
def micro(request):
    family = FAMILIES[request.param]
    model = micro_glimpse(family.make(attn_implementation="eager"))  # its attention is plain matrix products
    model.glimpse.configs = micro_configs()
    return model, family.inputs(family.fit([([(6, 6)], 11)])), request.param


@pytest.mark.parametrize("name", SETTINGS)
def test_zoom(micro, name):
    model, inputs, family = micro
    pruner = Zoom(model.glimpse, glance=1.0 if family == "llava" else 0.5, **SETTINGS[name])
    scores = torch.full((model.prefill(inputs, pruner).layout.grids[0][0] ** 2,), -9.0)
    scores[[0, -1] if name == "two crops" else [0, 1]] = 9.0
    pruner.scores = lambda view: scores
    done, bill, counted = billed(model, inputs, pruner, PruneOptions(threshold=0.5), True, True)
    assert len(done.crops) == {"cut": 1, "two crops": 2, "copy alone": 0}[name]
    # what makes the scores is replaced here
    vip = cost_of(model).importance([(mask.shape[0], mask.shape[1]) for mask in done.keep_masks]).flops
    padding = bill - operations(cost_of(model), done, inputs["input_ids"], model.backbone.image_token_id, True, True)
    assert bill - vip - padding == counted


def test_others(micro):
    model, inputs, _ = micro
    done, bill, counted = billed(model, inputs, NoPruner(), None, False)
    assert bill == counted
    done, bill, counted = billed(model, inputs, "glimpse", PruneOptions(num_keep=5), True)
    assert bill == counted and int(done.keep_mask.sum()) == 5
