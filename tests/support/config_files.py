"""A config with nothing but what must be given, and the refusal of one."""

from __future__ import annotations

import train

MINIMAL = """
name: test
model: {base: tiny}
glimpse: {prune_layer: 2}
vip: {taps: [3, 1]}
data: {train: ["tiny:train"], val: ["tiny:val"], test: {test: ["tiny:test"]}}
optim: {max_steps: 3}
"""


def refusal(capsys, *arguments: str) -> str:
    """The one line that a command ends with."""
    assert train.main(["--config", *arguments]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line
