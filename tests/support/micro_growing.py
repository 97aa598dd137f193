"""The least pretraining of the embedded base."""

from __future__ import annotations

from pathlib import Path

from gp.config.pretrain_cards import (
    CardsPretrainConfig,
    CountStageConfig,
    FinalStageConfig,
    JointStageConfig,
    TowerStageConfig,
)
from gp.embedded.making.model import build_model
from gp.embedded.making.pretrain import save_base
from tests.support.micro_making import micro_config


def save_micro_base(folder: Path) -> Path:
    """Writes a random base of three layers to grow from."""
    save_base(build_model(micro_config("unused")), folder)
    return folder


def growing_config(folder, init: Path, **changes) -> CardsPretrainConfig:
    """Two steps of the first and last stage and four of the joint one, in `folder`."""
    settings = {
        "name": "micro",
        "runs_dir": str(folder),
        "init": str(init),
        "tower_stage": TowerStageConfig(steps=2),
        "joint_stage": JointStageConfig(steps=4, evidence_layer=3, tower_every=3),
        "final_stage": FinalStageConfig(steps=2, evidence_layer=3, tower_every=2),
        "count_stage": CountStageConfig(steps=1, evidence_layer=3),
        "num_workers": 0,
        "warmup_steps": 2,
        "log_every_steps": 1,
        "checkpoint_every_steps": 1,
        "val_batches": 1,
        "val_every_steps": 50,
    }
    return CardsPretrainConfig(**{**settings, **changes})
