"""Optimizer of the pretraining."""

import torch

from gp.embedded.making.optim import MuonAdamW


def test_optimizer_shares_its_groups_after_loading():
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LayerNorm(4))
    optimizer = MuonAdamW(model.named_parameters(), lr=1e-3, weight_decay=0.0)
    model(torch.ones(2, 4)).square().sum().backward()
    optimizer.step()
    restored = MuonAdamW(model.named_parameters(), lr=1e-3, weight_decay=0.0)
    restored.load_state_dict(optimizer.state_dict())
    for group in restored.param_groups:
        group["lr"] = 0.0
    before = [parameter.clone() for parameter in model.parameters()]
    restored.step()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
