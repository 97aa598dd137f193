"""Windows in batches give what the stock tower gives window by window, in far fewer calls."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from gp.backbones import backbone_of
from gp.backbones import windows as windows_file
from tests.support.stock import joined
from tests.support.tiny_models import FAMILIES, tiny_inputs, tiny_qwen

pytestmark = pytest.mark.core


GRIDS = [(3, 5), (4, 6), (4, 6), (1, 1), (7, 4)]  # merged tokens; windows of 2 x 2


PROMPTS = [([grid], 4) for grid in GRIDS]


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl"])
def test_the_tower_gives_what_stock_sdpa_gives(name):
    family = FAMILIES[name]
    inputs = family.inputs(PROMPTS)
    images = {key: inputs[key] for key in ("pixel_values", "image_grid_thw")}
    stock = family.make().get_image_features(**images)
    seen = backbone_of(family.make()).see(inputs)
    torch.testing.assert_close(seen.embeds, torch.cat(list(stock.pooler_output)), atol=1e-5, rtol=1e-5)
    deepstack = getattr(stock, "deepstack_features", None) or []
    for mine, theirs in zip(seen.deepstack.values(), deepstack, strict=True):
        torch.testing.assert_close(mine, joined(theirs), atol=1e-5, rtol=1e-5)


def test_one_call_for_all_windows_of_a_size(monkeypatch):
    calls = []

    def counted(query, *args, **kwargs):
        calls.append(query.shape[0])
        return functional.scaled_dot_product_attention(query, *args, **kwargs)

    monkeypatch.setattr(windows_file, "scaled_dot_product_attention", counted)
    backbone_of(tiny_qwen()).see(tiny_inputs([([(8, 8)], 4), ([(7, 7)], 4)]))
    windowed, full = [16 + 9, 6, 1], [1, 1]  # 7 x 7 tokens: 9 windows of 4, 6 of 2, one of 1
    assert calls == [*windowed, *full] * 2


def test_other_kernels_stay_as_they_are():
    base = tiny_qwen(attn_implementation="eager")
    backbone_of(base)
    assert base.config.vision_config._attn_implementation == "eager"


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl"])
def test_the_view_shares_all_but_the_config(name):
    tower = FAMILIES[name].make().model.visual
    view = windows_file.batched_view(tower)
    assert view is not tower and tower.config._attn_implementation == "sdpa"
    there, here = dict(tower.named_modules()), dict(view.named_modules())
    assert there.keys() == here.keys()
    for path, module in there.items():
        for kind in ("_parameters", "_buffers", "_forward_hooks", "_forward_pre_hooks"):
            assert getattr(here[path], kind) is getattr(module, kind), path
    assert all(p is q for p, q in zip(tower.parameters(), view.parameters(), strict=True))
    kernels = {module.config._attn_implementation for module in view.modules() if hasattr(module, "config")}
    assert kernels == {windows_file.NAME}
