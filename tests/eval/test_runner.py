"""What is counted of one batch, by hand; which methods share a look at the images."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from gp.data.batch import Collator
from gp.eval import load_run, runner
from gp.eval.plan import Method
from gp.eval.runner import answer_batch, kv_entries, on_grid, prefill_batch
from tests.support.micro_eval import NEW_TOKENS

BUDGET = 0.7
LAYERS = 4


@pytest.fixture
def batch(micro):
    model, _ = load_run(micro.ckpt)
    return model, Collator(model.processor)(micro.samples()[:5])


def test_ragged_entries_counted_by_hand(batch, half_way):
    model, given = batch
    done = prefill_batch(model, given, Method(half_way.name, BUDGET))
    assert done.cache_masks.is_ragged
    results = answer_batch(model, given, Method(half_way.name, BUDGET), NEW_TOKENS)
    for row, result in enumerate(results):
        ids = given.inputs["input_ids"][row][given.inputs["attention_mask"][row].bool()]
        visual = int((ids == model.backbone.image_token_id).sum())
        text = len(ids) - visual
        kept = int((BUDGET * LAYERS - 2) / 2 * visual + 1e-6)  # two layers hold all, two what is left
        assert (result.num_visual, result.num_kept) == (visual, kept)
        assert result.visual_run == result.visual_cached == (2 * visual + 2 * kept) / LAYERS
        assert result.kv_kept == kv_entries(done)[row] == text + (2 * visual + 2 * kept) / LAYERS
    longest = [layer.keys.shape[2] for layer in done.cache.layers]
    assert longest[0] == longest[1] > longest[2] == longest[3]


def test_a_smaller_image_by_hand(batch, quarter_size):
    model, given = batch
    results = answer_batch(model, given, Method(quarter_size.name, 0.3), NEW_TOKENS, vision_s=1e6)
    grids = given.inputs["image_grid_thw"][:, 1:] // 2
    for result, (height, width), evidence in zip(results, grids.tolist(), given.evidence_masks):
        small = max(height // 2, 1), max(width // 2, 1)
        left = small[0] * small[1]
        assert (result.num_visual, result.num_kept) == (height * width, left)
        assert result.visual_run == result.visual_cached == left
        assert result.kv_full - result.kv_kept == height * width - left
        wanted = int(on_grid(evidence, small).sum())
        assert (result.tp, result.fp, result.fn) == (wanted, left - wanted, 0)
        assert result.prefill_s < 1e5  # the vision tower's run for the others is none of its time


@pytest.mark.parametrize(("grid", "small"), [((4, 6), (2, 3)), ((5, 7), (2, 3)), ((3, 3), (3, 3)), ((7, 2), (3, 1))])
def test_evidence_on_a_smaller_grid(grid, small):
    """A reduced token covers rows floor(i H / h) .. ceil((i + 1) H / h), columns likewise."""
    mask = torch.rand(grid, generator=torch.Generator().manual_seed(1)) < 0.15

    def parts(index: int, size: int, count: int) -> range:
        return range(index * size // count, -(-(index + 1) * size // count))

    expected = [
        [
            any(mask[y, x] for y in parts(i, grid[0], small[0]) for x in parts(j, grid[1], small[1]))
            for j in range(small[1])
        ]
        for i in range(small[0])
    ]
    assert on_grid(mask, small).tolist() == expected


def test_the_vision_tower_runs_for_methods_that_share_it_only(batch, quarter_size, monkeypatch, tmp_path):
    model, given = batch
    seen = []
    monkeypatch.setattr(model, "see", lambda inputs, pruners: seen.append(pruners))
    answered = [SimpleNamespace(id=sample.id, num_kept=1) for sample in given.samples]
    monkeypatch.setattr(runner, "answer_batch", lambda *arguments: answered)
    monkeypatch.setattr(runner, "append_results", lambda path, results: None)
    methods = [Method("none"), Method(quarter_size.name, 0.3), Method("oracle")]
    runner.SplitRun(model, "test", methods, tmp_path, max_new_tokens=1).answer(given)
    runner.SplitRun(model, "test", methods[1:2], tmp_path, max_new_tokens=1).answer(given)
    assert seen == [["none", "oracle"]]
