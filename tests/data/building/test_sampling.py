"""Drawing, splitting and dealing: deterministic, without overlap, as many as asked for."""

from __future__ import annotations

from collections import Counter

import pytest

from gp.data.building import BuildConfig
from gp.data.building.rows import Row
from gp.data.building.sampling import draw, make_plan

ROWS = [Row(f"gqa/{number % 700}.jpg", b'{"n": %d}' % number) for number in range(1000)]  # 300 images have two


def plan(rows=ROWS, sizes=None, **options):
    return make_plan(rows, BuildConfig(name="g", annotations=["a"], images=["i"], **options), lambda keys: sizes)


def questions_of(made) -> Counter:
    count = Counter()
    for wanted in made.images.values():
        count[made.shard_sets[wanted.shard]] += len(wanted.rows)
    return count


def test_drawing_is_deterministic_and_without_repetition():
    drawn = draw(ROWS, 200, 42)
    assert drawn == draw(ROWS, 200, 42) != draw(ROWS, 200, 43)
    assert len(set(drawn)) == 200 and drawn == sorted(drawn, key=ROWS.index)
    assert draw(ROWS, None, 42) == ROWS
    with pytest.raises(ValueError, match=r"sample=random:1001: .* only 1000"):
        draw(ROWS, 1001, 42)
    with pytest.raises(ValueError, match="no usable question"):
        draw([], None, 42)


def test_a_draw_stays_what_it_was():
    """The same seed must draw the same questions next year, or results cannot be repeated."""
    assert [ROWS.index(row) for row in draw(ROWS, 5, 42)] == [2, 20, 77, 287, 540]


@pytest.mark.parametrize("splits", [{"train": 0.8, "val": 0.1, "test": 0.1}, {"train": 0.5, "val": 0.1}])
def test_fractions(splits):
    made = plan(splits=splits, shard_samples=100)
    count = questions_of(made)
    for name, fraction in splits.items():
        assert abs(count[f"g-{name}"] - 1000 * fraction) <= 2
    assert sum(count.values()) == (1000 if sum(splits.values()) == 1 else pytest.approx(600, abs=2))


@pytest.mark.parametrize("splits", [{"train": 900, "val": 50, "test": 50}, {"train": 7, "val": 1}, {"all": 999}])
def test_numbers_are_met_exactly_and_nothing_is_wasted(splits):
    assert questions_of(plan(splits=splits)) == {f"g-{name}": count for name, count in splits.items()}


def test_no_image_is_in_two_shards_and_all_its_questions_stay_together():
    made = plan(splits={"train": 0.5, "val": 0.5}, shard_samples=50)
    assert len(made.images) == 700
    for key, wanted in made.images.items():
        assert wanted.rows == [row.json for row in ROWS if row.image == key]
    assert sorted(wanted.number for wanted in made.images.values()) == list(range(700))


def test_shards_are_equal_and_mixed():
    rows = [Row(f"{name}/{n}.jpg", b"{}") for name in ("a", "b") for n in range(500)]
    made = plan(rows, shard_samples=100)
    assert made.shard_sets == ["g"] * 10
    for shard in range(10):
        names = Counter(key[0] for key, wanted in made.images.items() if wanted.shard == shard)
        assert sum(names.values()) == 100 and min(names.values()) > 25


def test_shards_by_size():
    sizes = {row.image: 1000 + 10 * number for number, row in enumerate(ROWS[:700])}
    made = plan(sizes=sizes, shard_mib=0.5)
    weights = Counter()
    for key, wanted in made.images.items():
        weights[wanted.shard] += sizes[key]
    assert len(weights) == -(-sum(sizes.values()) // 2**19)
    assert max(weights.values()) < 2**19 + 10_000 and max(weights.values()) - min(weights.values()) < 20_000


def test_another_seed_is_another_plan():
    first, again, other = (plan(seed=seed).images for seed in (1, 1, 2))
    assert first == again and list(first) != list(other)


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": 990, "val": 11}, "1001 questions asked for, there are only 1000"),
        ({"a": 0.9999, "b": 0.0001}, "leaves split b without an image"),
    ],
)
def test_splits_that_cannot_be(splits, message):
    with pytest.raises(ValueError, match=message):
        plan(splits=splits)


def test_counts_that_no_whole_images_make():
    """Three images of three questions each: 4 and 5 need a cut, and only the rest of the cut image is lost."""
    rows = [Row(f"a/{n // 3}.jpg", b"%d" % n) for n in range(9)]
    made = plan(rows, splits={"x": 4, "y": 3})
    assert questions_of(made) == {"g-x": 4, "g-y": 3}
    with pytest.raises(ValueError, match=r"split y, 2 .*missing"):
        plan(rows, splits={"x": 4, "y": 5})
