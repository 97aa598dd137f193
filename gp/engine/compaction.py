"""Takes dropped tokens out of a prompt and its KV cache: one index, whole vectors copied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from gp.types import Prompt


@dataclass
class Finding:
    """Something that must hold, known to the device; the host asks when it waits for the device anyway.

    Args:
        holds: bool scalar.
        otherwise: what to say if it does not.
    """

    holds: Tensor
    otherwise: str

    def insist(self, holds: bool | None = None) -> None:
        """Raises ValueError if it does not hold; `holds`: if the host knows already."""
        if not (bool(self.holds) if holds is None else holds):
            raise ValueError(self.otherwise)


def drop(
    prompt: Prompt,
    alive: Tensor,
    num_appended: int,
    num_dropped: Sequence[int] | None = None,
    finding: Finding | None = None,
) -> Tensor:
    """Compacts hidden states, mask and positions to text and surviving visual tokens, left padded again.

    Args:
        prompt: is changed.
        alive: [N] bool, visual tokens that stay.
        num_appended: positions at the end that go.
        num_dropped: visual tokens that go, per row, where the host knows; else it waits once for the new lengths,
            on which shapes depend.
        finding: what is asked on that occasion.

    Returns:
        One gather index for the batch, [B, R].

    Raises:
        ValueError: the finding, where the host waits.
    """
    keep = prompt.attention_mask & (~prompt.is_visual | prompt.spread_visual(alive))
    if num_appended:
        keep[:, -num_appended:] = False
    if num_dropped is None:
        found = torch.ones((), dtype=torch.bool, device=keep.device) if finding is None else finding.holds
        *prompt.lengths, holds = torch.cat([keep.sum(1), found.to(keep.device).view(1)]).tolist()
        if finding is not None:
            finding.insist(bool(holds))
    else:
        prompt.lengths = [have - num_appended - less for have, less in zip(prompt.lengths, num_dropped, strict=True)]
    return repack(prompt, keep)


def repack(prompt: Prompt, keep: Tensor) -> Tensor:
    """Moves the positions that stay, bool [B, S], together; `prompt.lengths` says how many there are in each row.

    Returns:
        One gather index for the batch, [B, R].
    """
    longest = max(prompt.lengths)
    index = keep.byte().argsort(dim=1, stable=True)[:, -longest:]  # [B, R]: dropped first, then the kept in order
    here = index.to(prompt.hidden.device)
    prompt.hidden = select_rows(prompt.hidden, flat_index(here, prompt.hidden.shape[:-1]))
    prompt.attention_mask = keep.gather(1, index)
    prompt.position_ids = prompt.position_ids.gather(2, index.expand(prompt.position_ids.shape[0], -1, -1))
    prompt.visual_id = prompt.visual_id.gather(1, index).masked_fill(~prompt.attention_mask, -1)
    return index


def tail_of(prompt: Prompt, starts: Sequence[int], alive: Tensor | None = None) -> Prompt:
    """The tokens of each row behind its first ones, left padded; the prompt stays as it is.

    Args:
        prompt: embedded.
        starts: first tokens of each row that are left out.
        alive: [N] bool, visual tokens that are taken; None: all.
    """
    order = prompt.attention_mask.long().cumsum(1) - 1
    keep = prompt.attention_mask & (order >= torch.tensor(starts, device=order.device).unsqueeze(1))
    lengths = [length - start for length, start in zip(prompt.lengths, starts, strict=True)]
    if alive is not None:
        keep &= ~prompt.is_visual | prompt.spread_visual(alive)
        lengths = keep.sum(1).tolist()
    tail = replace(prompt, lengths=lengths)
    repack(tail, keep)
    return tail


def compact(cache: DynamicCache, index: Tensor) -> None:
    """Removes dropped tokens from the caches of layers that have already run."""
    flat: dict[tuple[torch.Size, torch.device], Tensor] = {}  # layers that hold as many tokens share it
    layers: list[Any] = cache.layers  # of the kind that holds keys and values
    for layer in layers:
        if layer.is_initialized:
            kind = layer.keys.shape[:-1], layer.keys.device
            if kind not in flat:
                flat[kind] = flat_index(index.to(kind[1]), kind[0])
            layer.keys = select_rows(layer.keys, flat[kind])
            layer.values = select_rows(layer.values, flat[kind])


def flat_index(index: Tensor, shape: torch.Size) -> Tensor:
    """Places of the vectors at positions [B, R] among all of a contiguous [B, ..., S, d], whose `shape` leaves out d.

    Copying whole vectors is many times faster than `gather`, which takes an index for every entry.
    """
    start = torch.arange(shape[:-1].numel(), device=index.device).view(*shape[:-1], 1) * shape[-1]  # [B, ..., 1]
    return start + index.view(len(index), *[1] * (len(shape) - 2), index.shape[1])


def select_rows(states: Tensor, flat: Tensor) -> Tensor:
    """Vectors [B, ..., S, d] -> [B, ..., R, d], with `flat` of `flat_index`."""
    return states.flatten(0, -2).index_select(0, flat.flatten()).view(*flat.shape, states.shape[-1])
