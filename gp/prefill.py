"""The one prefill engine: embeds the prompts, runs the decoder layer by layer, and prunes where the pruner says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import DynamicCache

from gp.backbones import Backbone, Rotary, read_attention
from gp.pruners import BEFORE_FIRST_LAYER, NoPruner, Pruner, PruneView
from gp.types import ImageFeatures, Prompt, PruneOptions, VisualLayout


@dataclass
class Prefill:
    """A prompt after prefill, pruned and ready for decoding. R: length after pruning.

    Args:
        logits: [B, kept positions, vocabulary]; the last one predicts the first new token.
        cache: keys and values of all layers, [B, A_kv, R, head size] each.
        attention_mask: [B, R] bool, False on padding (on the left).
        position_ids: [P, B, R] int64, the tokens' original rotary positions.
        visual_id: [B, R] int64, number of the visual token at each position, -1 elsewhere.
        keep_mask: [N] bool over all visual tokens of the batch.
        importance_logits: [N] float32 of the last stage, None if nothing was scored.
        layout: the images of the batch.
        full_length: [B] int64, tokens of each prompt before pruning.
    """

    logits: Tensor
    cache: DynamicCache
    attention_mask: Tensor
    position_ids: Tensor
    visual_id: Tensor
    keep_mask: Tensor
    importance_logits: Tensor | None
    layout: VisualLayout
    full_length: Tensor

    @property
    def next_position(self) -> Tensor:
        """Rotary position of the first new token, [B] int64: pruning renumbers nothing."""
        return self.position_ids[-1, :, -1] + 1

    @property
    def keep_masks(self) -> list[Tensor]:
        """One bool [h, w] an image."""
        return self.layout.split_by_image(self.keep_mask)

    @property
    def num_kept(self) -> list[int]:
        """Visual tokens kept of each prompt."""
        return [int(part.sum()) for part in self.layout.split_by_prompt(self.keep_mask)]


@torch.no_grad()
def prefill(
    backbone: Backbone,
    inputs: Mapping[str, Tensor],
    pruner: Pruner | None = None,
    options: PruneOptions | None = None,
    evidence_masks: Sequence[Tensor] | None = None,
    seed: int | Sequence[int] = 0,
    logits_to_keep: int = 1,
    images: ImageFeatures | None = None,
) -> Prefill:
    """Runs a left-padded batch of prompts through the model, dropping visual tokens on the way.

    Args:
        backbone: adapter of the frozen model.
        inputs: processor output: `input_ids` [B, S], `attention_mask`, image tensors.
        pruner: the method; None keeps everything.
        options: budget and threshold of this call.
        evidence_masks: for `oracle`: one [h, w] mask an image.
        seed: for methods that draw; one, or one a prompt.
        logits_to_keep: positions at the end whose logits are wanted; 0: all.
        images: of `Backbone.see`, when several methods prefill the same batch.

    Raises:
        ValueError: inputs that do not fit together, or options that the pruner cannot work with.
    """
    pruner, options = pruner or NoPruner(), options or PruneOptions()
    pruner.check(options)
    prompt = backbone.embed(inputs, pruner.taps, images)
    full_length = prompt.attention_mask.sum(1)
    if prompt.layout.num_tokens == 0:
        pruner = NoPruner()  # text only: nothing to prune, nothing to append
    run = _Run.start(backbone, pruner, prompt)
    for index in range(BEFORE_FIRST_LAYER, backbone.num_layers):
        if index > BEFORE_FIRST_LAYER:
            run.layer(index)
        if index in run.stages:
            run.prune(PruneView(index, prompt, options, run.alive, run.attention, evidence_masks, seed))
    return Prefill(
        logits=backbone.logits(prompt.hidden[:, -logits_to_keep:]),
        cache=run.cache,
        attention_mask=prompt.attention_mask,
        position_ids=prompt.position_ids,
        visual_id=prompt.visual_id,
        keep_mask=run.alive,
        importance_logits=run.scores,
        layout=prompt.layout,
        full_length=full_length,
    )


@dataclass
class _Run:
    """State of one prefill between two layers."""

    backbone: Backbone
    pruner: Pruner
    prompt: Prompt
    cache: DynamicCache
    stages: set[int]
    vectors: dict[int, Tensor]  # the pruner's own tokens, while they are in the sequence
    alive: Tensor
    mask: Tensor | None
    rotary: Rotary
    scores: Tensor | None = None
    attention: dict[int, Tensor] = field(default_factory=dict)

    @classmethod
    def start(cls, backbone: Backbone, pruner: Pruner, prompt: Prompt) -> _Run:
        vectors = {i: v.to(prompt.hidden) for i, v in pruner.tokens().items()}
        if vectors:
            append_tokens(prompt, vectors[0])
        return cls(
            backbone=backbone,
            pruner=pruner,
            prompt=prompt,
            cache=DynamicCache(config=backbone.text_config),
            stages={min(stage, backbone.num_layers - 1) for stage in pruner.stages},
            vectors=vectors,
            alive=torch.ones(prompt.layout.num_tokens, dtype=torch.bool, device=prompt.hidden.device),
            mask=backbone.causal_mask(prompt.hidden, prompt.attention_mask, None),
            rotary=backbone.rotary(prompt.hidden, prompt.position_ids),
        )

    def layer(self, index: int) -> None:
        """One decoder layer, and the attention row of the last position if the pruner reads it here."""
        hidden = self.prompt.hidden
        if index in self.vectors and index > 0:
            hidden[:, -self.vectors[index].shape[0] :] += self.vectors[index]
        self.prompt.hidden = self.backbone.run_layer(index, self.prompt, self.mask, self.rotary, self.cache)
        if index in self.pruner.read_layers:
            self.attention[index] = self._read(index, hidden)

    def prune(self, view: PruneView) -> None:
        """Asks the pruner and drops what it does not keep; with the last stage, the pruner's own tokens too."""
        self.scores = self.pruner.scores(view)
        self.alive = self.pruner.keep(self.scores, view)
        is_last = view.stage == max(self.stages)
        num_appended = self.vectors[0].shape[0] if is_last and self.vectors else 0
        self.vectors = {} if is_last else self.vectors
        _drop(self.prompt, self.cache, self.alive, num_appended)
        self.mask = self.backbone.causal_mask(self.prompt.hidden, self.prompt.attention_mask, None)
        self.rotary = self.backbone.rotary(self.prompt.hidden, self.prompt.position_ids)

    def _read(self, index: int, layer_input: Tensor) -> Tensor:
        """From the layer's own query projection and the cached keys: no second attention, no S x S weights."""
        query = self.backbone.query(index, layer_input[:, -1:], tuple(x[:, -1:] for x in self.rotary))
        keys = self.cache.layers[index].keys
        row = read_attention(query, keys, self.prompt.attention_mask, self.pruner.log_softmax)[:, :, 0]
        return gather_visual(row, self.prompt.visual_id, self.prompt.layout.num_tokens)


def append_tokens(prompt: Prompt, vectors: Tensor) -> int:
    """Appends T vectors [T, D] to every prompt, at the positions after its last; returns T."""
    batch, count = prompt.hidden.shape[0], vectors.shape[0]
    steps = torch.arange(1, count + 1, device=prompt.hidden.device)
    positions = (prompt.last_position.unsqueeze(1) + steps).expand(prompt.position_ids.shape[0], -1, -1)
    prompt.hidden = torch.cat([prompt.hidden, vectors.expand(batch, -1, -1)], dim=1)
    prompt.attention_mask = torch.cat([prompt.attention_mask, prompt.attention_mask.new_ones(batch, count)], dim=1)
    prompt.position_ids = torch.cat([prompt.position_ids, positions], dim=2)
    prompt.visual_id = torch.cat([prompt.visual_id, prompt.visual_id.new_full((batch, count), -1)], dim=1)
    return count


def gather_visual(row: Tensor, visual_id: Tensor, num_tokens: int) -> Tensor:
    """Attention over all positions [B, A, S] -> over the visual tokens [N, A], -inf where a token is gone."""
    is_visual = visual_id >= 0
    out = row.new_full((num_tokens, row.shape[1]), float("-inf"))
    return out.index_copy(0, visual_id[is_visual], row.transpose(1, 2)[is_visual])


def _drop(prompt: Prompt, cache: DynamicCache, alive: Tensor, num_appended: int) -> None:
    """Compacts hidden states, mask, positions and cache to text and surviving visual tokens, left padded again.

    One gather index for the batch; the longest row is the only number that the host has to know.
    """
    visual = prompt.visual_id >= 0
    keep = prompt.attention_mask & (~visual | alive[prompt.visual_id.clamp(min=0)])
    if num_appended:
        keep[:, -num_appended:] = False
    longest = int(keep.sum(1).max())
    index = keep.byte().argsort(dim=1, stable=True)[:, -longest:]  # [B, R]: dropped first, then the kept in order
    prompt.hidden = prompt.hidden.gather(1, index.unsqueeze(-1).expand(-1, -1, prompt.hidden.shape[-1]))
    prompt.attention_mask = keep.gather(1, index)
    prompt.position_ids = prompt.position_ids.gather(2, index.expand(prompt.position_ids.shape[0], -1, -1))
    prompt.visual_id = prompt.visual_id.gather(1, index).masked_fill(~prompt.attention_mask, -1)
    for layer in cache.layers:
        if layer.is_initialized:
            layer.keys = _gather_cache(layer.keys, index)
            layer.values = _gather_cache(layer.values, index)


def _gather_cache(states: Tensor, index: Tensor) -> Tensor:
    return states.gather(2, index[:, None, :, None].expand(-1, states.shape[1], -1, states.shape[3]))
