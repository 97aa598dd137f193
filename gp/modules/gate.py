"""The gate of zoom: whether the small copy of an image is enough for a question."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Gate(nn.Module):
    """A linear head: sigmoid(w . [h / rms(h), v / rms(v)] + b) is how likely the answer from the small copy is right.

    h is the hidden state of the (last) glimpse token behind the prune layer, where its attention was read; it knows
    the question. v is the mean of the visual tokens' hidden states there, weighted by their importance: what is looked
    at, which knows whether it can be read. Lengths differ from base to base and layer to layer, so they are taken out.
    An untrained head says one half.

    Args:
        hidden_size: D, of the LLM.
        eps: of the norm.

    Source: ours; Q-Zoom (arXiv 2604.06912) trains a gate on self-labelled samples, too.
    """

    def __init__(self, hidden_size: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.linear = nn.Linear(2 * hidden_size, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits [B] float32 of two states each, [B, 2, D] in any type: the glimpse token's, and what it looks at."""
        states = F.rms_norm(hidden.float(), hidden.shape[-1:], eps=self.eps).flatten(1)
        # as a product and a sum, which autocast leaves in float32
        return (states * self.linear.weight[0].float()).sum(-1) + self.linear.bias.float()
