"""A training step's glimpse and answer tokens as one compiled graph, forward and backward.

Behind the prefix a training step runs a handful of tokens through all layers, twice or three times as many kernels as a
prefill, and none of them large: on a GPU the host launches them more slowly than they run. `torch.compile` makes one
graph of them, without a break. On a GPU it is captured too, once for each bucket of length.
"""

from __future__ import annotations

import warnings
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException
from torch.fx.experimental import _config
from torch.nn.functional import pad
from transformers import DynamicCache

from gp.backbones import Backbone, is_placed
from gp.backbones.few_tokens import FewTokens, Reading
from gp.backbones.sharded import is_sharded
from gp.engine.compiled import MESSAGE
from gp.engine.static_cache import bucket
from gp.engine.suffix import Suffix
from gp.pruners import GlimpsePruner
from gp.types import Prompt

SHAPES: Any = _config  # torch adds its `patch` when it is imported
NEW = 8  # glimpse and answer tokens are padded to a multiple of it in buckets


class CompiledSuffix:
    """A base's compiled suffix, for the batches of one run; compiled by the first one.

    One graph serves all lengths and numbers of rows, and a second one batches of one row.

    Args:
        backbone: adapter of the frozen model.
        backend: of `torch.compile`.
        buckets: whether sequences are padded to buckets of length, so that a captured graph meets few shapes; None: on
            a GPU.
    """

    def __init__(self, backbone: Backbone, backend: Any = "inductor", buckets: bool | None = None) -> None:
        on_gpu = backbone.device.type == "cuda"
        self.buckets = on_gpu if buckets is None else buckets
        options: dict[str, Any] | None = {"triton.cudagraphs": on_gpu} if backend == "inductor" else None
        self._few = FewTokens(backbone)
        # code of its own, for which torch counts and bounds recompiles
        own = FunctionType(_run.__code__.replace(), _run.__globals__, _run.__name__)
        self._compiled: Any = torch.compile(own, fullgraph=True, dynamic=True, backend=backend, options=options)
        self.broken = ""
        if reason := _why_not(backbone):
            self._give_up(reason)

    def run(
        self, suffix: Suffix, pruner: GlimpsePruner, prompt: Prompt, num_layers: int, cache: DynamicCache
    ) -> dict[int, Tensor] | None:
        """What `Suffix.run` does; None, with one warning, where it must be done by that.

        Args:
            suffix: glimpse and answer tokens, not run yet; has run if the result is not None.
            pruner: the trained parts.
            prompt: the prefix.
            num_layers: decoder layers to run.
            cache: the prefix's keys and values.
        """
        layers = [index for index in range(num_layers) if index in pruner.read_layers and index <= pruner.prune_layer]
        reading = Reading(
            attention=tuple(index in layers for index in range(num_layers)),
            state=tuple(pruner.twig is not None and index == pruner.prune_layer for index in range(num_layers)),
            log_softmax=pruner.log_softmax,
        )
        if not self.broken:
            try:
                hidden, states, rows = self._call(reading, suffix, num_layers, cache)
            except (TorchDynamoException, FailOnRecompileLimitHit) as error:
                said = " ".join(str(error).split())[:MESSAGE]
                self._give_up(f"torch.compile failed: {type(error).__name__}: {said}")
            else:
                suffix.hidden, suffix.glimpsed = hidden, states[0] if states else None
                read = [prompt.gather_visual(row.transpose(1, 2), float("-inf")) for row in rows]
                return dict(zip(layers, read, strict=True))
        return None

    def _call(
        self, reading: Reading, suffix: Suffix, num_layers: int, cache: DynamicCache
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        layers: list[Any] = cache.layers[:num_layers]
        keys, values = [layer.keys for layer in layers], [layer.values for layer in layers]
        hidden, visible, positions = suffix.hidden, suffix.attention_mask, suffix.position_ids
        length, count = keys[0].shape[2], hidden.shape[1]
        before = bucket(length) - length if self.buckets else 0
        behind = -count % NEW if self.buckets else 0
        if before or behind:
            keys, values = ([pad(states, (0, 0, before, 0)) for states in part] for part in (keys, values))
            hidden, positions = pad(hidden, (0, 0, 0, behind)), pad(positions, (0, behind))
            visible = pad(visible, (before, behind))
        torch.compiler.cudagraph_mark_step_begin()
        # else sizes that are equal in the first batch (3 rows and 3 rotary axes, say) would have to be so in all
        with SHAPES.patch(use_duck_shape=False):
            hidden, states, rows = self._compiled(
                self._few, reading, hidden, visible, positions, suffix.vectors, keys, values
            )
        return hidden[:, :count], states, [row[..., before:] for row in rows]

    def _give_up(self, reason: str) -> None:
        self.broken = reason
        warnings.warn(f"trainer.compile: training goes on without it: {reason}", stacklevel=2)


def _run(few: FewTokens, *arguments: Any) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    return few.run(*arguments)


def _why_not(backbone: Backbone) -> str:
    """Why a base's layers cannot be one graph; "" if they can."""
    if is_placed(backbone.model):
        return "the base computes on several devices"
    return "the base lies in shards" if is_sharded(backbone.model) else ""
