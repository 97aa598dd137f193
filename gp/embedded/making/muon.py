"""Muon with its iteration in float32: torch's takes bfloat16, many times slower on CPUs without a unit for it."""

from collections.abc import Iterable

import torch
from torch.optim import Optimizer

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic; steepest at 0
NUM_ITERATIONS = 5
EPS = 1e-7


class Muon(Optimizer):
    """Momentum of the gradient with its singular values made equal, for matrices (https://kellerjordan.github.io/posts/muon).

    Updates are as `torch.optim.Muon` with `adjust_lr_fn="match_rms_adamw"`: of AdamW's size.

    Args:
        params: matrices, or groups of them. lr: learning rate. weight_decay: decoupled. momentum: Nesterov's.
    """

    def __init__(self, params: Iterable, lr: float, weight_decay: float, momentum: float = 0.95):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure=None):
        """One step; parameters without gradient stay as they are."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(parameter.grad)
                buffer = state["momentum_buffer"]
                buffer.lerp_(parameter.grad, 1 - group["momentum"])
                update = orthogonalized(parameter.grad.lerp(buffer, group["momentum"]))
                scale = 0.2 * max(parameter.shape) ** 0.5  # the root mean square that AdamW's updates have
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update, alpha=-group["lr"] * scale)
        return loss


def orthogonalized(matrix: torch.Tensor) -> torch.Tensor:
    """A matrix of the same singular vectors whose singular values are near 1, by Newton-Schulz iterations, [m, n]."""
    a, b, c = COEFFICIENTS
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = wide / wide.norm().clamp(min=EPS)
    for _ in range(NUM_ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if wide is not matrix else x
