"""What is on the host and what is not: the small tensors that describe a batch, and the devices of a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def on_host(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The processor's output with ids, masks and grids on the host; pixels stay where they are.

    What they decide never waits for the device then. Usually everything is there already. What is not comes over in one
    copy, the only time that the host waits. Entries that are None are left out.
    """
    inputs = {key: value for key, value in inputs.items() if value is not None}
    away = [key for key, value in inputs.items() if value.device.type != "cpu" and not value.is_floating_point()]
    if not away:
        return inputs
    return {**inputs, **dict(zip(away, copy_together([inputs[key] for key in away])))}


def copy_together(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copies of integer or bool tensors of one device on the host, by one transfer."""
    flat = torch.cat([tensor.flatten().long() for tensor in tensors]).cpu()
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape).to(tensor.dtype) for part, tensor in zip(parts, tensors)]


def execution_devices(model: nn.Module) -> Iterator[torch.device]:
    """The device on which each part with weights computes; where accelerate offloads weights, its hook knows."""
    for module in model.modules():
        weight = next(module.parameters(recurse=False), None)
        if weight is not None:
            where = hooked_device(module) if weight.is_meta else None
            yield weight.device if where is None else where


def is_placed(model: nn.Module) -> bool:
    """Whether accelerate has placed a model's parts by a device map, so that nobody else may move them."""
    return "_hf_hook" in model.__dict__


def tensors_of(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of a model's state, those that accelerate has offloaded read from where they are."""
    for name, tensor in model.state_dict().items():
        if tensor.is_meta:
            path, _, own = name.rpartition(".")
            hook: Any = model.get_submodule(path)._hf_hook
            tensor = hook.weights_map[own]
        yield name, tensor


@contextmanager
def fetched(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Brings offloaded weights to where modules compute, for code that reads them without calling the modules."""
    hooked: list[tuple[Any, nn.Module]] = [(hook, one) for one in modules if (hook := one.__dict__.get("_hf_hook"))]
    for hook, module in hooked:
        hook.pre_forward(module)
    try:
        yield
    finally:
        for hook, module in hooked:
            hook.post_forward(module, None)


def hooked_device(module: nn.Module) -> torch.device | None:
    """Where accelerate lets a module compute; None without its hook: where the module's weights are."""
    hook = module.__dict__.get("_hf_hook")
    where = getattr(hook, "execution_device", None)
    if where is None:
        return None
    return torch.device("cuda", where) if isinstance(where, int) else torch.device(where)
