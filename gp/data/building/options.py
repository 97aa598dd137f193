"""Every option of building shards, with its default, and the checks that refuse contradictions before any work."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from gp.config.literal import parse_with_paths
from gp.config.load import COMMAND_LINE, merge_options, read_yaml
from gp.config.option import option
from gp.config.reference import describe_schema
from gp.config.schema import ABOVE_0, FROM_0, FROM_1, SHARE

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


CHECKS = ("decode", "header")
PATHS = ("annotations", "images", "out")


@dataclass
class BuildConfig:
    """All settings of `gp.data.building.build`."""

    name: str = option(MISSING, "shards are {out}/{name}-{split}-000000.tar, or {name}-000000.tar without splits")
    annotations: list[str] = option(
        MISSING,
        "Visual-CoT training jsonl, its benchmark json, a V* folder, or jsonl of your own; a list",
        length=FROM_1,
    )
    images: list[str] = option(
        MISSING, "the image folder, one tar, or pieces of a split tar (folder, glob, braces or list)", length=FROM_1
    )
    out: str = option("data/viscot", "folder of the shards and their manifest.json")
    sample: str | None = option(None, "random:N draws N questions; null takes all")
    seed: int = option(42, "seed of the drawing, of the splits and of the dealing to shards")
    splits: dict[str, float] = option(
        {}, "split -> fraction, or split -> number of questions; an image is in one split only", within=ABOVE_0
    )
    shard_samples: int = option(1000, "questions per shard, about", within=FROM_1)
    shard_mib: float | None = option(
        None, "size of a shard, about, instead of shard_samples; walks the headers of a tar once more", within=ABOVE_0
    )
    max_pixels: int | None = option(
        None, "larger images are re-encoded to at most so many pixels; null keeps all bytes as they are", within=FROM_1
    )
    check: str = option(
        "decode",
        "whether every image must decode, or only its header is read and damage behind it is met in training",
        choices=CHECKS,
    )
    workers: int | None = option(None, "processes that check and write; null: one per CPU; 0: this one", within=FROM_0)
    max_skipped_fraction: float = option(0.02, "unusable questions tolerated before the build stops", within=SHARE)

    @property
    def num_drawn(self) -> int | None:
        """N of `sample=random:N`; None: all."""
        return None if self.sample is None else int(self.sample.removeprefix("random:"))

    @property
    def splits_are_counts(self) -> bool:
        """True if `splits` are numbers of questions, False if fractions."""
        return max(self.splits.values(), default=0) > 1


def load_build_config(path: str | Path | None, overrides: Sequence[str]) -> BuildConfig:
    """A YAML file, or none, and `key=value` overrides -> the checked options.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an unknown or missing key, a wrong type, a value out of range, or options that contradict.
    """
    given = {} if path is None else {f"config {path}": _as_meant(read_yaml(path))}
    given[COMMAND_LINE] = _as_meant(parse_with_paths(overrides, PATHS))
    config = merge_options(BuildConfig, given)
    check_options(config)
    return config


def check_options(config: BuildConfig) -> None:
    """ValueError for names and draws of another form, and for options that contradict each other."""
    for name in (config.name, *config.splits):
        if not NAME.fullmatch(name):
            raise ValueError(f"name and splits: expected letters, digits, - and _, got {name!r}")
    if config.sample is not None and not re.fullmatch(r"random:[1-9]\d*", config.sample):
        raise ValueError(f"sample: expected null or random:N, got {config.sample!r}")
    _check_splits(config)


def describe_options() -> str:
    """One line per option, for `--help`."""
    return describe_schema(BuildConfig)


def _check_splits(config: BuildConfig) -> None:
    values = config.splits.values()
    if config.splits_are_counts:
        if any(value != int(value) for value in values):
            raise ValueError(f"splits: expected fractions only, or numbers only, got {dict(config.splits)}")
    elif sum(values) > 1 + 1e-9:
        raise ValueError(f"splits: fractions must sum to 1 or less, got {dict(config.splits)}")


def _as_meant(values: dict[str, Any]) -> dict[str, Any]:
    """One path is a list of one, and `{train:0.98}`, which YAML reads as a key without a value, is a mapping."""
    for key in ("annotations", "images"):
        if isinstance(value := values.get(key), str | int):
            values[key] = [str(value)]
    if isinstance(splits := values.get("splits"), dict):
        values["splits"] = dict(_split_entry(key, value) for key, value in splits.items())
    return values


def _split_entry(key: str, value: Any) -> tuple[str, Any]:
    name, colon, number = str(key).partition(":")
    return (name, number) if colon and value is None else (key, value)
