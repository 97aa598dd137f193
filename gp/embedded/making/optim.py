"""Muon for matrices and AdamW for everything else, as one optimizer."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from gp.embedded.making.muon import Muon


class MuonAdamW(Optimizer):
    """Two optimizers behind one interface, so that a Trainer counts one step and clips once.

    Args:
        named_parameters: (name, parameter) pairs. Matrices go to Muon, except embeddings and heads; the rest to AdamW.
        lr: for both: Muon's updates are scaled to AdamW's size.
        weight_decay: on matrices and convolutions; vectors have none.

    Groups carry `is_vision`, by which a schedule tells the vision tower from the rest.
    """

    def __init__(self, named_parameters: Iterable[tuple[str, nn.Parameter]], lr: float, weight_decay: float):
        matrices: dict[bool, list] = {True: [], False: []}
        others: dict[tuple[bool, bool], list] = {}
        for name, parameter in named_parameters:
            is_vision = ".visual." in f".{name}"
            if parameter.ndim == 2 and "embed_tokens" not in name and "heads" not in name:
                matrices[is_vision].append(parameter)
            else:
                others.setdefault((is_vision, parameter.ndim > 1), []).append(parameter)
        self.muon = Muon(
            [{"params": params, "is_vision": flag} for flag, params in matrices.items() if params],
            lr=lr,
            weight_decay=weight_decay,
        )
        self.adamw = AdamW(
            [
                {"params": params, "is_vision": flag, "weight_decay": weight_decay if decays else 0.0}
                for (flag, decays), params in others.items()
            ],
            lr=lr,
            betas=(0.9, 0.98),
        )
        super().__init__(self.muon.param_groups + self.adamw.param_groups, {})
        self._share_groups()

    def _share_groups(self) -> None:
        # The same dict objects: a scheduler that sets `lr` here sets it in the two optimizers.
        self.param_groups = self.muon.param_groups + self.adamw.param_groups

    @torch.no_grad()
    def step(self, closure=None):
        """One step of both; parameters without gradient stay as they are."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.muon.step()
        self.adamw.step()
        return loss

    def state_dict(self) -> dict:
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state_dict: dict) -> None:
        self.muon.load_state_dict(state_dict["muon"])
        self.adamw.load_state_dict(state_dict["adamw"])
        self._share_groups()
