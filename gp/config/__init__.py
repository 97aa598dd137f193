"""Typed configuration: schema, loading, and the checks that refuse contradictions before any work."""

from gp.config.load import load_config
from gp.config.schema import (
    DataConfig,
    EvalConfig,
    GlimpseConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    PruneConfig,
    TrainConfig,
    TrainerConfig,
    VIPConfig,
)

__all__ = [
    "DataConfig",
    "EvalConfig",
    "GlimpseConfig",
    "LossConfig",
    "ModelConfig",
    "OptimConfig",
    "PruneConfig",
    "TrainConfig",
    "TrainerConfig",
    "VIPConfig",
    "load_config",
]
