"""The choice of questions, of each image's split and of its shard: all from names and a seed.

Every shard is open during the one pass over the images, and each image goes to the shard that was drawn for it here.
So shards are well mixed whatever the order of the archive, and it does not matter that an archive holds one data set
after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from gp.data.building.options import BuildConfig
from gp.data.building.rows import Row

ImageRows = tuple[str, list[Row]]  # an image's key and its questions


@dataclass(frozen=True, slots=True)
class Wanted:
    """An image to be packed: its number among all, the shard it goes to, and its questions as JSON."""

    number: int
    shard: int
    rows: list[bytes]


@dataclass(frozen=True)
class Plan:
    """Images to take, and where they go.

    Args:
        images: key -> what to do with the image.
        shard_sets: the set of each shard, in order, e.g. ["gqa-train", "gqa-train", "gqa-val"].
    """

    images: dict[str, Wanted]
    shard_sets: list[str]

    @property
    def num_questions(self) -> int:
        return sum(len(wanted.rows) for wanted in self.images.values())


def make_plan(
    rows: Sequence[Row], config: BuildConfig, image_sizes: Callable[[Sequence[str]], Mapping[str, int]]
) -> Plan:
    """The same rows, options and seed give the same plan.

    Args:
        rows: usable questions.
        config: `sample`, `seed`, `splits`, `shard_samples`, `shard_mib`.
        image_sizes: keys -> bytes of those that are there; asked only for `shard_mib`.

    Raises:
        ValueError: fewer questions than `sample` or `splits` ask for, or none.
    """
    drawn = draw(rows, config.num_drawn, config.seed)
    splits = split_images(shuffled_images(drawn, config.seed), config)
    sizes = image_sizes([key for images in splits.values() for key, _ in images]) if config.shard_mib else None
    images: dict[str, Wanted] = {}
    shard_sets: list[str] = []
    for split, members in splits.items():
        shards = _deal(members, config, sizes)
        for (key, members_rows), shard in zip(members, shards):
            json_rows = [row.json for row in members_rows]
            images[key] = Wanted(len(images), len(shard_sets) + shard, json_rows)
        shard_sets += [set_name(config.name, split)] * (max(shards) + 1)
    return Plan(images, shard_sets)


def set_name(name: str, split: str) -> str:
    return f"{name}-{split}" if split else name


def set_names(config: BuildConfig) -> list[str]:
    """All sets that a build makes."""
    return [set_name(config.name, split) for split in config.splits or ("",)]


def draw(rows: Sequence[Row], count: int | None, seed: int) -> list[Row]:
    """`count` rows without repeating one, or all, in their own order."""
    if not rows:
        raise ValueError("annotations: no usable question in them")
    if count is None:
        return list(rows)
    if count > len(rows):
        raise ValueError(f"sample=random:{count}: the annotations hold only {len(rows)} usable questions")
    chosen = Random(f"draw {seed}").sample(range(len(rows)), count)
    return [rows[index] for index in sorted(chosen)]


def shuffled_images(rows: Sequence[Row], seed: int) -> list[ImageRows]:
    """Rows by image, images in a random order that depends on their keys and the seed alone."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.image, []).append(row)
    keys = sorted(groups)
    Random(f"images {seed}").shuffle(keys)
    return [(key, groups[key]) for key in keys]


def split_images(images: list[ImageRows], config: BuildConfig) -> dict[str, list[ImageRows]]:
    """Split -> its images; without splits all belong to the split "". No image is in two.

    Fractions are of the questions and cut between images, so they are met up to the questions of one image. Numbers
    are met exactly: an image with more questions than are still missing is left to the next split, and only if there
    is no other the rest of its questions is dropped.
    """
    if not config.splits:
        return {"": images}
    if config.splits_are_counts:
        return _split_by_counts(images, {name: int(count) for name, count in config.splits.items()})
    return _split_by_fractions(images, dict(config.splits))


def _split_by_fractions(images: list[ImageRows], fractions: dict[str, float]) -> dict[str, list[ImageRows]]:
    total = sum(len(rows) for _, rows in images)
    splits: dict[str, list[ImageRows]] = {}
    at = before = 0
    end = 0.0
    for name, fraction in fractions.items():
        end += fraction * total
        first = at
        while at < len(images) and before < round(end, 6):
            before += len(images[at][1])
            at += 1
        splits[name] = images[first:at]
        if first == at:
            raise ValueError(f"splits: {fraction:g} of {total} questions leaves split {name} without an image")
    return splits


def _split_by_counts(images: list[ImageRows], counts: dict[str, int]) -> dict[str, list[ImageRows]]:
    total = sum(len(rows) for _, rows in images)
    if sum(counts.values()) > total:
        raise ValueError(f"splits: {sum(counts.values())} questions asked for, there are only {total}")
    splits = {}
    for name, count in counts.items():
        splits[name], images = _take(images, count, name)
    return splits


def _take(images: list[ImageRows], count: int, name: str) -> tuple[list[ImageRows], list[ImageRows]]:
    """Images with `count` questions in all, and the images that are left."""
    taken, left = [], []
    for number, (key, rows) in enumerate(images):
        if count == 0:
            left += images[number:]
            break
        if len(rows) <= count:
            taken.append((key, rows))
            count -= len(rows)
        else:
            left.append((key, rows))
    if count:  # every image that is left has more questions than are missing
        if not left:
            raise ValueError(f"splits: no questions are left for split {name}, {count} are missing; ask for fewer")
        key, rows = left.pop(0)
        taken.append((key, rows[:count]))
    return taken, left


def _deal(images: list[ImageRows], config: BuildConfig, sizes: Mapping[str, int] | None) -> list[int]:
    """The shard of each image, counted from 0 without gaps; shards are of equal weight, up to one image."""
    limit: float
    if sizes is None:
        weights, limit = [len(rows) for _, rows in images], config.shard_samples
    else:
        weights, limit = [sizes.get(key, 0) for key, _ in images], config.shard_mib * 2**20
    total = sum(weights)
    count = max(1, -int(-total // limit))
    shards, before, last, number = [], 0, -1, -1
    for weight in weights:
        target = min(count - 1, before * count // max(1, total))
        if target != last:
            last, number = target, number + 1
        shards.append(number)
        before += weight
    return shards
