"""Pretend devices: real numbers on the CPU that must not be mixed, as CUDA's must not.

Every storage is on the host, or on the pretend device `cuda:k` that it was made on or moved to. Within the context each
call of torch is checked as CUDA checks it: all tensors on one device, but for numbers (0-dim) and indices of the host.
`tensor.device` answers with the pretend device, and so does everything that asks it (accelerate's hooks, transformers).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from accelerate import dispatch_model
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._pytree import tree_flatten, tree_map_only
from torch.utils.checkpoint import checkpoint

HOST = torch.device("cpu")
MOVES = {Tensor.to, Tensor.cpu, Tensor.cuda, torch.as_tensor, torch.asarray}
# address of a storage, which the reference reserves -> where it pretends to be
PLACES: dict[int, tuple[StorageWeakRef, torch.device]] = {}
CROSSING = {Tensor.copy_, Tensor.data.__set__, torch._has_compatible_shallow_copy_type}  # between devices
INDEXED = {Tensor.__getitem__, Tensor.__setitem__, Tensor.index_put, Tensor.index_put_}


class PretendDevices(TorchFunctionMode):
    """Checks and tags what torch is called with while the context is entered; see `spread`."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func == Tensor.device.__get__:
            return device_of(args[0])
        if func == Tensor.is_cuda.__get__:
            return device_of(args[0]).type == "cuda"
        if func in MOVES:
            return self._move(func, args, kwargs)
        if func in CROSSING:
            return func(*args, **kwargs)
        where = common(func, args, kwargs)
        if isinstance(given := kwargs.get("device"), (str, int, torch.device)):
            where = kwargs["device"] = named(given)
            kwargs["device"] = HOST if where.type == "cuda" else where
        out = func(*args, **kwargs)
        tree_map_only(Tensor, lambda tensor: put(tensor, where, unless_there=True), out)
        return out

    def _move(self, func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        """A copy on another device, as a call that asks for it makes it; gradients go through it."""
        tensor, rest = args[0], list(args[1:])
        where = HOST if func is Tensor.cpu or not isinstance(tensor, Tensor) else device_of(tensor)
        for place, value in enumerate(rest):
            if isinstance(value, (str, int, torch.device)) and not isinstance(value, bool):
                where, rest[place] = named(value), HOST
            elif isinstance(value, Tensor):
                where = device_of(value)
        if kwargs.get("device") is not None:
            where, kwargs["device"] = named(kwargs["device"]), HOST
        if where.type == "meta":
            return func(*args, **{**kwargs, **({"device": where} if "device" in kwargs else {})})
        out = func(tensor, *rest, **kwargs)
        if isinstance(tensor, Tensor) and where != device_of(tensor) and shares(out, tensor):
            out = out.clone()
        put(out, where)
        return out


def checkpoint_in_mode(function: Any, *args: Any, **kwargs: Any) -> Any:
    """torch's checkpoint; autograd leaves every mode, so what runs again enters this one again."""
    mode = torch.overrides._get_current_function_mode()

    def run(*inputs: Any) -> Any:
        again = mode is not None and torch.overrides._get_current_function_mode() is None
        with mode if again else nullcontext():
            return function(*inputs)

    return checkpoint(run, *args, **kwargs)


def common(func: Any, args: tuple, kwargs: Mapping[str, Any]) -> torch.device:
    """The one device of all tensors of a call; RuntimeError, as CUDA's, where there are several."""
    if func in INDEXED:
        indices, _ = tree_flatten(args[1])
        own = device_of(args[0])
        given = [one for one in indices if isinstance(one, Tensor)]
        if any(device_of(one) not in (own, HOST) for one in given):
            raise mixed(func, [args[0], *given])
        args = (args[0], *args[2:])
    tensors = [one for one in tree_flatten((args, kwargs))[0] if isinstance(one, Tensor)]
    places = {device_of(one) for one in tensors if one.dim() or device_of(one) != HOST}
    if len(places) > 1:
        raise mixed(func, tensors)
    return places.pop() if places else HOST


def mixed(func: Any, tensors: list[Tensor]) -> RuntimeError:
    name = resolve_name(func) or getattr(func, "__name__", repr(func))
    found = ", ".join(f"{list(one.shape)} on {device_of(one)}" for one in tensors)
    return RuntimeError(f"Expected all tensors to be on the same device, but {name} got {found}")


def device_of(tensor: Tensor) -> torch.device:
    """Where a tensor pretends to be."""
    with torch._C.DisableTorchFunction():
        if tensor.is_meta:
            return tensor.device
        found = PLACES.get(tensor.untyped_storage()._cdata)
        return HOST if found is None else found[1]


def put(tensor: Tensor, where: torch.device, unless_there: bool = False) -> None:
    """Lets a tensor pretend to be somewhere; `unless_there`: unless its memory is somewhere already."""
    with torch._C.DisableTorchFunction():
        if tensor.is_meta:
            return
        storage = tensor.untyped_storage()
        if not (unless_there and storage._cdata in PLACES):
            PLACES[storage._cdata] = (StorageWeakRef(storage), where)


def shares(one: Tensor, other: Tensor) -> bool:
    """Whether they share memory."""
    with torch._C.DisableTorchFunction():
        return one.untyped_storage()._cdata == other.untyped_storage()._cdata


def named(device: Any) -> torch.device:
    """cuda alone is cuda:0, and so is a number."""
    device = torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    return torch.device("cuda", 0) if device == torch.device("cuda") else device


@contextmanager
def spread(model: nn.Module, device_map: Mapping[str, Any]) -> Iterator[nn.Module]:
    """The model, dispatched by accelerate as `from_pretrained(device_map=...)` does it, on pretend devices.

    Args:
        model: stock, with weights of its own.
        device_map: module's name -> number of its device, or "cpu": offloaded.
    """
    with PretendDevices():
        for name, where in device_map.items():
            if where == "cpu":
                continue
            module = model.get_submodule(name)
            for tensor in (*module.parameters(), *module.buffers()):
                put(tensor, torch.device("cuda", where))
        skip = getattr(model, "_skip_keys_device_placement", None)
        places = {name: where if where == "cpu" else f"cuda:{where}" for name, where in device_map.items()}
        yield dispatch_model(model, places, skip_keys=skip)


def smallest_parts(model: nn.Module) -> list[str]:
    """Names of the smallest modules that accelerate places as one: layers, and what is outside of them."""
    whole = set(getattr(model, "_no_split_modules", None) or ())
    found: list[str] = []

    def walk(module: nn.Module, name: str) -> None:
        children = list(module.named_children())
        own = next(module.parameters(recurse=False), None) is not None
        if not children or own or type(module).__name__ in whole:
            found.append(name)
            return
        for child, part in children:
            walk(part, f"{name}.{child}" if name else child)

    walk(model, "")
    return found
