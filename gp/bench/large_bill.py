"""Ways of a base that is larger than a card: how many cards of which size each way needs; computed, nothing is run.

The bill of one step (`gp.bench.bill`, way `prefix`) with the frozen weights in another type, or on several cards:

- one card, weights in 16 bits, or quantized (layers and tower; embeddings and head stay as they are);
- `device_map`: the weights dealt out part by part, one card after another, so that each may hold a part more than its
  share; everything else counts on every card, although only the cache is where its layers are;
- `fsdp2`: 1/n of the weights on each of n cards, and two of the largest part: gathered, and on its way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from gp.backbones.sharded import units
from gp.bench.bill import WAYS, Bill, bill_of
from gp.bench.presets import Preset, random_model

MAX_CARDS = 16
BITS = {  # bytes of a quantized weight, scales included
    "int8": 1.0,  # a scale per row is below 0.1 %
    "int4": 0.5 + (2 + 2) / 128,  # bfloat16 scale and zero of each group of 128
    "nf4": 0.5 + (1 + 4 / 256) / 64,  # 8-bit scale of each block of 64, and float32 of each 256 of these
}


@dataclass(frozen=True)
class Parts:
    """Parameters of a base, by how they are stored.

    Args:
        linear: of linear layers that are quantized.
        other: of everything else.
        largest: of the largest part that is moved or gathered as one.
        largest_linear: of these, those that are quantized.
    """

    linear: int
    other: int
    largest: int
    largest_linear: int

    @classmethod
    def of(cls, base: Any) -> Parts:
        head = base.get_output_embeddings()
        every = sum(weight.numel() for weight in base.parameters())
        linear = _linear(base, head)
        largest = max(units(base), key=lambda unit: sum(weight.numel() for weight in unit.parameters()))
        size = sum(weight.numel() for weight in largest.parameters())
        return cls(linear, every - linear, size, _linear(largest, head))

    def stored(self, kind: str | None, itemsize: int) -> tuple[float, float]:
        """Bytes of all weights, and of the largest part."""
        linear = itemsize if kind is None else BITS[kind]
        small = self.largest - self.largest_linear
        return self.linear * linear + self.other * itemsize, self.largest_linear * linear + small * itemsize


def _linear(module: nn.Module, head: nn.Module) -> int:
    found = [m for m in module.modules() if isinstance(m, nn.Linear) and m is not head]
    return sum(one.weight.numel() for one in found)


@dataclass(frozen=True)
class Way:
    """One way of a large base.

    Args:
        name: as the table shows it.
        quantization: as of `model.quantization`.
        spread: `device_map` or `fsdp2`; None: one card.
    """

    name: str
    quantization: str | None
    spread: str | None


LARGE_WAYS = (
    Way("one card", None, None),
    *(Way(f"one card, {kind}", kind, None) for kind in BITS),
    Way("device_map", None, "device_map"),
    *(Way(f"device_map, {kind}", kind, "device_map") for kind in BITS),
    Way("fsdp2", None, "fsdp2"),
)


def card_bytes(way: Way, parts: Parts, bill: Bill, itemsize: int, cards: int) -> float:
    """Bytes of the fullest of so many cards."""
    weights, largest = parts.stored(way.quantization, itemsize)
    rest = bill.total_bytes - bill.standing["frozen weights"]
    if way.spread is None or cards == 1:
        return weights + rest
    return weights / cards + (2 * largest if way.spread == "fsdp2" else largest) + rest


def cards_needed(
    preset: Preset, itemsize: int, attn: str, card_sizes: Mapping[int, int]
) -> dict[str, dict[int, int | None]]:
    """Way -> size of a card in GB -> the least number of them; None: more than `MAX_CARDS`, or than one.

    Args:
        preset: model and batch.
        itemsize: bytes of a weight that is not quantized.
        attn: attention kernel.
        card_sizes: size in GB -> bytes of it that a step may take.
    """
    parts = Parts.of(random_model(preset, "meta").base)
    bill = bill_of(preset, itemsize, attn, WAYS[0])

    def least(way: Way, room: int) -> int | None:
        counts = range(1, (MAX_CARDS if way.spread else 1) + 1)
        return next((n for n in counts if card_bytes(way, parts, bill, itemsize, n) <= room), None)

    return {way.name: {size: least(way, room) for size, room in card_sizes.items()} for way in LARGE_WAYS}
