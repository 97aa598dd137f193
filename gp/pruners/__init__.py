"""Pruning methods, one per file. A new one is a file here and an entry in `registry`."""

from gp.pruners.base import BEFORE_FIRST_LAYER, Pruner, PruneView, RankingPruner
from gp.pruners.glimpse import HIDDEN, GlimpsePruner
from gp.pruners.none import NoPruner
from gp.pruners.oracle import OraclePruner
from gp.pruners.random import RandomPruner
from gp.pruners.registry import (
    BASELINES,
    METHODS,
    ZOOM_OF,
    check_settings,
    find_class,
    make_baseline,
    method_names,
    split_zoom,
)
from gp.pruners.zoom import Zoom

__all__ = [
    "BASELINES",
    "BEFORE_FIRST_LAYER",
    "HIDDEN",
    "METHODS",
    "ZOOM_OF",
    "GlimpsePruner",
    "NoPruner",
    "OraclePruner",
    "PruneView",
    "Pruner",
    "RandomPruner",
    "RankingPruner",
    "Zoom",
    "check_settings",
    "find_class",
    "make_baseline",
    "method_names",
    "split_zoom",
]
