"""A micro run of task `grpo`: a random base, shards, and a config."""

from __future__ import annotations

from pathlib import Path

from gp.config import load_config
from gp.config.plus import PlusConfig
from tests.support.micro_run import write_config

SETTINGS = (
    "task=grpo",
    "adapter.rank=4",
    "adapter.alpha=8",
    "grpo.group_size=3",
    "grpo.max_new_tokens=4",
    "reward.weights={exact: 0, anls: 1}",
    "eval.pruners=[none,oracle]",
    "eval.after_training=false",
    "eval.costs=false",
    "eval.overlays=0",
)


def write_plus_config(folder: Path, base: str, *overrides: str) -> PlusConfig:
    """As `tests.support.micro_run.write_config`, for task `grpo`."""
    write_config(folder, base)
    config = load_config(folder / "micro.yaml", [*SETTINGS, *overrides])
    assert isinstance(config, PlusConfig)
    return config
