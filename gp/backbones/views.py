"""The same modules with another attention kernel: a view that shares everything with them but their config.

The base belongs to its user: its config says which kernel its own calls take, so it must not change, not even for the
time of a call, in which another thread may ask the base. A view has modules of its own that share everything with
the base's (weights, buffers, hooks) but that config. It takes a few microseconds per module to make.
"""

from __future__ import annotations

from copy import copy
from typing import Any, TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)


def view_with_kernel(module: M, config: Any, kernel: str) -> M:
    """The module, seen with another attention kernel.

    Args:
        module: a tower, a decoder, or a model that has them.
        config: of the parts whose kernel is another one; the very object that they hold.
        kernel: a name of transformers' `AttentionInterface`.
    """
    other = copy(config)
    other._attn_implementation = kernel
    return _view(module, config, other)


def _view(module: Any, config: Any, other: Any) -> Any:
    """Copies the modules that hold a config, and those that they are in; the rest is shared."""
    children, holds = module._modules, module.__dict__.get("config") is config
    parts = {name: part and _view(part, config, other) for name, part in children.items()} if children else {}
    if not holds and all(part is children[name] for name, part in parts.items()):
        return module
    view = object.__new__(type(module))
    view.__dict__ = {**module.__dict__, "_modules": parts, **({"config": other} if holds else {})}
    return view
