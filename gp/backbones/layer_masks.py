"""The padding masks of a cache whose layers may hold different numbers of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from gp.types import Prompt


@dataclass
class LayerMasks(Sequence):
    """One mask [B, R] per decoder layer; layers that hold the same tokens share theirs.

    Args:
        distinct: [B, R_k] bool each, False on padding (on the left); in the order of the layers.
        of_layer: each layer's place in `distinct`.
        has_padding: whether any mask has a False; the host knows without asking the device.
    """

    distinct: list[Tensor] = field(default_factory=list)
    of_layer: list[int] = field(default_factory=list)
    has_padding: bool = False

    def __len__(self) -> int:
        return len(self.of_layer)

    def __getitem__(self, layer: int) -> Tensor:
        return self.distinct[self.of_layer[layer]]

    @property
    def is_ragged(self) -> bool:
        """Tells if layers hold different tokens."""
        return len(self.distinct) > 1

    def add_layer(self, prompt: Prompt) -> None:
        """Notes that one more layer has run, on the prompt as it is now."""
        if not self.distinct or prompt.attention_mask is not self.distinct[-1]:
            self.distinct.append(prompt.attention_mask)
            self.has_padding |= prompt.has_padding
        self.of_layer.append(len(self.distinct) - 1)

    def compact(self, prompt: Prompt) -> None:
        """Notes that all layers so far hold no more than the prompt does now."""
        self.distinct = [prompt.attention_mask] if self.of_layer else []
        self.of_layer = [0] * len(self.of_layer)
        self.has_padding = prompt.has_padding
