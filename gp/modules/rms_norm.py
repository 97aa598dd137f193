"""RMSNorm in mixed precision."""

from __future__ import annotations

from torch import Tensor, nn


def rms_norm(hidden: Tensor, norm: nn.RMSNorm) -> Tensor:
    """The norm of hidden states in any type, in the type of its weight.

    torch has one kernel for it only if both have one type. 16-bit states and a float32 weight would be normalised in
    float32 step by step; raising the states first gives the same numbers in one.
    """
    return norm(hidden.to(norm.weight.dtype))
