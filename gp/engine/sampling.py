"""Draws of `generate` that depend on each row's own seed alone: not on its batch, its process, or what ran before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList


class SeededNoise(LogitsProcessor):
    """Gumbel noise on the logits: the greatest of these sums is a draw from softmax(logits / temperature).

    Args:
        seeds: one per row.
        temperature: of the draw.
        device: of the logits.

    Source: Gumbel, "Statistical Theory of Extreme Values", 1954; Maddison et al., "A* Sampling", 2014, section 2.
    """

    def __init__(self, seeds: Sequence[int], temperature: float, device: torch.device | str) -> None:
        self._generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        self._temperature = temperature

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Logits [rows, vocabulary] with noise, float32."""
        size, device = scores.shape[1], scores.device
        drawn = torch.stack([torch.rand(size, generator=one, device=device) for one in self._generators])
        return scores.float() / self._temperature - (-drawn.log()).log()


def seeded_draw(seeds: Sequence[int], temperature: float, device: torch.device | str) -> dict[str, Any]:
    """Options of a greedy `generate` that make it draw, one seed per row."""
    return {"logits_processor": LogitsProcessorList([SeededNoise(seeds, temperature, device)])}
