"""The base's sizes, for methods that ask for them: gp's adapter around a stock model without weights."""

from __future__ import annotations

from functools import cache
from typing import Any

from gp.backbones import Backbone, backbone_of, find_family
from gp.pruners import Pruner, make_baseline


@cache
def outline(place: str, revision: str | None) -> Backbone:
    """The adapter of a base whose weights vLLM holds; only json files are read."""
    family, source = find_family(place, revision)
    return backbone_of(family.outline(source))


def outline_of(model_config: Any) -> Backbone:
    """The same from vLLM's `ModelConfig`."""
    return outline(str(model_config.model), model_config.revision)


@cache
def method(name: str, backbone: Backbone) -> Pruner:
    """A method that drops its tokens before the first layer; it holds no state of a request."""
    return make_baseline(name, backbone)
