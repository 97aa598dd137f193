"""Budgets of zoom: what is kept of the copy and of the crops together is the share of the images as they came."""

from __future__ import annotations

import pytest
import torch

from gp.engine.prefill import Prefill, prefill
from gp.model import GlimpseModel
from gp.pruners import make_baseline
from gp.pruners.zoom import Zoom
from gp.selection import whole_tokens
from gp.types import PruneOptions
from tests.support.glimpses import micro_glimpse
from tests.support.tiny_models import FAMILIES, Family

PROMPTS = [([(8, 12)], 9), ([(4, 8), (12, 8)], 8), ([], 5), ([(12, 12)], 14)]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request) -> Family:
    return FAMILIES[request.param]


@pytest.fixture(scope="module")
def model(family) -> GlimpseModel:
    return micro_glimpse(family.make(), 1)


@pytest.fixture(scope="module")
def inputs(family) -> dict[str, torch.Tensor]:
    return family.inputs(family.fit(PROMPTS))


def kept(done: Prefill) -> list[int]:
    """Tokens of each prompt that the last layer sees, those of crops included."""
    return [int(part.sum()) for part in done.layout.split_by_prompt(done.keep_mask)]


def there(done: Prefill, wanted: list[int]) -> list[int]:
    """Tokens that copy and crops have at most."""
    return [min(size, want) for size, want in zip(done.layout.prompt_sizes, wanted, strict=True)]


@pytest.mark.parametrize("gate", ["always", "never", "rule"])
@pytest.mark.parametrize("budget", [0.05, 0.2, 0.5])
def test_a_budget_counts_copy_and_crops(model, inputs, budget, gate):
    """Exactly, where copy and crops have as many tokens; what the caches hold says so."""
    for of in (model.glimpse, make_baseline("fastv", model.backbone, settings={"layer": 1})):
        done = prefill(model.backbone, inputs, Zoom(of, gate=gate), PruneOptions(fixed_keep_ratio=budget))
        wanted = [whole_tokens(budget, size) for size in done.full_layout.prompt_sizes]
        found = kept(done)
        assert all(count <= most for count, most in zip(found, wanted, strict=True)), (found, wanted)
        if gate == "never" or budget < 0.5:  # there are tokens enough: the copy has a quarter, a crop some more
            assert found == there(done, wanted)
        assert [int(mask.sum()) for mask in done.cache_masks[0]] == [int(mask.sum()) for mask in done.attention_mask]
        if gate == "always":
            assert {done.full_layout.rows[crop.image] for crop in done.crops} == {0, 1, 3}
        if gate == "never":
            assert not done.crops


def test_the_number_of_cells_is_the_largest_that_fits(model, inputs):
    """Against all numbers of cells, each with its own crops, of a method that only ranks."""
    fastv = make_baseline("fastv", model.backbone, settings={"layer": 1})
    first = {name: value[:1] if name in ("input_ids", "attention_mask") else value for name, value in inputs.items()}
    layout, _ = model.backbone.layout(inputs)
    if "image_grid_thw" in inputs:
        first["image_grid_thw"] = inputs["image_grid_thw"][:1]
        first["pixel_values"] = inputs["pixel_values"][: int(inputs["image_grid_thw"][0].prod())]
    else:
        first["pixel_values"] = inputs["pixel_values"][:1]
    first = {name: value for name, value in first.items() if name != "mm_token_type_ids"}
    size = layout.image_sizes[0]
    totals = {}
    for cells in range(1, size // 4 + 1):
        plan = of_cells(model, fastv, first, cells)
        totals[cells] = cells + plan
    for limit in (size // 4, size // 2, size):
        fitting = [cells for cells, total in totals.items() if total <= limit]
        done = prefill(model.backbone, first, Zoom(fastv), PruneOptions(num_keep=limit, min_kept=0))
        crops = sum(int(again.keep_mask.sum()) for again in done.seen_again)
        if fitting:
            assert crops == totals[max(fitting)] - max(fitting), (limit, totals)
        assert sum(kept(done)) == min(limit, done.layout.num_tokens if crops == 0 else kept_most(done))


def of_cells(model, method, inputs, cells: int) -> int:
    """Tokens of the crops over the best so many cells."""

    class Cells(Zoom):
        def keep(self, scores, view):
            from gp.pruners.zoom import PLAN, Search

            search = Search(self, scores, view)
            mask = search._keep([cells])
            view.notes[PLAN] = search._plan(mask, [False])
            return mask

    done = prefill(model.backbone, inputs, Cells(method), PruneOptions(fixed_keep_ratio=1.0, min_kept=0))
    return sum(int(again.keep_mask.sum()) for again in done.seen_again)


def kept_most(done: Prefill) -> int:
    """All tokens of the copy, and those that are wanted of the crops."""
    copy = sum(mask.numel() for mask in done.keep_masks)
    return copy + sum(int(again.keep_mask.sum()) for again in done.seen_again)


def test_a_bound_is_no_target(model, inputs):
    """`max_keep_ratio` cuts where the method keeps more, and leaves it alone where it keeps less."""
    free = prefill(model.backbone, inputs, Zoom(model.glimpse))
    wide = prefill(model.backbone, inputs, Zoom(model.glimpse), PruneOptions(max_keep_ratio=1.0))
    if not model.backbone.one_image_size:  # where copy and crop together may be more than the image
        assert torch.equal(free.keep_mask, wide.keep_mask) and free.crops == wide.crops
    tight = prefill(model.backbone, inputs, Zoom(model.glimpse), PruneOptions(max_keep_ratio=0.1))
    most = [whole_tokens(0.1, size) for size in tight.full_layout.prompt_sizes]
    assert kept(tight) != kept(free) and all(count <= limit for count, limit in zip(kept(tight), most, strict=True))


def test_images_have_budgets_of_their_own(model, inputs):
    options = PruneOptions(fixed_keep_ratio=0.2, budget_scope="image")
    done = prefill(model.backbone, inputs, Zoom(model.glimpse), options)
    of_images = [int(mask.sum()) for mask in done.keep_masks]
    for again in done.seen_again:
        of_images[again.crop.image] += int(again.keep_mask.sum())
    assert of_images == [whole_tokens(0.2, size) for size in done.full_layout.image_sizes]
