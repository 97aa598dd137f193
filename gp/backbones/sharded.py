"""A frozen base in shards over several processes (FSDP2): each part is gathered when it is called, and freed behind it.

The engine calls layers, embeddings and head by themselves, never the whole model, so each of them is sharded by itself.
Where it calls a projection or a norm of a layer alone (to read attention), that part's weights are gathered for the
call. A gathering takes all processes: they must call the same parts in the same order (`gp.training.in_step`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from gp.backbones.fingerprint import keep_fingerprint


def shard(model: nn.Module, mesh: Any) -> None:
    """Cuts all weights of a frozen stock model into shards, once; each lies on its process' device then.

    Args:
        model: whole, with weights, the same on all processes; best on the CPU, from which parts move one by one.
        mesh: a `DeviceMesh` of one dimension over all processes.

    Raises:
        ValueError: weights that require gradients.
    """
    from torch.distributed.fsdp import FSDPModule, fully_shard

    if learning := [name for name, weight in model.named_parameters() if weight.requires_grad]:
        raise ValueError(f"only a frozen base is sharded, but {learning[0]} requires gradients")
    keep_fingerprint(model)
    for unit in list(units(model)):
        if not isinstance(unit, FSDPModule):
            fully_shard(unit, mesh=mesh, reshard_after_forward=True)
    if mesh.device_type == "cuda":
        move_buffers(model, torch.device("cuda", torch.cuda.current_device()))


def move_buffers(model: nn.Module, device: torch.device) -> None:
    """Buffers are small: each process has all of them on its device."""
    for module in model.modules():
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else buffer.to(device)


def units(module: nn.Module) -> Iterator[nn.Module]:
    """The parts that are sharded: entries of lists (decoder layers, vision blocks), and whatever else has weights."""
    for child in module.children():
        in_list = isinstance(module, nn.ModuleList)
        if in_list or next(child.parameters(recurse=False), None) is not None:
            if next(child.parameters(), None) is not None:
                yield child
        else:
            yield from units(child)


def is_sharded(model: Any) -> bool:
    """Whether a model's embeddings, and with them all, lie in shards."""
    return hasattr(model.get_input_embeddings().weight, "full_tensor")


def run_part(part: nn.Module, hidden: Tensor) -> Tensor:
    """Calls a projection or norm of a layer outside of that layer's call; gathers its weights if they are sharded."""
    sharded: dict[str, Any] = {k: weight for k, weight in part._parameters.items() if hasattr(weight, "full_tensor")}
    if not sharded:
        return part(hidden)
    whole = {name: weight.full_tensor() for name, weight in sharded.items()}
    return functional_call(part, whole, (hidden,))
