"""Rollouts: several drawn answers to each question of a batch, as rows behind one shared pruned prompt."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gp.config.plus import GrpoConfig
from gp.data.batch import Batch
from gp.engine.answer_logprobs import AS_GIVEN
from gp.engine.generation import GREEDY
from gp.engine.prefill import Prefill
from gp.engine.sampling import seeded_draw
from gp.model import GlimpseModel
from gp.pruners import OraclePruner
from gp.types import ImageFeatures, PruneOptions


@dataclass
class Rollouts:
    """Drawn answers. G: answers to each question.

    Args:
        ids: [B * G, L] int64, right padded, the token that ends a turn included.
        mask: [B * G, L] bool, False on padding.
        cut_off: [B * G] bool, answers that are as long as allowed and have no end.
        texts: of the answers.
        keep_masks: one bool [h, w] per image: what was kept while they were drawn.
    """

    ids: Tensor
    mask: Tensor
    cut_off: Tensor
    texts: list[str]
    keep_masks: list[Tensor]


@torch.no_grad()
def roll_out(
    model: GlimpseModel, batch: Batch, config: GrpoConfig, prune_layer: int, images: ImageFeatures, seeds: Sequence[int]
) -> Rollouts:
    """Draws answers by transformers' `generate`.

    Args:
        model: with its adapter on.
        batch: of B questions with an image each.
        config: how to draw, and what is kept.
        prune_layer: the last decoder layer that sees all tokens.
        images: of `GlimpseModel.see`.
        seeds: one per answer, B * G; those of a question also decide what `mixed` keeps.
    """
    copies = config.group_size
    done = _prefill(model, batch, config, prune_layer, images, seeds[::copies])
    keep_masks = done.keep_masks
    prompts = batch.sent["input_ids"]
    rows = prompts.repeat_interleave(copies, 0)
    tokenizer = model.processor.tokenizer
    drawn = model.decode(
        rows,
        done,
        consume=True,
        max_new_tokens=config.max_new_tokens,
        pad_token_id=tokenizer.pad_token_id,
        **GREEDY,
        **seeded_draw(seeds, config.temperature, model.device),
    )
    ids = drawn[:, prompts.shape[1] :].clone()
    is_end = torch.isin(ids, _ends(model, ids.device))
    mask = (is_end.long().cumsum(1) - is_end.long()) == 0  # up to the first end, which counts
    texts = tokenizer.batch_decode(ids.masked_fill(~mask, tokenizer.pad_token_id or 0), skip_special_tokens=True)
    cut_off = ~is_end.any(1)
    return Rollouts(ids, mask, cut_off, [text.strip() for text in texts], keep_masks)


def seed_of(*facts: object) -> int:
    """A seed from anything that has a text, the same on every machine; below 2^63."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, facts)).encode()).digest()[:8], "big") >> 1


def _prefill(
    model: GlimpseModel,
    batch: Batch,
    config: GrpoConfig,
    prune_layer: int,
    images: ImageFeatures,
    seeds: Sequence[int],
) -> Prefill:
    """The pruned prompts."""
    masks: Sequence[Tensor] = batch.evidence_masks
    if config.mask != "boxes":
        options = [_with_budget(model.options, config.budgets, seed) for seed in seeds]
        done = model.prefill(batch.inputs_for(model.backbone), "glimpse", options, images=images)
        done.insist()
        takes_boxes = [config.mask == "mixed" and seed % 2**20 < config.boxes_share * 2**20 for seed in seeds]
        if not any(takes_boxes):
            return done
        masks = [mine if boxes else kept for boxes, mine, kept in zip(takes_boxes, masks, done.keep_masks, strict=True)]
        masks = [mask.to(model.device) for mask in masks]
    return model.prefill(batch.inputs_for(model.backbone), OraclePruner(prune_layer), AS_GIVEN, masks, images=images)


def _with_budget(options: PruneOptions, budgets: Sequence[float | None], seed: int) -> PruneOptions:
    """One of the budgets by lot; None: the options as they are."""
    budget = budgets[seed // 2**20 % len(budgets)]  # other bits than those that `mixed` draws by
    return options if budget is None else options.but(fixed_keep_ratio=budget)


def _ends(model: GlimpseModel, device: torch.device) -> Tensor:
    """The tokens that end an answer."""
    ends = model.generation_config.eos_token_id
    return torch.tensor(ends if isinstance(ends, list) else [] if ends is None else [ends], device=device)
