"""What the engine would show a pruner, made by hand."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gp.pruners import BEFORE_FIRST_LAYER, PruneView
from gp.types import Prompt, PruneOptions, VisionAttention, VisualLayout

Grid = tuple[int, int]


def hand_view(
    embeds: Sequence[Sequence[float]],
    grids: Sequence[Grid] | None = None,
    *,
    ratio: float = 0.5,
    scope: str = "prompt",
    question: Sequence[Sequence[float]] | None = None,
    stage: int = BEFORE_FIRST_LAYER,
    num_layers: int = 8,
    vision_attention: dict[int, tuple[Sequence[float], Sequence[Sequence[float]]]] | None = None,
    **shown,
) -> PruneView:
    """One prompt: a text token, all images, the question.

    Args:
        embeds: of all visual tokens, [N][D].
        grids: of the images; None: one row of N tokens.
        ratio: the budget.
        scope: of the budget.
        question: embeddings of the tokens behind the images; None: one token of ones.
        stage, num_layers: as in `PruneView`.
        vision_attention: block -> attention received [N] and keys [N][d].
        shown: the rest of `PruneView`.
    """
    visual = torch.tensor(embeds, dtype=torch.float32)
    count, size = visual.shape
    text = torch.ones(1, size) if question is None else torch.tensor(question, dtype=torch.float32)
    hidden = torch.cat([torch.full((1, size), 7.0), visual, text]).unsqueeze(0)
    visual_id = torch.cat([torch.tensor([-1]), torch.arange(count), torch.full((len(text),), -1)]).unsqueeze(0)
    length = hidden.shape[1]
    grids = tuple(grids or [(1, count)])
    prompt = Prompt(
        hidden=hidden,
        attention_mask=torch.ones(1, length, dtype=torch.bool),
        position_ids=torch.arange(length).view(1, 1, -1),
        visual_id=visual_id,
        layout=VisualLayout(grids, (0,) * len(grids), 1),
        vision_attention={
            block: VisionAttention(torch.tensor(received), torch.tensor(keys))
            for block, (received, keys) in (vision_attention or {}).items()
        },
    )
    options = PruneOptions(fixed_keep_ratio=ratio, budget_scope=scope)
    shown = {"alive": torch.ones(count, dtype=torch.bool), **shown}
    return PruneView(stage=stage, num_layers=num_layers, prompt=prompt, options=options, **shown)


def prompt_of_rows(
    mask: Sequence[Sequence[int]], visual_id: Sequence[Sequence[int]] | None = None, num_tokens: int = 0
) -> Prompt:
    """A batch whose hidden states are zeros of width 1.

    Args:
        mask: [B][S], 0 on padding.
        visual_id: [B][S]; None: text only.
        num_tokens: visual tokens of the batch; they are one image of the first row.
    """
    attention_mask = torch.tensor(mask).bool()
    batch, length = attention_mask.shape
    return Prompt(
        hidden=torch.zeros(batch, length, 1),
        attention_mask=attention_mask,
        position_ids=torch.arange(length).expand(1, batch, -1),
        visual_id=torch.full((batch, length), -1) if visual_id is None else torch.tensor(visual_id),
        layout=VisualLayout(((1, num_tokens),), (0,), batch),
    )


def kept(pruner, view: PruneView) -> list[int]:
    """Numbers of the tokens that stay."""
    return pruner.keep(pruner.scores(view), view).nonzero().flatten().tolist()
