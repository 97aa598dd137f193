"""Methods with caches of different lengths, and methods that make the images smaller, through the whole evaluation."""

from __future__ import annotations

import io
import json

import pytest
import torch
from rich.console import Console

from gp.data.batch import Collator
from gp.eval import evaluate, load_run, runner
from gp.eval.plan import Method
from gp.eval.runner import answer_batch, kv_entries, on_grid, prefill_batch
from gp.pruners import BASELINES, NoPruner, OraclePruner, RandomPruner
from tests.eval.test_evaluate import COSTS, lines_of, rows_of
from tests.support.micro_eval import NEW_TOKENS, NUM_SAMPLES

BUDGET = 0.7
LAYERS = 4


@pytest.fixture
def few_methods(monkeypatch, half_way, quarter_size):
    """`all` is these, and `glimpse`."""
    kept = {NoPruner.name, half_way.name, quarter_size.name, RandomPruner.name, OraclePruner.name}
    for name in BASELINES.keys() - kept:
        monkeypatch.delitem(BASELINES, name)


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
    monkeypatch.setattr(runner, "answer_batch", lambda *arguments: [])
    methods = [Method("none"), Method(quarter_size.name, 0.3), Method("oracle")]
    runner.run_split(model, lambda done: [given], "test", methods, tmp_path, max_new_tokens=1)
    runner.run_split(model, lambda done: [given], "test", methods[1:2], tmp_path, max_new_tokens=1)
    assert seen == [["none", "oracle"]]


class Killed(Exception):
    pass


def test_all_methods_killed_between_two_of_them_and_resumed(micro, few_methods, monkeypatch, tmp_path):
    overrides = ["eval.pruners=[all]", f"eval.budgets=[{BUDGET},0.3]"]
    run = load_run(micro.ckpt, overrides)
    whole = evaluate(*run, tmp_path / "whole")
    labels = ["none-own", "glimpse-0.7", "glimpse-0.3", "half_way-0.7", "quarter_size-0.7", "quarter_size-0.3"]
    labels += ["random-0.7", "random-0.3", "oracle-own"]
    assert [f"{row['pruner']}-{row['budget'] or 'own'}" for row in whole] == labels
    calls, answer = [], runner.answer_batch

    def dying(model, batch, method, *rest):
        calls.append(method)
        if len(calls) == len(labels) + 4:  # in the second batch, after three of its methods
            raise Killed
        return answer(model, batch, method, *rest)

    monkeypatch.setattr(runner, "answer_batch", dying)
    with pytest.raises(Killed):
        evaluate(*run, tmp_path / "cut")
    done = {label: len(lines_of(tmp_path / "cut", label)) for label in labels}
    assert list(done.values()) == [8] * 3 + [4] * 6
    monkeypatch.setattr(runner, "answer_batch", answer)
    rows = evaluate(*run, tmp_path / "cut")
    for one, other in zip(rows, whole):
        assert {k: v for k, v in one.items() if k not in COSTS} == {k: v for k, v in other.items() if k not in COSTS}
    assert all(len(lines_of(tmp_path / "cut", label)) == NUM_SAMPLES for label in labels)


def test_budgets_are_realised_and_the_unreachable_is_reported(micro, few_methods, tmp_path):
    overrides = ["eval.pruners=[all]", f"eval.budgets=[{BUDGET},0.4]", "eval.overlays=1"]
    console = Console(width=150, record=True, file=io.StringIO())
    evaluate(*load_run(micro.ckpt, overrides), tmp_path, console=console)
    rows = rows_of(tmp_path)
    assert ("half_way", 0.4) not in rows
    for pruner in ("glimpse", "half_way", "random"):
        row = rows[pruner, BUDGET]
        assert BUDGET - 0.2 < row["cache_ratio"] <= BUDGET + 1e-6  # images of 4 to 12 tokens
    late = rows["half_way", BUDGET]
    assert late["compute_ratio"] == late["cache_ratio"] > late["keep_ratio"]
    assert rows["glimpse", BUDGET]["compute_ratio"] > rows["glimpse", BUDGET]["cache_ratio"]
    assert late["peak_mib"] is None or late["peak_mib"] >= 0
    reason = "a budget of 0.4 cannot be met"
    printed = console.export_text()
    assert printed.count("left out: half_way-0.4: ") == 1 and reason in printed
    for name in ("report.md", "report.html"):
        text = (tmp_path / name).read_text()
        assert "Left out" in text and "half_way-0.4" in text and reason in text


def test_settings_of_a_method_are_kept_apart(micro, half_way, tmp_path):
    first = ["eval.pruners=[half_way]", "eval.budgets=[0.7]", "eval.overlays=0", "eval.num_samples=4"]
    evaluate(*load_run(micro.ckpt, first), tmp_path)
    with pytest.raises(
        ValueError, match=r"made with eval\.methods\.half_way \{\}, this run has \{'layer': 0\}; delete"
    ):
        evaluate(*load_run(micro.ckpt, [*first, "eval.methods.half_way.layer=0"]), tmp_path)
    # a method may be added later, and settings of one that has no row here are nobody's business
    other = ["eval.pruners=[random]", *first[1:], "eval.methods.half_way.layer=0"]
    rows = evaluate(*load_run(micro.ckpt, other), tmp_path)
    assert [row["pruner"] for row in rows] == ["none", "random"]
    both = evaluate(*load_run(micro.ckpt, ["eval.pruners=[random,half_way]", *first[1:]]), tmp_path)
    assert [row["pruner"] for row in both] == ["none", "half_way", "random"]
    settings = json.loads((tmp_path / "settings.json").read_text())
    assert settings["methods"] == {"none": {}, "half_way": {}, "random": {}}
    late = lines_of(tmp_path, "half_way-0.7")
    changed = evaluate(*load_run(micro.ckpt, [*first, "eval.methods.half_way.layer=0"]), tmp_path / "other")
    assert changed[1]["keep_ratio"] > both[1]["keep_ratio"] and len(late) == 4
