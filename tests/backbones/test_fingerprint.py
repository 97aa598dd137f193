"""A base is known by its values, not by names, order or dtype."""

from __future__ import annotations

import torch
from torch import nn

from gp.backbones.fingerprint import fingerprint


def layers(seed: int = 0) -> tuple[nn.Linear, nn.LayerNorm]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Linear(40, 30), nn.LayerNorm(7)


def test_names_and_order_do_not_count():
    first, second = layers()
    assert fingerprint(nn.Sequential(first, second)) == fingerprint(nn.ModuleDict({"b": second, "a": first}))


def test_narrower_dtypes_are_those_of_the_cast_base():
    there = fingerprint(nn.Sequential(*layers()))
    for dtype in (torch.bfloat16, torch.float16):
        here = fingerprint(nn.Sequential(*layers()).to(dtype))
        assert here == {name: there[name] for name in here} and len(here) == 1


def test_any_weight_that_differs_in_every_value_counts():
    there = fingerprint(nn.Sequential(*layers()))
    for number in range(4):
        changed = nn.Sequential(*layers())
        with torch.no_grad():
            list(changed.parameters())[number].mul_(1.0001).add_(1e-5)
        assert fingerprint(changed)["float32"] != there["float32"]


def test_nothing_is_known_of_weights_that_are_elsewhere_or_quantized():
    first, second = layers()
    assert fingerprint(first.to("meta")) == {}
    second.register_parameter("packed", nn.Parameter(torch.ones(3, dtype=torch.uint8), requires_grad=False))
    assert fingerprint(second) == {}
