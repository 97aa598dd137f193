"""Selection against a plain loop over the groups that follows the published order of steps."""

from __future__ import annotations

import itertools

import pytest
import torch

from gp.selection import anchor_mask, known_counts, select, whole_tokens
from gp.types import PruneOptions, VisualLayout

LAYOUT = VisualLayout(grids=((3, 4), (2, 5), (4, 4)), rows=(0, 0, 2), num_prompts=3)


def by_loop(scores: torch.Tensor, layout: VisualLayout, options: PruneOptions) -> torch.Tensor:
    kept = []
    for group in scores.split(layout.group_sizes(options.budget_scope)):
        keep = torch.sigmoid(group) > options.threshold
        total = len(group)
        if total and options.max_keep_ratio is not None and int(keep.sum()) / total > options.max_keep_ratio:
            keep = torch.zeros(total, dtype=torch.bool)
            keep[group.topk(int(options.max_keep_ratio * total)).indices] = True
        if options.fixed_keep_ratio is not None:
            keep = torch.zeros(total, dtype=torch.bool)
            keep[group.topk(int(options.fixed_keep_ratio * total)).indices] = True
        if int(keep.sum()) < options.min_kept:
            keep[group.topk(min(options.min_kept, total)).indices] = True
        kept.append(keep)
    keep = torch.cat(kept)
    return keep | anchor_mask(layout, [options.anchors] * layout.num_prompts) if options.anchors else keep


CASES = [
    dict(zip(("threshold", "max_keep_ratio", "fixed_keep_ratio", "min_kept", "anchors", "budget_scope"), values))
    for values in itertools.product(
        (0.0, 0.5, 0.8), (None, 0.111, 0.4), (None, 0.25, 1.0), (0, 1, 7), ((), ("tl", "br")), ("prompt", "image")
    )
    if values[1] is None or values[2] is None
]


def test_a_share_that_is_whole_but_for_rounding_is_whole():
    """The one rule for all methods: `int` alone would give 28 and 57."""
    assert 0.29 * 100 < 29 and whole_tokens(0.29, 100) == 29
    assert whole_tokens(0.299, 100) == 29
    layout = VisualLayout(((10, 10),), (0,), 1)
    assert int(select(torch.arange(100.0), layout, PruneOptions(fixed_keep_ratio=0.58)).sum()) == 58
    assert int(select(torch.arange(100.0) + 1, layout, PruneOptions(max_keep_ratio=0.58)).sum()) == 58


@pytest.mark.parametrize("options", CASES, ids=str)
def test_equals_a_loop_over_groups(options):
    options = PruneOptions(**options)
    for seed in range(3):
        scores = torch.randn(LAYOUT.num_tokens, generator=torch.Generator().manual_seed(seed)) * 2
        assert torch.equal(select(scores, LAYOUT, options), by_loop(scores, LAYOUT, options))


@pytest.mark.parametrize("options", [*CASES, {"num_keep": (5, 0, 9)}, {"num_keep": (5, 0, 9), "min_kept": 7}], ids=str)
def test_counts_are_known_beforehand_where_they_do_not_depend_on_scores(options):
    options = PruneOptions(**options)
    counts = known_counts(LAYOUT, options)
    is_exact = options.fixed_keep_ratio is not None or options.num_keep is not None
    assert (counts is None) == (not is_exact or bool(options.anchors))
    if counts is not None:
        scores = torch.randn(LAYOUT.num_tokens, generator=torch.Generator().manual_seed(0))
        keep = select(scores, LAYOUT, options)
        assert counts == [int(part.sum()) for part in LAYOUT.split_by_prompt(keep)]


@pytest.mark.parametrize("seed", range(8))
def test_options_of_each_prompt_give_what_each_prompt_alone_gives(seed):
    pick = torch.Generator().manual_seed(seed)
    chosen = [CASES[int(torch.randint(len(CASES), (), generator=pick))] for _ in range(3)]
    chosen[seed % 3] = {"num_keep": 4, "budget_scope": ("prompt", "image")[seed % 2], "min_kept": 0}
    rows = [PruneOptions(**one) for one in chosen]
    scores = torch.randn(LAYOUT.num_tokens, generator=pick) * 2
    together, first = select(scores, LAYOUT, rows), 0
    counts = known_counts(LAYOUT, rows)
    for row, size in enumerate(LAYOUT.prompt_sizes):
        grids = [grid for grid, owner in zip(LAYOUT.grids, LAYOUT.rows) if owner == row]
        alone = VisualLayout(tuple(grids), (0,) * len(grids), 1)
        mine = together[first : first + size]
        assert torch.equal(mine, select(scores[first : first + size], alone, rows[row]))
        assert counts is None or counts[row] == int(mine.sum())
        first += size


def test_a_number_for_all_groups():
    keep = select(torch.randn(LAYOUT.num_tokens), LAYOUT, PruneOptions(num_keep=18))
    assert [int(part.sum()) for part in LAYOUT.split_by_prompt(keep)] == [18, 0, 16]  # the last has no more
    keep = select(torch.randn(LAYOUT.num_tokens), LAYOUT, PruneOptions(num_keep=[3, 4, 5], budget_scope="image"))
    assert [int(part.sum()) for part in LAYOUT.split_by_image(keep)] == [3, 4, 5]


def test_one_entry_per_prompt():
    with pytest.raises(ValueError, match="options has 2 entries for 3 prompts"):
        select(torch.zeros(LAYOUT.num_tokens), LAYOUT, [PruneOptions()] * 2)
    with pytest.raises(ValueError, match="num_keep has 1 entries for the 2 images of its prompt"):
        rows = [PruneOptions(num_keep=(1,), budget_scope="image"), *[PruneOptions()] * 2]
        select(torch.zeros(LAYOUT.num_tokens), LAYOUT, rows)


def test_threshold_is_strict():
    layout = VisualLayout(grids=((1, 2),), rows=(0,), num_prompts=1)
    keep = select(torch.tensor([0.0, 1e-3]), layout, PruneOptions(min_kept=0))
    assert keep.tolist() == [False, True]


def test_cap_keeps_the_threshold_decision_when_it_is_below():
    layout = VisualLayout(grids=((1, 4),), rows=(0,), num_prompts=1)
    keep = select(torch.tensor([3.0, -1.0, -2.0, -3.0]), layout, PruneOptions(max_keep_ratio=0.5))
    assert keep.tolist() == [True, False, False, False]


def test_budget_scope_splits_the_images_of_a_prompt():
    layout = VisualLayout(grids=((1, 4), (1, 4)), rows=(0, 0), num_prompts=1)
    scores = torch.tensor([9.0, 8.0, 7.0, 6.0, 1.0, 2.0, 3.0, 4.0])
    together = select(scores, layout, PruneOptions(fixed_keep_ratio=0.5))
    apart = select(scores, layout, PruneOptions(fixed_keep_ratio=0.5, budget_scope="image"))
    assert together.tolist() == [True] * 4 + [False] * 4
    assert apart.tolist() == [True, True, False, False, False, False, True, True]


def test_num_keep_is_exact_for_every_prompt():
    keep = select(torch.randn(LAYOUT.num_tokens), LAYOUT, PruneOptions(num_keep=(5, 0, 9), min_kept=0))
    assert [int(part.sum()) for part in LAYOUT.split_by_prompt(keep)] == [5, 0, 9]


@pytest.mark.parametrize(
    ("num_keep", "message"), [((5, 0), "2 entries for 3 prompts"), ((23, 0, 0), "23 is outside 0..22")]
)
def test_num_keep_must_fit(num_keep, message):
    with pytest.raises(ValueError, match=message):
        select(torch.zeros(LAYOUT.num_tokens), LAYOUT, PruneOptions(num_keep=num_keep))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 1.0}, "threshold must be in"),
        ({"max_keep_ratio": 0.0}, r"max_keep_ratio must be in \(0, 1\], got 0.0"),
        ({"fixed_keep_ratio": 1.2}, r"fixed_keep_ratio must be in \(0, 1\], got 1.2"),
        ({"max_keep_ratio": 0.1, "fixed_keep_ratio": 0.1}, "contradict"),
        ({"anchors": ("middle",)}, "anchors must be among"),
        ({"budget_scope": "batch"}, "budget_scope must be one of"),
        ({"min_kept": -1}, "min_kept must be 0 or more"),
        ({"min_kept": 1.5}, "min_kept must be 0 or more, got 1.5"),
        ({"threshold": "0.5"}, r"threshold must be in \[0, 1\), got '0.5'"),
        ({"max_keep_ratio": float("nan")}, "got nan"),
        ({"fixed_keep_ratio": True}, "got True"),
        ({"num_keep": -1}, "num_keep must be a number of tokens, or one per prompt, got -1"),
        ({"num_keep": (1, 0.5)}, "num_keep must be"),
        ({"anchors": "tl"}, "anchors must be among"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        PruneOptions(**options)


def test_a_new_budget_replaces_the_default_one():
    options = PruneOptions(max_keep_ratio=0.2).but(fixed_keep_ratio=0.1)
    assert (options.max_keep_ratio, options.fixed_keep_ratio) == (None, 0.1)
