"""AdamW over what is trained: which of it decays, and at which rate each part learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from gp.config import OptimConfig
from gp.pruners import GlimpsePruner


def parameter_groups(parts: GlimpsePruner, optim: OptimConfig) -> list[dict[str, Any]]:
    """Groups of the glimpse token, of the VIP, and of the twig if there is one, each with and without weight decay.

    The weights of linear layers decay; norms, biases and the glimpse vectors do not.

    Args:
        parts: what is trained.
        optim: rates and decay.
    """
    token, vip = parts.glimpse_token, parts.vip
    rates: dict[str, tuple[nn.Module, float]] = {
        "glimpse_token": (token, optim.lr * optim.glimpse_lr_scale),
        "vip": (vip, optim.lr),
    }
    if parts.twig is not None:
        rates["twig"] = (parts.twig, optim.lr * optim.twig_lr_scale)
    groups = []
    for name, (part, lr) in rates.items():
        decaying = [layer.weight for layer in part.modules() if isinstance(layer, nn.Linear)]
        known = {id(parameter) for parameter in decaying}
        others = [parameter for parameter in part.parameters() if id(parameter) not in known]
        groups.append({"name": name, "params": decaying, "lr": lr, "weight_decay": optim.weight_decay})
        groups.append({"name": f"{name}_no_decay", "params": others, "lr": lr, "weight_decay": 0.0})
    return groups


def adapter_groups(weights: Sequence[nn.Parameter], optim: OptimConfig) -> list[dict[str, Any]]:
    """One group of an adapter's matrices, all of which decay."""
    return [{"name": "adapter", "params": list(weights), "lr": optim.lr, "weight_decay": optim.weight_decay}]


def adamw(groups: list[dict[str, Any]], optim: OptimConfig) -> torch.optim.AdamW:
    """AdamW over such groups."""
    return torch.optim.AdamW(groups, lr=optim.lr, betas=tuple(optim.betas))


def refuse_other_groups(checkpoint: Mapping[str, Any], groups: list[dict[str, Any]], where: str) -> None:
    """Refuses a checkpoint whose optimizer keeps its averages in another order.

    Args:
        checkpoint: of Lightning; one without an optimizer passes.
        groups: of the optimizer here.
        where: what the error names.

    Raises:
        ValueError: naming the groups of both.
    """
    here = {group["name"]: len(group["params"]) for group in groups}
    for state in checkpoint.get("optimizer_states", []):
        there = {str(group.get("name")): len(group["params"]) for group in state["param_groups"]}
        if there != here:
            raise ValueError(
                f"ckpt {where}: its optimizer has the parameter groups {_shown(there)}, here they are {_shown(here)} "
                "(an older version wrote it): a run cannot go on from it, but evaluate.py reads it; train anew"
            )


def _shown(sizes: dict[str, int]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in sizes.items())
