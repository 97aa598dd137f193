"""All methods x families x budgets on ragged batches: exact budgets, batch invariance, nothing left behind."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from gp.model import GlimpseModel
from gp.pruners import BASELINES, BEFORE_FIRST_LAYER, Pruner, RankingPruner, make_baseline
from gp.pruners.downsample import Downsample
from gp.types import PruneOptions
from tests.support.glimpses import micro_glimpse
from tests.support.ragged import rows_alone
from tests.support.tiny_models import FAMILIES, Family

LAYERS = 8
RAGGED = [([(4, 6)], 9), ([(2, 3), (6, 4)], 7), ([], 5)]
METHODS = [name for name, method in BASELINES.items() if issubclass(method, RankingPruner)]
IN_LLM = [name for name in METHODS if "compact_cache" in BASELINES[name].settings()]  # may leave earlier caches alone
VARIANTS = [(name, {}) for name in METHODS] + [(name, {"compact_cache": True}) for name in IN_LLM]
# what they keep of an image depends on no other image
BEFORE_LLM = [name for name in METHODS if BASELINES[name].stages == (BEFORE_FIRST_LAYER,)]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request) -> Family:
    return FAMILIES[request.param]


@pytest.fixture(scope="module")
def model(family) -> GlimpseModel:
    return GlimpseModel(family.make(layers=LAYERS))


def group_totals(values: torch.Tensor, sizes: list[int]) -> list[float]:
    return [float(part.double().sum()) for part in values.split(sizes)]


def missing(done, options: PruneOptions, wanted: list[float]) -> list[float]:
    """Tokens, mean over layers, by which each group of a prefill stays below what was asked."""
    held = group_totals(done.layers_cached, done.layout.group_sizes(options.budget_scope))
    return [asked - total / LAYERS for asked, total in zip(wanted, held)]


def check_exact(done, options: PruneOptions, wanted: list[float], pruner: Pruner) -> None:
    """Below what was asked by less than a token of each group, or less than a row or column of its images.

    Every stage rounds down by less than a token, and holds only for its share of the layers.
    """
    sides = [max(grid) if isinstance(pruner, Downsample) else 0 for grid in done.full_layout.grids]
    rows = done.full_layout.rows if options.budget_scope == "prompt" else range(len(sides))
    bounds = [max(1, sum(side for side, row in zip(sides, rows) if row == group)) for group in range(len(wanted))]
    assert all(-1e-4 < gap < bound for gap, bound in zip(missing(done, options, wanted), bounds))
    # what is counted is what the caches hold beside the text, which every layer has
    assert [layer.keys.shape[2] for layer in done.cache.layers] == [mask.shape[1] for mask in done.cache_masks]
    num_text = int((done.attention_mask & (done.visual_id < 0)).sum())
    assert sum(int(mask.sum()) - num_text for mask in done.cache_masks) == int(done.layers_cached.sum())


@pytest.mark.parametrize(("name", "settings"), VARIANTS, ids=lambda x: x if isinstance(x, str) else "-".join(x))
@pytest.mark.parametrize("scope", ["prompt", "image"])
@pytest.mark.parametrize("budget", [0.3, 0.45, 0.7, 1.0])
def test_the_budget_is_met_up_to_whole_tokens(family, model, name, settings, scope, budget):
    pruner = make_baseline(name, model.backbone, 3, settings)
    options = PruneOptions(fixed_keep_ratio=budget, budget_scope=scope, min_kept=0)
    done = model.prefill(family.inputs(family.fit(RAGGED)), pruner, options)
    sizes = done.full_layout.group_sizes(scope)
    check_exact(done, options, [budget * size for size in sizes], pruner)
    if budget == 1.0:
        assert done.keep_mask.all() and done.layers_cached.eq(LAYERS).all()
    assert (done.layers_run >= done.layers_cached).all()


@pytest.mark.parametrize("name", METHODS)
def test_max_keep_ratio_is_the_same_budget(family, model, name):
    inputs = family.inputs(family.fit(RAGGED))
    fixed, at_most = (
        model.prefill(inputs, name, PruneOptions(**{key: 0.4})) for key in ("fixed_keep_ratio", "max_keep_ratio")
    )
    assert torch.equal(fixed.keep_mask, at_most.keep_mask) and torch.equal(fixed.logits, at_most.logits)


@pytest.mark.parametrize(("name", "settings"), VARIANTS, ids=lambda x: x if isinstance(x, str) else "-".join(x))
def test_a_number_of_tokens_for_each_prompt(family, model, name, settings):
    pruner, inputs = make_baseline(name, model.backbone, 3, settings), family.inputs(family.fit(RAGGED))
    if name == "downsample" and model.backbone.one_image_size:
        with pytest.raises(ValueError, match=r"one size.*\[\(2, 2\), \(5, 5\)\]"):
            model.prefill(inputs, pruner, PruneOptions(num_keep=(4, 50, 0)))
        return
    options = PruneOptions(num_keep=(11, 20, 0))
    done = model.prefill(inputs, pruner, options)
    check_exact(done, options, [11, 20, 0], pruner)
    if pruner.compact_cache and name != "downsample":
        assert done.num_kept == [11, 20, 0]


@pytest.mark.parametrize("name", METHODS)
def test_more_tokens_than_there_are_is_refused(family, model, name):
    with pytest.raises(ValueError, match=r"num_keep 999 .*0\.\.\d+"):
        model.prefill(family.inputs(family.fit(RAGGED)), name, PruneOptions(num_keep=(11, 999, 0)))


@pytest.mark.parametrize(("name", "settings"), VARIANTS, ids=lambda x: x if isinstance(x, str) else "-".join(x))
@pytest.mark.parametrize("scope", ["prompt", "image"])
def test_a_row_is_as_if_it_were_alone(family, model, name, settings, scope):
    prompts = family.fit(RAGGED)
    inputs, options = family.inputs(prompts), PruneOptions(fixed_keep_ratio=0.4, budget_scope=scope)
    pruner = make_baseline(name, model.backbone, 3, settings)
    together = model.prefill(inputs, pruner, options, seed=[0, 1, 2])
    masks = list(together.keep_masks)
    for row, single in enumerate(rows_alone(inputs, prompts)):
        alone = model.prefill(single, pruner, options, seed=[row])
        torch.testing.assert_close(alone.logits[0], together.logits[row], atol=1e-4, rtol=1e-4)
        assert all(torch.equal(mask, masks.pop(0)) for mask in alone.keep_masks)
    assert not masks


@pytest.mark.parametrize("name", BEFORE_LLM)
def test_images_with_budgets_of_their_own_are_pruned_independently(family, model, name):
    prompts = family.fit([([(2, 3), (6, 4)], 7)])
    inputs, options = family.inputs(prompts), PruneOptions(fixed_keep_ratio=0.4, budget_scope="image")
    pixels = inputs["pixel_values"].clone()
    first = 4 * 2 * 3 if "image_grid_thw" in inputs else 1
    pixels[first:] += torch.randn(pixels[first:].shape, generator=torch.Generator().manual_seed(9))
    one, other = (model.prefill({**inputs, "pixel_values": p}, name, options) for p in (inputs["pixel_values"], pixels))
    assert torch.equal(one.keep_masks[0], other.keep_masks[0])
    assert not torch.equal(one.keep_masks[1], other.keep_masks[1])


def attached(base) -> dict[str, int]:
    return {name: len(m._forward_hooks) + len(m._forward_pre_hooks) for name, m in base.named_modules()}


def test_twice_is_the_same_and_the_base_is_left_as_it_was(family, model):
    inputs, options = family.inputs(family.fit(RAGGED)), PruneOptions(fixed_keep_ratio=0.4)
    weights = {name: value.clone() for name, value in model.base.state_dict().items()}
    before, implementation = attached(model.base), model.base.config._attn_implementation
    for name, settings in VARIANTS:
        pruner = make_baseline(name, model.backbone, 3, settings)
        one, again = (model.prefill(inputs, pruner, options) for _ in range(2))
        assert torch.equal(one.keep_mask, again.keep_mask) and torch.equal(one.logits, again.logits)
    assert attached(model.base) == before
    assert model.base.config._attn_implementation == implementation
    assert all(torch.equal(value, weights[name]) for name, value in model.base.state_dict().items())


@pytest.mark.parametrize("name", ["visionzip", "vscan"])
def test_nothing_stays_attached_after_an_error_in_the_vision_tower(family, model, name):
    inputs = family.inputs(family.fit(RAGGED))
    before = attached(model.base)
    broken = {**inputs, "pixel_values": inputs["pixel_values"][:, :-1]}
    with pytest.raises(RuntimeError):
        model.prefill(broken, name, PruneOptions(fixed_keep_ratio=0.4))
    assert attached(model.base) == before


def test_threads_with_different_methods_and_budgets_do_not_meet(family, model):
    inputs = family.inputs(family.fit(RAGGED))
    jobs = [(name, budget) for budget in (0.35, 0.6) for name in ("visionzip", "fastv", "vscan", "downsample")]

    def ask(job):
        done = model.prefill(inputs, job[0], PruneOptions(fixed_keep_ratio=job[1]))
        return done.keep_mask, done.logits

    expected = [ask(job) for job in jobs]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(ask, jobs * 2))
    for (mask, logits), (one_mask, one_logits) in zip(results, expected * 2):
        assert torch.equal(mask, one_mask)
        torch.testing.assert_close(logits, one_logits)


def test_images_that_were_seen_once_serve_every_method(family):
    model = micro_glimpse(family.make(layers=LAYERS), 3)
    inputs, options = family.inputs(family.fit(RAGGED)), PruneOptions(fixed_keep_ratio=0.4)
    images = model.see(inputs, METHODS)
    for name in METHODS:
        shared, own = model.prefill(inputs, name, options, images=images), model.prefill(inputs, name, options)
        assert torch.equal(shared.keep_mask, own.keep_mask) and torch.equal(shared.logits, own.logits)


@pytest.mark.parametrize("name", METHODS)
def test_unknown_settings_are_named(family, model, name):
    settings = {name: {"number_of_layers": 3}}
    with pytest.raises(ValueError, match=f"'{name}' has no setting 'number_of_layers'"):
        GlimpseModel(model.base, pruner_settings=settings).find_pruner(name)
    with pytest.raises(ValueError, match="'prune_layer'"):  # the call's own argument is no setting
        make_baseline(name, model.backbone, settings={"prune_layer": 1})


def test_settings_of_unknown_methods_are_refused(model):
    with pytest.raises(ValueError, match=r"pruner_settings: .*'fastest'.*fastv"):
        GlimpseModel(model.base, pruner_settings={"fastest": {}})


def test_given_settings_arrive(model):
    given = {
        "fastv": {"layer": 4, "compact_cache": True},
        "pyramid_drop": {"layers": [2, 5]},
        "visionzip": {"contextual_of_kept": 0.25},
        "cdpruner": {"negate": True},
        "vscan": {"layer": 5, "kept_in_llm": 0.5},
        "attention_dpp": {"layer": 6},
    }
    configured = GlimpseModel(model.base, pruner_settings=given)
    assert configured.find_pruner("fastv").stages == (4,) and configured.find_pruner("fastv").compact_cache
    assert configured.find_pruner("pyramid_drop").stages == (2, 5)
    assert configured.find_pruner("visionzip").contextual_of_kept == 0.25
    assert configured.find_pruner("cdpruner").negate
    assert configured.find_pruner("vscan").stages == (-1, 5) and configured.find_pruner("vscan").kept_in_llm == 0.5
    assert configured.find_pruner("attention_dpp").stages == (6,)
