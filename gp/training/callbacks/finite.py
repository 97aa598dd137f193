"""Stops a run whose loss, gradient or weights are not finite, before anything good is overwritten by it."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

ADVICE = "A lower optim.lr or another trainer.precision may help; trainer.max_bad_steps lets steps be skipped"


class FiniteNumbers(pl.Callback):
    """Looks at loss and gradient before every optimizer step, and at the weights before they are saved.

    A step whose loss or gradient is not finite is skipped: no weight and no average of the optimizer changes. All
    processes see the same two numbers, so they agree. The gradient's norm before clipping is logged as
    `train/grad_norm`.

    Args:
        max_bad_steps: that are skipped over the whole run, resumed ones included; the next one stops it.
        advice: what may help, with the options of the task.
    """

    def __init__(self, max_bad_steps: int = 0, advice: str = ADVICE) -> None:
        self.max_bad_steps, self.advice = max_bad_steps, advice
        self.num_bad_steps = 0

    def state_dict(self) -> dict[str, Any]:
        return {"num_bad_steps": self.num_bad_steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.num_bad_steps = state_dict["num_bad_steps"]

    def on_before_optimizer_step(self, trainer: pl.Trainer, module: pl.LightningModule, optimizer: Optimizer) -> None:
        """Skips a bad step.

        Raises:
            ValueError: it is one too many; names the step.
        """
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        norm = gradient_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
        module.log("train/grad_norm", norm, batch_size=1)
        of_step = torch.as_tensor(module.loss_of_step).to(norm)
        loss, size = torch.stack([of_step, norm]).tolist()  # waits for the device once
        bad = torch.tensor([loss, size]).isfinite().logical_not().tolist()
        if not bad[0] and (not bad[1] or _scale_was_too_large(trainer)):
            return
        of_gradient = f"the gradient's norm is {size} at a loss of {loss:.4g}"
        self._skip(trainer, f"the loss is {loss}" if bad[0] else of_gradient)
        for parameter in parameters:
            parameter.grad = None  # the optimizer passes it over

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Lets no checkpoint with weights that are not finite be written, whoever writes it."""
        refuse_bad_weights(checkpoint["state_dict"], trainer.global_step, self.advice)

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Comes before the last checkpoint and before the export."""
        refuse_bad_weights(module.state_dict(), trainer.global_step, self.advice)

    def _skip(self, trainer: pl.Trainer, what: str) -> None:
        step = trainer.global_step + 1
        if self.num_bad_steps >= self.max_bad_steps:
            raise ValueError(
                f"optimizer step {step}: {what}, after {self.num_bad_steps} skipped steps of {self.max_bad_steps} "
                f"allowed ones; nothing of it is saved. {self.advice}"
            )
        self.num_bad_steps += 1
        if trainer.is_global_zero:
            print(f"step {step} skipped ({self.num_bad_steps} of {self.max_bad_steps}): {what}", flush=True)


def gradient_norm(gradients: list[Tensor]) -> Tensor:
    """Euclidean norm of all gradients together, a float32 scalar."""
    return torch.stack([torch.linalg.vector_norm(one, dtype=torch.float32) for one in gradients]).norm()


def refuse_bad_weights(state: dict[str, Tensor], step: int, advice: str = ADVICE) -> None:
    """Refuses trained parts with values that are not finite; ValueError names step and the first of them."""
    names = [name for name, value in state.items() if value.is_floating_point()]
    bad = ~torch.stack([state[name].isfinite().all() for name in names]).cpu()
    if bool(bad.any()):
        name = names[int(bad.nonzero()[0])]
        raise ValueError(
            f"after optimizer step {step}: {name} is not finite any more ({int(bad.sum())} of {len(names)} trained "
            f"tensors); these weights are not saved. {advice}"
        )


def _scale_was_too_large(trainer: pl.Trainer) -> bool:
    """In float16 gradients overflow until the scaler has found its scale; it skips these steps itself."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return scaler is not None and scaler.get_scale() > 1
