"""Records stock modules during one call: what they return, and what they are called with."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def record_outputs(modules: Sequence[nn.Module], reduce: Callable[[Tensor], Tensor]) -> Iterator[list[Tensor]]:
    """Collects what `reduce` makes of what the modules return, at once, so that only that stays in memory.

    During the block and of this thread's calls only; nothing stays attached.
    """
    owner = threading.get_ident()
    recorded: list = [None] * len(modules)

    def hook(slot: int):
        def keep(module: nn.Module, args: tuple, output: Tensor) -> None:
            if threading.get_ident() == owner:
                recorded[slot] = reduce(output)

        return keep

    with ExitStack() as stack:
        for slot, module in enumerate(modules):
            stack.callback(module.register_forward_hook(hook(slot)).remove)
        yield recorded


@contextmanager
def record_calls(modules: Sequence[nn.Module]) -> Iterator[list[tuple[tuple, dict[str, Any]]]]:
    """Collects the arguments of the modules' calls during the block, this thread's only; nothing stays attached."""
    owner = threading.get_ident()
    recorded: list = [None] * len(modules)

    def hook(slot: int):
        # kwargs may be missing in another thread's call: torch adds and removes a hook and its `with_kwargs` one by one
        def keep(module: nn.Module, args: tuple, kwargs: dict[str, Any] | None = None) -> None:
            if threading.get_ident() == owner:
                recorded[slot] = (args, kwargs)

        return keep

    with ExitStack() as stack:
        for slot, module in enumerate(modules):
            stack.callback(module.register_forward_pre_hook(hook(slot), with_kwargs=True).remove)
        yield recorded
