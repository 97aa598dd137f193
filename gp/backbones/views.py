"""The same modules with another attention kernel, or with some parts replaced: a view that shares everything else.

The base belongs to its user: neither its config nor its modules may change, not even for the time of a call, in which
another thread may ask the base. A view has modules of its own that share everything with the base's (weights, buffers,
hooks) but what it is made for. It takes a few microseconds per module to make.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from functools import partial, update_wrapper
from types import MethodType
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
    return _view(module, {}, config, other)


def view_with_parts(module: M, parts: Mapping[nn.Module, nn.Module]) -> M:
    """The module, seen with other parts: each key, wherever it is in the module, is replaced by its value."""
    return _view(module, parts, None, None) if parts else module


def _view(module: Any, parts: Mapping[nn.Module, nn.Module], config: Any, other: Any) -> Any:
    """Copies the modules that hold a config or a part, and those that they are in; the rest is shared."""
    if module in parts:
        return parts[module]
    children = module._modules
    holds = config is not None and module.__dict__.get("config") is config
    inside = {name: part and _view(part, parts, config, other) for name, part in children.items()} if children else {}
    if not holds and all(part is children[name] for name, part in inside.items()):
        return module
    return twin(module, _modules=inside, **({"config": other} if holds else {}))


def twin(module: Any, **changes: Any) -> Any:
    """A module that shares all attributes of another one but those that are given.

    accelerate's hook replaces a module's `forward` by one that calls this very module; a twin's calls the twin.
    """
    made = object.__new__(type(module))
    made.__dict__ = {**module.__dict__, **changes}
    forward, old = made.__dict__.get("forward"), made.__dict__.get("_old_forward")
    if isinstance(forward, partial) and isinstance(old, MethodType):
        made.__dict__["_old_forward"] = MethodType(old.__func__, made)
        made.__dict__["forward"] = update_wrapper(partial(forward.func, made), made.__dict__["_old_forward"])
    return made
