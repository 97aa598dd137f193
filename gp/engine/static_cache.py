"""A pruned cache with room for new tokens, in buckets of length, so that decoding meets few shapes and no new address.

New tokens stand before the prompt: attention does not ask in which order keys lie (rotary positions are in them), and
so a new token's slot is the same in every layer, however many tokens a layer holds of the prompt.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import Cache

from gp.backbones import LayerMasks

ROOM = 64  # slots for new tokens at first; twice as many whenever they are full
FINEST = 64  # tokens between two buckets; a multiple of what the kernels want masks aligned to
PER_OCTAVE = 8  # buckets between a length and its double, where that is coarser


def bucket(length: int) -> int:
    """The least length that there are buffers for, from `length` on: at most an eighth more, or `FINEST` - 1."""
    octave = max(length - 1, 1).bit_length() - 1
    step = max(FINEST, 2**octave // PER_OCTAVE)
    return -(-length // step) * step


@dataclass(frozen=True)
class Shape:
    """What tells one set of buffers from another.

    Args:
        batch: B, rows.
        room: slots for new tokens.
        prompts: slots for the prompt, of each distinct mask.
        of_layer: each layer's place among the masks.
        heads: H_kv of each layer.
        sizes: d of keys and of values, of each layer.
    """

    batch: int
    room: int
    prompts: tuple[int, ...]
    of_layer: tuple[int, ...]
    heads: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]


class Buffers:
    """All tensors of one call that a step reads and writes: always the same ones, at the same place in memory.

    Attributes:
        input_ids, start: [B, 1] int64, the new tokens, and the rotary position of each row's first one.
        slot: [1] int64, new tokens so far.
        masks: [B, 1, 1, room + prompt_k] each, to be added to attention's logits.
        keys, values: of each layer, [B, H_kv, room + prompt_k, d].
    """

    def __init__(self, shape: Shape, device: torch.device, dtype: torch.dtype) -> None:
        self.shape, batch = shape, shape.batch
        lengths = [shape.room + length for length in shape.prompts]
        facts = list(zip(shape.of_layer, shape.heads, shape.sizes, strict=True))
        self.input_ids, self.start = (torch.zeros(batch, 1, dtype=torch.long, device=device) for _ in range(2))
        self.slot = torch.zeros(1, dtype=torch.long, device=device)
        self.masks = [torch.empty(batch, 1, 1, length, dtype=dtype, device=device) for length in lengths]
        self.keys, self.values = (
            [torch.empty(batch, heads, lengths[k], size[which], dtype=dtype, device=device) for k, heads, size in facts]
            for which in (0, 1)
        )
        for tensor in (self.input_ids, self.start, self.slot, *self.masks, *self.keys, *self.values):
            torch._dynamo.mark_static_address(tensor, guard=False)  # captured graphs write where they first wrote
        self.clear()

    @property
    def dtype(self) -> torch.dtype:
        """Of keys, values and masks."""
        return self.keys[0].dtype

    def fits(self, shape: Shape, device: torch.device, dtype: torch.dtype) -> bool:
        """Tells if they are of this shape, place and type."""
        return self.shape == shape and self.slot.device == device and self.dtype == dtype

    def clear(self) -> None:
        """Forgets a call. Slots that nothing is in are multiplied with a weight of 0, so they must hold numbers."""
        self.slot.zero_()
        for mask in self.masks:
            mask.fill_(-torch.inf)
        for states in (*self.keys, *self.values):
            states.zero_()

    def put_prompt(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Keys and values [B, H_kv, R, d] of the prompt in one layer."""
        room, end = self.shape.room, self.shape.room + keys.shape[2]
        self.keys[layer][:, :, room:end].copy_(keys)
        self.values[layer][:, :, room:end].copy_(values)

    def show_prompt(self, masks: Sequence[Tensor]) -> None:
        """Distinct masks of the prompt, [B, R_k] bool."""
        for mask, seen in zip(self.masks, masks, strict=True):
            shown = mask[:, 0, 0, self.shape.room : self.shape.room + seen.shape[1]]
            shown.masked_fill_(seen, 0.0)

    def take_over(self, old: Buffers) -> None:
        """Everything of smaller buffers that have no room left."""
        self.start.copy_(old.start)
        self.slot.copy_(old.slot)
        for new, states in zip(self.masks, old.masks, strict=True):
            self._move(new, states, 3, old.shape.room)
        for new, states in zip((*self.keys, *self.values), (*old.keys, *old.values), strict=True):
            self._move(new, states, 2, old.shape.room)

    def _move(self, new: Tensor, old: Tensor, axis: int, old_room: int) -> None:
        prompt = old.shape[axis] - old_room
        new.narrow(axis, 0, old_room).copy_(old.narrow(axis, 0, old_room))
        new.narrow(axis, self.shape.room, prompt).copy_(old.narrow(axis, old_room, prompt))

    def reorder(self, rows: Tensor) -> None:
        """Rows of beams that go on: those of one prompt, whose masks and positions are the same."""
        for states in (*self.keys, *self.values):
            states.copy_(states.index_select(0, rows))


class BufferPool:
    """Buffers that calls take and give back, so that a captured graph meets the addresses that it knows.

    Args:
        spare: how many to keep that no call has; the ones that were used longest ago go first.
    """

    def __init__(self, spare: int) -> None:
        self._spare, self._free, self._lock = spare, deque[Buffers](), Lock()

    def take(self, shape: Shape, device: torch.device, dtype: torch.dtype) -> Buffers:
        """Empty buffers that are nobody else's."""
        with self._lock:
            found = next((free for free in reversed(self._free) if free.fits(shape, device, dtype)), None)
            if found is not None:
                self._free.remove(found)
        if found is None:
            return Buffers(shape, device, dtype)
        found.clear()
        return found

    def give_back(self, buffers: Buffers) -> None:
        """Call when nobody reads them any more."""
        with self._lock:
            self._free.append(buffers)
            while len(self._free) > self._spare:
                self._free.popleft()


class StaticCache(Cache):
    """The cache that `generate` carries from token to token: buffers, and how far they are filled.

    Args:
        buffers: with the prompt in them.
        length: longest prompt that is in them.
        pool: where they came from.
    """

    is_croppable = False

    def __init__(self, buffers: Buffers, length: int, pool: BufferPool) -> None:
        super().__init__(layers=[])
        self.buffers, self.num_new, self._length, self._pool = buffers, 0, length, pool

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self._length + self.num_new

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.buffers.reorder(beam_idx)

    def one_more(self) -> Buffers:
        """The buffers, with room for one more token; call once for each."""
        old = self.buffers
        if self.num_new == old.shape.room:
            self.buffers = self._pool.take(replace(old.shape, room=2 * old.shape.room), old.slot.device, old.dtype)
            self.buffers.take_over(old)
            self._pool.give_back(old)
        self.num_new += 1
        return self.buffers

    def release(self) -> None:
        """Gives the buffers away: the call is over."""
        self._pool.give_back(self.buffers)


def static_cache(
    pool: BufferPool, source: DynamicCache, masks: LayerMasks, positions: Tensor, copies: int, consume: bool
) -> StaticCache:
    """Copies a pruned cache into buffers, each row `copies` times.

    Args:
        pool: of buffers.
        source: the pruned cache.
        masks: of its layers.
        positions: [B * copies] int64, of the first new token.
        copies: of each row.
        consume: the source loses each layer as it is copied.
    """
    layers = source.layers if consume else list(source.layers)
    shape = _shape(layers, masks, copies)
    buffers = pool.take(shape, layers[0].keys.device, layers[0].keys.dtype)
    buffers.start.copy_(positions.unsqueeze(1))
    buffers.show_prompt([mask.repeat_interleave(copies, 0) for mask in masks.distinct])
    for index in range(len(layers)):
        layer: Any = layers.pop(0)
        buffers.put_prompt(index, *(states.repeat_interleave(copies, 0) for states in (layer.keys, layer.values)))
    return StaticCache(buffers, max(mask.shape[1] for mask in masks.distinct), pool)


def _shape(layers: Sequence[Any], masks: LayerMasks, copies: int) -> Shape:
    return Shape(
        batch=layers[0].keys.shape[0] * copies,
        room=ROOM,
        prompts=tuple(bucket(mask.shape[1]) for mask in masks.distinct),
        of_layer=tuple(masks.of_layer),
        heads=tuple(layer.keys.shape[1] for layer in layers),
        sizes=tuple((layer.keys.shape[3], layer.values.shape[3]) for layer in layers),
    )
