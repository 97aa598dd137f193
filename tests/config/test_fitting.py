"""Values fitted to the types of options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import pytest

from gp.config.fitting import fit
from gp.config.option import Rule


@pytest.mark.parametrize(
    ("value", "hint", "fitted"),
    [
        ([1, 2], Sequence[int], [1, 2]),
        ({"a": 1}, Mapping[str, float], {"a": 1.0}),
        ("fast", Literal["fast", "slow"], "fast"),
        (1, bool, True),
        (None, int | None, None),
    ],
)
def test_types_of_a_methods_settings(value, hint, fitted):
    assert fit(value, hint, Rule(""), "key") == fitted
