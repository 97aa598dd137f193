"""Methods by name: those of the package, those that other packages bring, and any class that can be imported."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import EntryPoint
from typing import Any

from gp.backbones import Backbone
from gp.config.fitting import nearest
from gp.plugins import brought, load_class
from gp.pruners.attention_dpp import AttentionDPP
from gp.pruners.base import BEFORE_FIRST_LAYER, Pruner
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
from gp.pruners.zoom import Zoom

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
# in the order of the tables
METHODS: dict[str, type[Pruner]] = {GlimpsePruner.name: GlimpsePruner, Zoom.name: Zoom, **BASELINES}
GROUP = "gp.pruners"  # of entry points: `name = package.module:Class`
ZOOM_OF = re.compile(rf"{Zoom.name}\((.+)\)")  # zoom(fastv)


def find_class(name: str) -> type[Pruner]:
    """The class of a method.

    Args:
        name: of a method of the package, of an entry point in the group `gp.pruners`, or `package.module:Class`.

    Raises:
        TypeError: something else than a name.
        ValueError: no such method, or one that cannot be imported; names it, and the reason.
    """
    if not isinstance(name, str):
        raise TypeError(
            f"pruner must be a method's name or a Pruner, one for the whole batch; got {type(name).__name__} {name!r}"
        )
    if name in METHODS:
        return METHODS[name]
    if name in BASELINES:
        return BASELINES[name]
    if looks := ZOOM_OF.fullmatch(name):
        find_class(looks[1])
        return Zoom
    if name in _brought():
        return load_class("pruner", name, Pruner, _brought()[name])
    if ":" in name:
        return load_class("pruner", name, Pruner)
    known = method_names()
    raise ValueError(
        f"no pruner {name!r}; the nearest known one is {nearest(name, known)!r}; there is {', '.join(sorted(known))}, "
        "and package.module:Class for a class of your own"
    )


def method_names() -> list[str]:
    """All names that need no colon."""
    return [*METHODS, *(name for name in BASELINES if name not in METHODS), *_brought()]


def check_settings(name: str, settings: Mapping[str, Any]) -> type[Pruner]:
    """The class of a method; ValueError if it does not exist or does not take a setting."""
    method = find_class(name)
    known = method.settings()
    if unknown := [key for key in settings if key not in known]:
        raise ValueError(f"pruner {name!r} has no setting {unknown[0]!r}; it has {', '.join(known) or 'none'}")
    return method


def split_zoom(name: str, settings: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The method that looks for `zoom` (`zoom(fastv)`, or the setting `of`, or the glimpse), and zoom's own settings.

    Raises:
        ValueError: a setting that `zoom` does not have.
    """
    check_settings(Zoom.name, settings)
    named, own = ZOOM_OF.fullmatch(name), dict(settings)
    looks = own.pop("of", GlimpsePruner.name)
    return (named[1] if named else looks), own


def make_baseline(
    name: str, backbone: Backbone, prune_layer: int = BEFORE_FIRST_LAYER, settings: Mapping[str, Any] | None = None
) -> Pruner:
    """A method that needs no training, by name.

    Args:
        name: see `find_class`.
        backbone: of the base.
        prune_layer: where methods that drop at one free choice of layer do so.
        settings: of the method, e.g. `{"layer": 2}` for `fastv`; what is not given is as published.

    Raises:
        ValueError: no such method or setting.
    """
    return check_settings(name, settings or {}).for_model(backbone, prune_layer, **(settings or {}))


def _brought() -> dict[str, EntryPoint]:
    """Methods of other packages; a name of the package's own is not taken over."""
    return {name: point for name, point in brought(GROUP).items() if name not in METHODS}
