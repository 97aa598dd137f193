"""Pruning methods, one a file. A new one is a file here and an entry in `BASELINES`."""

from gp.pruners.base import BEFORE_FIRST_LAYER, Pruner, PruneView
from gp.pruners.glimpse import GlimpsePruner
from gp.pruners.none import NoPruner
from gp.pruners.oracle import OraclePruner
from gp.pruners.random import RandomPruner

BASELINES: dict[str, type[Pruner]] = {p.name: p for p in (NoPruner, RandomPruner, OraclePruner)}


def make_baseline(name: str, prune_layer: int) -> Pruner:
    """A method that needs no training, by name.

    Args:
        name: key of `BASELINES`.
        prune_layer: where methods that drop at one free choice of layer do so.

    Raises:
        ValueError: no such method.
    """
    if name not in BASELINES:
        raise ValueError(f"no pruner {name!r}; there is {', '.join(sorted([*BASELINES, GlimpsePruner.name]))}")
    return BASELINES[name]() if BASELINES[name] is NoPruner else BASELINES[name](prune_layer)


__all__ = [
    "BASELINES",
    "BEFORE_FIRST_LAYER",
    "GlimpsePruner",
    "NoPruner",
    "OraclePruner",
    "PruneView",
    "Pruner",
    "RandomPruner",
    "make_baseline",
]
