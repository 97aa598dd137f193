"""A decoder layer on some of a prompt's rows, where keys and values of all rows are known."""

from __future__ import annotations

import torch
from torch import Tensor

from gp.backbones import Backbone


def takes_rows(backbone: Backbone) -> bool:
    """Tells if the base's attention kernel takes a mask for rows that are not the last ones; flash kernels do not."""
    return backbone.text_config._attn_implementation in ("sdpa", "eager")


def rows_mask(backbone: Backbone, seen: Tensor, rows: Tensor) -> Tensor:
    """Causal mask of some rows in the kernel's form: bool [B, 1, R, S] for `sdpa`, 0 and the lowest number for `eager`.

    Args:
        seen: [B, S] bool, False on padding, of all rows.
        rows: [B, R] int64, the places of those that run. On padding they may stand anywhere: such a row sees itself,
            so that it holds finite numbers.
    """
    places = torch.arange(seen.shape[1], device=seen.device)
    mask = seen.unsqueeze(1) & (places <= rows.unsqueeze(-1)) | (places == rows.unsqueeze(-1))
    mask = mask.unsqueeze(1)
    if backbone.text_config._attn_implementation == "sdpa":
        return mask
    lowest = torch.finfo(backbone.dtype).min
    return torch.zeros((), dtype=backbone.dtype, device=mask.device).where(mask, lowest)


class KnownCache:
    """Cache as a layer sees it whose keys and values, [B, H_kv, S, d] each, are known for all rows.

    What the layer makes of the rows that run is the same once more.
    """

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self._known = keys, values

    def update(self, keys: Tensor, values: Tensor, index: int, *args, **kwargs) -> tuple[Tensor, Tensor]:
        return self._known
