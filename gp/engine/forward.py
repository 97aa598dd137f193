"""One forward pass over whole sequences with a pruned prompt: logits of all positions that are left, and a loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers.modeling_outputs import CausalLMOutputWithPast

from gp.backbones import CACHE, Backbone, on_host
from gp.engine.prefill import Prefill, prefill
from gp.pruners import Pruner
from gp.selection import Options

IGNORED = -100  # label that no loss counts


@dataclass
class PrunedOutput(CausalLMOutputWithPast):
    """Output of `GlimpseModel.forward`, in transformers' form. R: positions that are left, L: of the longest answer.

    Args:
        logits: [B, R + L, vocabulary]: the pruned prompts, padded on the left, then the answers, padded on the right.
        attention_mask: [B, R + L] bool, False on padding.
        visual_id: [B, R + L] int64, number of the visual token at each position, -1 elsewhere.
        labels: [B, R + L] int64, what the loss counted; None without labels.
        keep_masks: one bool [h, w] per image, True = kept.
        num_kept, num_visual: one number per prompt.
    """

    attention_mask: Tensor | None = None
    visual_id: Tensor | None = None
    labels: Tensor | None = None
    keep_masks: tuple[Tensor, ...] | None = None
    num_kept: tuple[int, ...] | None = None
    num_visual: tuple[int, ...] | None = None


def forward(
    backbone: Backbone,
    inputs: Mapping[str, Tensor],
    pruner: Pruner,
    options: Options,
    evidence_masks: Sequence[Tensor] | None = None,
    seed: int | Sequence[int] = 0,
    labels: Tensor | None = None,
    logits_to_keep: int = 0,
    **loss_options: Any,
) -> PrunedOutput:
    """Runs prompts, and answers behind them if there are labels.

    With labels, a row is cut in two: its answer begins at the first label behind its images. The prompt before it is
    pruned, looking at the prompt alone, as when the answer is generated; the answer runs behind the pruned prompt. The
    loss is stock's, over the positions that are left: each one predicts the next one. Labels of dropped visual tokens
    are gone with them; nothing predicts the first token of a row.

    Args:
        inputs: processor output. With labels rows may be padded on either side.
        labels: [B, S] int64, -100 where nothing is to be predicted.
        logits_to_keep: positions at the end whose logits are wanted, 0: all. Labels need all.
        loss_options: of the base's loss function, e.g. `num_items_in_batch`.

    Raises:
        ValueError: labels of another shape than the ids, or with `logits_to_keep`; and like `prefill`.
    """
    if labels is None:
        done = prefill(backbone, inputs, pruner, options, evidence_masks, seed, logits_to_keep)
        return _output(done, done.logits, None, None)
    cut = Cut.make(backbone, on_host(inputs), labels, logits_to_keep)
    done = prefill(backbone, cut.prompts, pruner, options, evidence_masks, seed, logits_to_keep=0)
    kept_labels = torch.cat([labels_left(done, cut, backbone.image_frame[1]), cut.answer_labels], 1).to(
        done.logits.device
    )
    logits = done.logits
    if cut.answer_ids.shape[1]:
        logits = torch.cat([logits, _behind(backbone, done, cut.answer_ids.to(backbone.device))], 1)
    loss = backbone.model.loss_function(
        logits=logits, labels=kept_labels, vocab_size=backbone.text_config.vocab_size, **loss_options
    )
    return replace(_output(done, logits, kept_labels, cut), loss=loss)


@dataclass
class Cut:
    """Rows of prompt and answer, cut; on the host.

    Args:
        prompts: like the inputs, with left-padded prompts.
        prompt_labels: the labels of each prompt's real tokens.
        is_visual: which of them are visual.
        answer_ids, answer_mask, answer_labels: [B, L], right padded.
    """

    prompts: dict[str, Tensor]
    prompt_labels: list[Tensor]
    is_visual: list[Tensor]
    answer_ids: Tensor
    answer_mask: Tensor
    answer_labels: Tensor

    @classmethod
    def make(cls, backbone: Backbone, inputs: dict[str, Tensor], labels: Tensor, logits_to_keep: int) -> Cut:
        ids, shape = inputs["input_ids"], list(getattr(labels, "shape", [])) or type(labels).__name__
        if shape != list(ids.shape) or logits_to_keep:
            raise ValueError(
                f"labels must be a tensor of the shape of input_ids and need all logits; got labels {shape}, "
                f"input_ids {list(ids.shape)}, logits_to_keep {logits_to_keep}"
            )
        labels = labels.cpu()
        mask = inputs.get("attention_mask", torch.ones_like(ids)).bool()
        ids_of, labels_of = ([row[real] for row, real in zip(both, mask)] for both in (ids, labels))
        for row in labels_of:
            row[:1] = IGNORED  # in a padded row the padding before it would predict it
        visual = [row == backbone.image_token_id for row in ids_of]
        starts = [answer_start(*row) for row in zip(labels_of, visual)]
        prompts = [row[:start].flip(0) for row, start in zip(ids_of, starts)]  # padded on the right, and turned round
        answers = [row[start:] for row, start in zip(ids_of, starts)]
        lengths = torch.tensor([len(row) for row in prompts])
        padded = pad_sequence(prompts, batch_first=True).flip(1)
        images = {key: value for key, value in inputs.items() if value.shape != ids.shape or value.is_floating_point()}
        return cls(
            {
                **images,
                "input_ids": padded,
                "attention_mask": torch.arange(padded.shape[1]).flip(0) < lengths.unsqueeze(1),
            },
            [row[:start] for row, start in zip(labels_of, starts)],
            [row[:start] for row, start in zip(visual, starts)],
            pad_sequence(answers, batch_first=True),
            pad_sequence([torch.ones_like(row, dtype=torch.bool) for row in answers], batch_first=True),
            pad_sequence([row[s:] for row, s in zip(labels_of, starts)], batch_first=True, padding_value=IGNORED),
        )


def answer_start(labels: Tensor, is_visual: Tensor) -> int:
    """Where a row's answer begins: at the first label behind the last visual token, but not at the first token.

    Args:
        labels: [S] int64, -100 where nothing is to be predicted.
        is_visual: [S] bool.

    Returns:
        S if there is no such label.
    """
    behind = is_visual.long().flip(0).cumsum(0).flip(0) == 0
    wanted = (behind & (labels != IGNORED)).nonzero()
    return max(1, int(wanted[0])) if len(wanted) else len(labels)


def labels_left(done: Prefill, cut: Cut, frame_behind: int) -> Tensor:
    """Labels of the positions of the pruned prompts, [B, R] int64; those of images that were resized are gone.

    Args:
        done: the pruned prompts.
        cut: the prompts as they came.
        frame_behind: text tokens behind an image that belong to it.
    """
    visual_id, mask = done.visual_id.cpu(), done.attention_mask.cpu()
    of_visual = torch.cat([labels[visual] for labels, visual in zip(cut.prompt_labels, cut.is_visual)])
    if done.layout.grids != done.full_layout.grids:
        of_visual = of_visual.new_full((done.layout.num_tokens,), IGNORED)
    out = torch.full(visual_id.shape, IGNORED)
    for row, (labels, visual) in enumerate(zip(cut.prompt_labels, cut.is_visual)):
        here = visual_id[row] >= 0
        text = mask[row] & ~here
        out[row, text] = with_room(labels, visual, int(text.sum()), frame_behind)
        out[row, here] = of_visual[visual_id[row, here]]
    return out


def with_room(labels: Tensor, is_visual: Tensor, count: int, frame_behind: int) -> Tensor:
    """Labels of a row's text, with none for what frames further images behind the last one.

    Args:
        labels: [S] int64.
        is_visual: [S] bool.
        count: text tokens that there are now.
        frame_behind: of those that there were, so many behind the last image belong to it.
    """
    text = labels[~is_visual]
    num_new = count - len(text)
    if not num_new:
        return text
    start = int(is_visual.nonzero()[-1]) + 1 + frame_behind - int(is_visual.sum())
    return torch.cat([text[:start], text.new_full((num_new,), IGNORED), text[start:]])


def _behind(backbone: Backbone, done: Prefill, ids: Tensor) -> Tensor:
    """Logits of tokens [B, L] behind the pruned prompts; their keys and values join the cache."""
    count = ids.shape[1]
    position_ids = done.next_position.unsqueeze(1) + torch.arange(count, device=ids.device)
    masks = replace(
        done.cache_masks,
        distinct=[torch.cat([mask, mask.new_ones(len(ids), count)], 1) for mask in done.cache_masks.distinct],
    )
    if masks.is_ragged:
        hidden = backbone.decode_ragged(ids, position_ids, masks, done.cache)
    else:
        mask = masks[0] if masks.has_padding else None
        hidden = backbone.decode(ids, position_ids, mask, done.cache).last_hidden_state
    return backbone.head(hidden)


def _output(done: Prefill, logits: Tensor, labels: Tensor | None, cut: Cut | None) -> PrunedOutput:
    mask, visual_id = done.attention_mask, done.visual_id
    if cut is not None:
        answered = cut.answer_mask.to(mask.device)
        mask = torch.cat([mask, answered], 1)
        visual_id = torch.cat([visual_id, visual_id.new_full(answered.shape, -1)], 1)
    cache: Any = {CACHE: done.cache}  # as this version of transformers calls it
    return PrunedOutput(
        logits=logits,
        attention_mask=mask,
        visual_id=visual_id,
        labels=labels,
        keep_masks=tuple(done.keep_masks),
        num_kept=tuple(done.num_kept),
        num_visual=tuple(done.full_layout.prompt_sizes),
        **cache,
    )
