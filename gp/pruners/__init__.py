"""Pruning methods, one per file. A new one is a file here and an entry in `BASELINES`."""

from collections.abc import Mapping
from typing import Any

from gp.backbones import Backbone
from gp.pruners.attention_dpp import AttentionDPP
from gp.pruners.base import BEFORE_FIRST_LAYER, Pruner, PruneView, RankingPruner
from gp.pruners.cdpruner import CDPruner
from gp.pruners.divprune import DivPrune
from gp.pruners.downsample import Downsample
from gp.pruners.fastv import FastV
from gp.pruners.glimpse import GlimpsePruner
from gp.pruners.none import NoPruner
from gp.pruners.oracle import OraclePruner
from gp.pruners.pyramid_drop import PyramidDrop
from gp.pruners.random import RandomPruner
from gp.pruners.visionzip import VisionZip
from gp.pruners.vscan import VScan

BASELINES: dict[str, type[Pruner]] = {
    method.name: method
    for method in (
        NoPruner,
        FastV,
        PyramidDrop,
        VisionZip,
        DivPrune,
        CDPruner,
        VScan,
        AttentionDPP,
        Downsample,
        RandomPruner,
        OraclePruner,
    )
}
METHODS: dict[str, type[Pruner]] = {GlimpsePruner.name: GlimpsePruner, **BASELINES}  # in the order of the tables


def make_baseline(
    name: str, backbone: Backbone, prune_layer: int = BEFORE_FIRST_LAYER, settings: Mapping[str, Any] | None = None
) -> Pruner:
    """A method that needs no training, by name.

    Args:
        name: key of `BASELINES`.
        backbone: of the base.
        prune_layer: where methods that drop at one free choice of layer do so.
        settings: of the method, e.g. `{"layer": 2}` for `fastv`; what is not given is as published.

    Raises:
        ValueError: no such method or setting.
    """
    return find_baseline(name, settings or {}).for_model(backbone, prune_layer, **(settings or {}))


def find_baseline(name: str, settings: Mapping[str, Any]) -> type[Pruner]:
    """The class of a method that needs no training; ValueError if it does not exist or does not take a setting."""
    if name not in BASELINES:
        raise ValueError(f"no pruner {name!r}; there is {', '.join(sorted(METHODS))}")
    known = BASELINES[name].settings()
    if unknown := [key for key in settings if key not in known]:
        raise ValueError(f"pruner {name!r} has no setting {unknown[0]!r}; it has {', '.join(known) or 'none'}")
    return BASELINES[name]


__all__ = [
    "BASELINES",
    "BEFORE_FIRST_LAYER",
    "METHODS",
    "GlimpsePruner",
    "NoPruner",
    "OraclePruner",
    "PruneView",
    "Pruner",
    "RandomPruner",
    "RankingPruner",
    "find_baseline",
    "make_baseline",
]
