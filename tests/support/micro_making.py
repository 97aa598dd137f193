"""The least pretraining of the embedded base."""

from __future__ import annotations

from gp.config.pretrain import JointStageConfig, PretrainConfig, PretrainModelConfig, VisionStageConfig

MICRO = PretrainModelConfig(
    hidden_size=32,
    intermediate_size=48,
    num_layers=3,
    num_heads=2,
    num_kv_heads=1,
    vision_hidden_size=32,
    vision_intermediate_size=32,
    vision_depth=2,
    vision_num_heads=2,
)


def micro_config(folder, **changes) -> PretrainConfig:
    """Three steps of each stage, in `folder`."""
    settings = {
        "name": "micro",
        "runs_dir": str(folder),
        "model": MICRO,
        "vision_stage": VisionStageConfig(steps=3, batch_size=2),
        "joint_stage": JointStageConfig(steps=3, batch_size=2, questions_per_scene=3, evidence_layer=1),
        "num_workers": 0,
        "warmup_steps": 2,
        "log_every_steps": 1,
        "checkpoint_every_steps": 4,
        "val_scenes": 2,
        "val_every_steps": 6,
    }
    return PretrainConfig(**{**settings, **changes})
