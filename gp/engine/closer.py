"""Further images behind a batch that is already some layers deep: their tokens and the text behind them follow it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gp.backbones.cropping import append_images
from gp.engine.compaction import tail_of
from gp.engine.run import Run
from gp.pruners.base import Closer
from gp.types import ImageFeatures, Prompt, VisualLayout


def go_closer(run: Run, seen: Mapping[str, Tensor], images: ImageFeatures, closer: Closer) -> Prompt:
    """Lets the tokens of further images follow, and the text behind the images once more, behind them.

    Args:
        run: behind the last stage of its method.
        seen: the prompts that it began with, on the host.
        images: features of their images.
        closer: what the method wants to be seen.

    Returns:
        The prompts with all images, embedded: where positions go on.
    """
    backbone, layout = run.backbone, run.prompt.layout
    rows = [layout.rows[crop.image] for crop in closer.crops]
    of_rows = [[k for k, row in enumerate(rows) if row == prompt] for prompt in range(layout.num_prompts)]
    order = image_order(layout, of_rows)
    sizes = [*layout.grids, *closer.sizes]
    areas = [[sizes[len(layout.grids) + k][0] * sizes[len(layout.grids) + k][1] for k in row] for row in of_rows]
    ids, mask, starts = append_images(
        seen["input_ids"], _mask(seen), backbone.image_token_id, backbone.image_frame, areas
    )
    of_tokens = token_order(sizes, order)
    joint_sizes = [sizes[k] for k in order]
    prompt = backbone.embed(
        {"input_ids": ids, "attention_mask": mask, **backbone.image_facts(joint_sizes)},
        images=images.plus(backbone.see(closer.pixels)).ordered(backbone.send(of_tokens)),
        sizes=joint_sizes,
    )
    wanted = torch.cat([torch.ones(layout.num_tokens, dtype=torch.bool), closer.wanted])[of_tokens]
    wanted = backbone.send(wanted)
    lengths = _mask(seen).sum(1).tolist()
    tails = [length - start if row else 0 for length, start, row in zip(lengths, starts, of_rows, strict=True)]
    run.renumber(prompt.layout, backbone.send(of_tokens.argsort()[: layout.num_tokens]))
    run.alive, run.layers_run = run.alive & wanted, run.layers_run * wanted
    run.cut(tails)
    run.append(tail_of(prompt, starts, wanted))
    return prompt


def image_order(layout: VisualLayout, of_rows: Sequence[Sequence[int]]) -> list[int]:
    """All images by row, new ones last; images are numbered from 0 on, the old ones first."""
    order: list[int] = []
    for row, new in enumerate(of_rows):
        order += [k for k, of_row in enumerate(layout.rows) if of_row == row]
        order += [len(layout.grids) + k for k in new]
    return order


def token_order(sizes: Sequence[tuple[int, int]], order: Sequence[int]) -> Tensor:
    """The same for their tokens, [N] int64."""
    ends = torch.tensor([h * w for h, w in sizes]).cumsum(0).tolist()
    starts = [0, *ends]
    return torch.cat([torch.arange(starts[k], starts[k + 1]) for k in order])


def _mask(inputs: Mapping[str, Tensor]) -> Tensor:
    mask = inputs.get("attention_mask")
    return (torch.ones_like(inputs["input_ids"]) if mask is None else mask).bool()
