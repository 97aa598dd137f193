"""A config with nothing but what must be given."""

from __future__ import annotations

import pytest

MINIMAL = """
name: test
model: {base: tiny}
glimpse: {prune_layer: 2}
vip: {taps: [3, 1]}
data: {train: ["tiny:train"], val: ["tiny:val"], test: {test: ["tiny:test"]}}
optim: {max_steps: 3}
"""


@pytest.fixture
def minimal(tmp_path):
    path = tmp_path / "minimal.yaml"
    path.write_text(MINIMAL)
    return path
