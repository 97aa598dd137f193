"""Every option of building shards, with its default, and the checks that refuse contradictions before any work."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf

from gp.config.load import merge_options, parse_overrides, read_yaml

CHECKS = ("decode", "header")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
HELP = {
    "name": "of the output: shards are {out}/{name}-{split}-000000.tar, or {name}-000000.tar without splits",
    "annotations": "Visual-CoT training jsonl, its benchmark json, a V* folder, or jsonl of your own; a list",
    "images": "the image folder, one tar, or the pieces of a split tar (folder, glob, braces or list)",
    "out": "folder of the shards and their manifest.json",
    "sample": "random:N draws N questions; null takes all",
    "seed": "of the drawing, of the splits and of the dealing to shards",
    "splits": "split -> fraction, or split -> number of questions; an image is in one split only",
    "shard_samples": "questions a shard, about",
    "shard_mib": "size of a shard, about, instead of shard_samples; walks the headers of a tar once more",
    "max_pixels": "larger images are re-encoded to at most so many pixels; null keeps all bytes as they are",
    "check": "decode: every image must decode; header: only its header is read, damage behind it is met in training",
    "workers": "processes that check and write; null: one a CPU; 0: this one",
    "max_skipped_fraction": "unusable questions tolerated before the build stops",
}


@dataclass
class BuildConfig:
    """See `HELP` for what each means."""

    name: str = MISSING
    annotations: list[str] = MISSING
    images: list[str] = MISSING
    out: str = "shards/viscot"
    sample: str | None = None
    seed: int = 42
    splits: dict[str, float] = field(default_factory=dict)
    shard_samples: int = 1000
    shard_mib: float | None = None
    max_pixels: int | None = None
    check: str = "decode"
    workers: int | None = None
    max_skipped_fraction: float = 0.02

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
    given["command line"] = _as_meant(parse_overrides(overrides))
    config = merge_options(BuildConfig, given)
    check_options(config)
    return config


def check_options(config: BuildConfig) -> None:
    """ValueError for values out of range and options that contradict each other."""
    for key in ("annotations", "images"):
        if not getattr(config, key):
            raise ValueError(f"{key}: expected at least one path, got an empty list")
    for name in (config.name, *config.splits):
        if not NAME.fullmatch(name):
            raise ValueError(f"name and splits: expected letters, digits, - and _, got {name!r}")
    if config.sample is not None and not re.fullmatch(r"random:[1-9]\d*", config.sample):
        raise ValueError(f"sample: expected null or random:N, got {config.sample!r}")
    if config.check not in CHECKS:
        raise ValueError(f"check must be one of {', '.join(CHECKS)}, got {config.check!r}")
    for key in ("shard_samples", "shard_mib", "max_pixels"):
        if (value := getattr(config, key)) is not None and value <= 0:
            raise ValueError(f"{key} must be more than 0, got {value}")
    if config.workers is not None and config.workers < 0:
        raise ValueError(f"workers must be 0 or more, got {config.workers}")
    if not 0.0 <= config.max_skipped_fraction <= 1.0:
        raise ValueError(f"max_skipped_fraction must be in [0, 1], got {config.max_skipped_fraction}")
    _check_splits(config)


def describe_options() -> str:
    """One line an option, for `--help`."""
    lines = []
    for option in fields(BuildConfig):
        default = option.default_factory() if option.default is NO_DEFAULT else option.default
        shown = "required" if default == MISSING else f"default {'null' if default is None else default}"
        lines.append(f"  {option.name:21}{HELP[option.name]} ({shown})")
    return "\n".join(lines)


def _check_splits(config: BuildConfig) -> None:
    values = config.splits.values()
    if any(value <= 0 for value in values):
        raise ValueError(f"splits: expected fractions or numbers of questions above 0, got {dict(config.splits)}")
    if config.splits_are_counts:
        if any(value != int(value) for value in values):
            raise ValueError(f"splits: expected fractions only, or numbers only, got {dict(config.splits)}")
    elif sum(values) > 1 + 1e-9:
        raise ValueError(f"splits: fractions must sum to 1 or less, got {dict(config.splits)}")


def _as_meant(given: DictConfig) -> DictConfig:
    """One path is a list of one, and `{train:0.98}`, which YAML reads as a key without a value, is a mapping."""
    values: dict[str, Any] = OmegaConf.to_container(given)
    for key in ("annotations", "images"):
        if isinstance(values.get(key), str):
            values[key] = [values[key]]
    if isinstance(splits := values.get("splits"), dict):
        values["splits"] = dict(_split_entry(key, value) for key, value in splits.items())
    return OmegaConf.create(values)


def _split_entry(key: str, value: Any) -> tuple[str, Any]:
    name, colon, number = str(key).partition(":")
    return (name, number) if colon and value is None else (key, value)
