"""The glimpse token: one learned vector for every decoder layer that it is added at."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gp.modules.rms_norm import rms_norm

NORMS = ("rmsnorm", "layernorm")


class GlimpseToken(nn.Module):
    """Makes the vectors g_i = norm(linear(E_i)).

    g_0 enters the sequence as a token of its own after the prompt; before every later layer i in `layers`,
    g_i is added to the hidden state at that position.

    Args:
        hidden_size: D, of the LLM.
        layers: decoder layers that get a vector; must contain 0.
        num_tokens: T, tokens appended (attention is read from the last).
        norm: `rmsnorm` or `layernorm`.
        eps: of the norm; the LLM's own.

    Raises:
        ValueError: layer 0 missing, or an unknown norm.

    Source: GlimpsePrune (arXiv 2508.01548), section 3.1.
    """

    def __init__(
        self, hidden_size: int, layers: Sequence[int], num_tokens: int = 1, norm: str = "rmsnorm", eps: float = 1e-6
    ) -> None:
        super().__init__()
        if 0 not in layers:
            raise ValueError(f"layers must contain 0, where the token enters; got {list(layers)}")
        if norm not in NORMS:
            raise ValueError(f"norm must be one of {NORMS}, got {norm!r}")
        self.layers = tuple(layers)
        self.num_tokens = num_tokens
        self.embeddings = nn.Parameter(torch.randn(len(self.layers), num_tokens, hidden_size) * hidden_size**-0.5)
        self.proj = nn.Linear(hidden_size, hidden_size)
        self.norm = nn.RMSNorm(hidden_size, eps=eps) if norm == "rmsnorm" else nn.LayerNorm(hidden_size, eps=eps)

    def vectors(self) -> Tensor:
        """Computes the vectors of all layers at once, [len(layers), T, D]."""
        projected = self.proj(self.embeddings)
        return rms_norm(projected, self.norm) if isinstance(self.norm, nn.RMSNorm) else self.norm(projected)

    def by_layer(self) -> dict[int, Tensor]:
        """Decoder layer -> its vector [T, D]."""
        return dict(zip(self.layers, self.vectors()))

    @torch.no_grad()
    def start_from(self, embedding: Tensor) -> None:
        """Sets the layer-0 vector to a token embedding [D], which it then leaves by training.

        The projection starts as the identity, so that the vector is the normalised embedding, rescaled by the
        norm's weight to the embedding's own length.
        """
        nn.init.eye_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)
        self.embeddings[self.layers.index(0)] = embedding.float()
        self.norm.weight.fill_(embedding.float().pow(2).mean().sqrt().item())
