"""Optimizer of the pretraining."""

import torch

from gp.embedded.making.muon import Muon
from gp.embedded.making.optim import MuonAdamW

SHAPES = ((24, 40), (40, 24), (32, 32))


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


def test_muon_is_torchs_to_the_precision_of_bfloat16():
    ours, theirs = (
        [torch.nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(3))) for shape in SHAPES]
        for _ in range(2)
    )
    before = [parameter.detach().clone() for parameter in ours]
    settings = {"lr": 0.1, "weight_decay": 0.02}
    optimizers = Muon(ours, **settings), torch.optim.Muon(theirs, adjust_lr_fn="match_rms_adamw", **settings)
    for step in range(3):
        for parameters, optimizer in zip((ours, theirs), optimizers, strict=True):
            draw = torch.Generator().manual_seed(step)
            for parameter in parameters:
                parameter.grad = torch.randn(parameter.shape, generator=draw)
            optimizer.step()
    for mine, its, start in zip(ours, theirs, before, strict=True):
        error = (mine - its).norm() / (its - start).norm()
        assert error < 0.02  # another scale, sign or momentum is a multiple of it
