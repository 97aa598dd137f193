"""Decoding without the host in the way: one step, compiled as one graph, and on a GPU replayed as one launch.

A decoder of 28 layers is some 400 kernels a token, and the host launches them one by one, which takes longer than
they do. Here a step is a function of tensors whose shapes stay the same (`gp.backbones.one_token`), over buffers that
`gp.engine.static_cache` hands out, so `torch.compile` sees one graph without a break, and CUDA graphs capture it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from threading import Lock
from types import FunctionType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException
from transformers.cache_utils import Cache, DynamicLayer

from gp.backbones import Backbone
from gp.backbones.one_token import OneToken
from gp.engine.prefill import Prefill
from gp.engine.static_cache import BufferPool, Buffers, StaticCache, static_cache

SPARE = 4  # buffers that are kept on a GPU when no call has them, with the graphs that know their addresses
MESSAGE = 300  # characters of what the compiler says; there may be pages
OUTPUTS = ("output_attentions", "output_hidden_states")


class CompiledDecoding:
    """A base's compiled step, for any number of calls and threads; compiled by the first call.

    One graph serves all lengths and all batches of more than one row; a batch of one row, and every way in which
    layers hold different numbers of tokens, has its own. On a GPU each bucket of length is captured once more.

    Args:
        backbone: adapter of the frozen model.
        backend: of `torch.compile`.
    """

    def __init__(self, backbone: Backbone, backend: Any = "inductor") -> None:
        self.device_type = backbone.device.type
        on_gpu = self.device_type == "cuda"
        # 16-bit values are rounded where the stock model rounds them, or ids would differ
        options = {"emulate_precision_casts": True, "triton.cudagraphs": on_gpu} if backend == "inductor" else None
        self._how: dict[str, Any] = {"fullgraph": True, "dynamic": True, "backend": backend, "options": options}
        self._one = OneToken(backbone)
        self._steps: dict[tuple[int, ...], Callable[..., Tensor]] = {}
        self.pool = BufferPool(SPARE if on_gpu else 0)
        self.broken = ""
        self._told: set[str] = set()

    def take(
        self, prefill: Prefill, cache: Cache, copies: int, consume: bool, wanted: dict[str, Any]
    ) -> StaticCache | None:
        """The cache to decode this prefill with; None, with one warning per reason, where it must be the plain way.

        Args:
            prefill: the pruned prompt.
            cache: what `generate` made for it.
            copies: of each row.
            consume: whether the prefill's cache is given away.
            wanted: what else `generate` asks of a step.
        """
        if reason := self.broken or _why_not(prefill, cache, wanted):
            self._tell(reason)
            return None
        positions = prefill.next_position.repeat_interleave(copies)
        with torch.inference_mode(False), torch.no_grad():
            return static_cache(self.pool, prefill.cache, prefill.cache_masks, positions, copies, consume)

    def logits(self, cache: StaticCache, input_ids: Tensor) -> Tensor:
        """Logits behind one more token of each row, [B, 1, vocabulary]."""
        # buffers are ordinary tensors even inside of inference mode, or they could not be used again outside of it
        with torch.inference_mode(False), torch.no_grad():
            buffers = cache.one_more()
            buffers.input_ids.copy_(input_ids)
            torch.compiler.cudagraph_mark_step_begin()
            try:
                if not self.broken:
                    step = self._compiled(buffers.shape.of_layer)
                    return self._run(step, buffers).clone()  # the next replay writes where this one wrote
            except (TorchDynamoException, FailOnRecompileLimitHit) as error:
                said = " ".join(str(error).split())[:MESSAGE]
                self.broken = f"torch.compile failed: {type(error).__name__}: {said}"
                self._tell(self.broken)
            return self._run(_step, buffers)

    def _compiled(self, of_layer: tuple[int, ...]) -> Callable[..., Tensor]:
        """The step for layers that hold different numbers of tokens in this way, or compiled as soon as it runs.

        Each has code of its own, for which torch counts and bounds recompiles.
        """
        if of_layer not in self._steps:
            own = FunctionType(_step.__code__.replace(), _step.__globals__, _step.__name__)
            self._steps.setdefault(of_layer, torch.compile(own, **self._how))
        return self._steps[of_layer]

    def _run(self, step: Callable[..., Tensor], buffers: Buffers) -> Tensor:
        tensors = (buffers.input_ids, buffers.start, buffers.slot, buffers.masks, buffers.keys, buffers.values)
        return step(self._one, *tensors, buffers.shape.of_layer)

    def _tell(self, reason: str) -> None:
        if reason not in self._told:
            self._told.add(reason)
            warnings.warn(f"compile_decode: decoding goes on without it: {reason}", stacklevel=2)


_OF_BASES: WeakKeyDictionary[Backbone, CompiledDecoding] = WeakKeyDictionary()
_LOCK = Lock()


def compiled_decoding(backbone: Backbone) -> CompiledDecoding:
    """The compiled step of a base: made once for each kind of device, and gone with the base's adapter."""
    with _LOCK:
        found = _OF_BASES.get(backbone)
        if found is None or found.device_type != backbone.device.type:
            found = _OF_BASES[backbone] = CompiledDecoding(backbone)
        return found


def _step(one: OneToken, *tensors: Any) -> Tensor:
    return one.logits(*tensors)


def _why_not(prefill: Prefill, cache: Cache, wanted: dict[str, Any]) -> str:
    """Why a request cannot be captured; "" if it can."""
    if asked := [name for name in OUTPUTS if wanted.get(name)]:
        return f"{asked[0]} is asked for"
    if len({layer.keys.device for layer in prefill.cache.layers}) > 1:
        return "the base computes on several devices"
    if cache.offloading or any(type(layer) is not DynamicLayer for layer in cache.layers):
        return "cache_implementation asks for another cache"
    return ""
