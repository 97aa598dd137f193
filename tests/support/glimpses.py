"""Random trained parts for micro models."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from gp.backbones import backbone_of
from gp.config.schema import GlimpseConfig, VIPConfig
from gp.model import GlimpseModel
from gp.pruners import GlimpsePruner
from gp.types import PruneOptions


def micro_configs(prune_layer: int = 1, **changes) -> tuple[GlimpseConfig, VIPConfig]:
    """Configs of a small glimpse; `changes` go to whichever config has the field."""
    glimpse = {"prune_layer": prune_layer}
    vip = {"hidden_size": 16, "cond_size": 16, "num_heads": 2, "taps": [3, 1]}
    for key, value in changes.items():
        (glimpse if key in GlimpseConfig.__dataclass_fields__ else vip)[key] = value
    return GlimpseConfig(**glimpse), VIPConfig(**vip)


def micro_glimpse(
    base: PreTrainedModel, prune_layer: int = 1, seed: int = 0, options: PruneOptions | None = None, **changes
) -> GlimpseModel:
    """A model with random trained parts whose scores are spread around the threshold."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        pruner = GlimpsePruner.build(backbone_of(base), *micro_configs(prune_layer, **changes))
        for head in pruner.vip.heads.values():
            torch.nn.init.normal_(head.weight, std=2.0)
    return GlimpseModel(base, pruner.eval(), options)
