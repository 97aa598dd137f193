"""FastV: what the last prompt token attends to early in the LLM stays."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from gp.pruners.base import PruneView, RankingPruner


class FastV(RankingPruner):
    """Attention of the last prompt token early in the LLM.

    Ranks visual tokens by the attention of the last prompt token, mean over heads, at one early decoder layer.

    score_j = mean over heads of softmax(q_last K^T / sqrt(d))_j, at layer `layer`; the softmax is over all prompt keys.
    Only this one query row is computed.

    Settings at budgets of 11.1 / 22.2 / 33.3 % (layer 1, of 28 layers): 4.3 / 16.2 / 28.2 % of the tokens after it; of
    32: 5.2 / 17.0 / 28.9 %. Solved from the budget: (budget * layers - 2) / (layers - 2).

    Args:
        layer: 0-based decoder layer that is read and after which tokens are dropped; the published K = 2 is layer 1.
        compact_cache: whether the layers up to `layer` forget the dropped tokens; the published code keeps them.

    Deviations: none known in the scores; ties go to the earlier token.

    Source: Chen et al., "An Image is Worth 1/2 Tokens After Layer 2", ECCV 2024, section 4.
    """

    name: ClassVar[str] = "fastv"
    paper = "2403.06764"
    log_softmax = True
    needs_hidden = False

    def __init__(self, layer: int = 1, compact_cache: bool = False) -> None:
        super().__init__()
        self.stages = self.read_layers = (layer,)
        self.compact_cache = compact_cache

    def scores(self, view: PruneView) -> Tensor:
        return view.attention[self.stages[0]].float().exp().mean(-1)
