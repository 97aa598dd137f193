"""Keeps all visual tokens: what every method is compared with."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from gp.pruners.base import Pruner, PruneView


class NoPruner(Pruner):
    """Keeps everything.

    Has no stage, so it is never asked.
    """

    name: ClassVar[str] = "none"

    def scores(self, view: PruneView) -> Tensor:
        raise RuntimeError("pruner 'none' has no stage and is never asked for scores")
