"""RMSNorm of 16-bit states with a float32 weight."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gp.modules.rms_norm import rms_norm


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_states_of_any_type_are_normalised_in_the_weights_type(dtype):
    torch.manual_seed(0)
    norm = nn.RMSNorm(8, eps=1e-6)
    nn.init.uniform_(norm.weight)
    states = torch.randn(3, 8).to(dtype)
    wide = states.double()
    expected = norm.weight.double() * wide / (wide.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    out = rms_norm(states, norm)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out.double(), expected, atol=1e-6, rtol=1e-6)
