"""A twig: decoder layers of its own that grow from the stock decoder behind one of its layers, and lead nowhere but
to an attention row.

Behind a small prune layer the glimpse has seen too little. The twig lets prompt and glimpse run a few layers further
than the pruning, on trainable copies of the layers that come next, and the glimpse is read there; the base itself goes
on with what is kept from the prune layer's own output, unchanged.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

UNREAD = ("mlp", "post_attention_layernorm")  # of the last layer only query and keys are read: the rest would be dead
UNREAD_OF_ATTENTION = ("v_proj", "o_proj")


class Twig(nn.Module):
    """Layers like the decoder's `first` .. `first + count - 1`, in float32; the last one makes queries and keys only.

    Args:
        backbone: tells the class and the sizes of its layers.
        first: the first decoder layer that has a copy.
        count: number of copies.

    Raises:
        ValueError: layers that the base does not have, or a base of which only sizes are known.

    Source: the idea of TwigVLM (arXiv 2503.14075), section 3; what is read of it is this package's.
    """

    def __init__(self, backbone: Any, first: int, count: int) -> None:
        super().__init__()
        if not hasattr(backbone, "decoder_layer"):
            raise ValueError("glimpse.twig: layers of a base are copied, and here is no base but its sizes alone")
        if first + count > backbone.num_layers:
            raise ValueError(
                f"glimpse.twig {count}: copies of layers {first}..{first + count - 1}, but this base has layers "
                f"0..{backbone.num_layers - 1}"
            )
        self.first = first
        config = backbone.text_config
        numbers = range(first, first + count)
        made = [type(backbone.decoder_layer(index))(config, index) for index in numbers]
        for name in UNREAD:
            delattr(made[-1], name)
        for name in UNREAD_OF_ATTENTION:
            delattr(made[-1].self_attn, name)
        self.layers = nn.ModuleList(made).float()

    @property
    def last(self) -> int:
        """Number of the last layer that has a copy."""
        return self.first + len(self.layers) - 1

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def numbered(self) -> dict[int, nn.Module]:
        """Number of a decoder layer -> its copy."""
        return {self.first + k: layer for k, layer in enumerate(self.layers)}

    @torch.no_grad()
    def start_from(self, backbone: Any) -> None:
        """Copies the base's weights.

        Raises:
            ValueError: layers of the base that are quantized, or have an adapter.
        """
        for index, layer in self.numbered().items():
            weights: dict[str, Tensor] = backbone.decoder_layer(index).state_dict()
            for name, own in layer.state_dict().items():
                there = weights.get(name)
                if there is None or there.shape != own.shape or not there.is_floating_point():
                    raise ValueError(
                        f"glimpse.twig: layer {index} of the base has no plain weight {name} to start from: take the "
                        "base as it was published, neither quantized nor with an adapter"
                    )
                own.copy_(there)
