"""The one prefill engine: embeds the prompts, runs the decoder layer by layer, and prunes where the pruner says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from gp.backbones import Backbone, LayerMasks, Rotary, on_host, read_attention
from gp.engine.compaction import Finding, compact, drop
from gp.pruners import BEFORE_FIRST_LAYER, NoPruner, Pruner, PruneView
from gp.selection import Options, known_counts, of_prompts
from gp.types import ImageFeatures, Prompt, PruneOptions, VisualLayout


@dataclass
class Prefill:
    """A prompt after prefill, pruned and ready for decoding. R: length after pruning.

    Args:
        logits: [B, kept positions, vocabulary]; the last one predicts the first new token.
        cache: keys and values of all layers, [B, H_kv, R, d] each; layers that did not forget dropped tokens
            are longer.
        cache_masks: of each layer, [B, R] bool, False on padding (on the left).
        attention_mask: [B, R] bool, of the prompt behind the last stage.
        position_ids: [P, B, R] int64, the tokens' original rotary positions.
        next_position: [B] int64, rotary position of the first new token.
        visual_id: [B, R] int64, number of the visual token at each position, -1 elsewhere.
        keep_mask: [N] bool over all visual tokens of the batch.
        importance_logits: [N] float32 of the last stage, None if nothing was scored.
        layout: the images of the batch, as the model saw them.
        full_layout: the images as they came; another one only if the method resized them.
        full_length: [B] int64, tokens of each prompt as it came.
        layers_run: [N] int64, decoder layers that worked on each visual token.
        layers_cached: [N] int64, decoder layers whose cache holds it now.
        findings: what the host did not have to wait for: see `insist`.
    """

    logits: Tensor
    cache: DynamicCache
    cache_masks: LayerMasks
    attention_mask: Tensor
    position_ids: Tensor
    next_position: Tensor
    visual_id: Tensor
    keep_mask: Tensor
    importance_logits: Tensor | None
    layout: VisualLayout
    full_layout: VisualLayout
    full_length: Tensor
    layers_run: Tensor
    layers_cached: Tensor
    findings: list[Finding] = field(default_factory=list)

    def insist(self) -> None:
        """Raises ValueError if scores were not finite. Call it where the host waits for the device anyway."""
        while self.findings:
            self.findings[0].insist()
            self.findings.pop(0)

    @property
    def keep_masks(self) -> list[Tensor]:
        """Masks of the images, bool [h, w] each."""
        return self.layout.split_by_image(self.keep_mask)

    @property
    def num_kept(self) -> list[int]:
        """Visual tokens kept of each prompt; raises like `insist`."""
        self.insist()
        return torch.stack([part.sum() for part in self.layout.split_by_prompt(self.keep_mask)]).tolist()


@torch.no_grad()
def prefill(
    backbone: Backbone,
    inputs: Mapping[str, Tensor],
    pruner: Pruner | None = None,
    options: Options | None = None,
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
        options: budget and threshold of this call; a list has one entry per prompt.
        evidence_masks: for `oracle`: one [h, w] mask per image.
        seed: for methods that draw; one for the batch, or one per prompt.
        logits_to_keep: positions at the end whose logits are wanted; 0: all.
        images: of `Backbone.see`, when several methods prefill the same batch.

    Raises:
        ValueError: inputs that do not fit together, or options that the pruner cannot work with.
    """
    pruner, options = pruner or NoPruner(), options or PruneOptions()
    inputs = on_host(inputs)
    full_layout, full_mask = backbone.layout(inputs)
    for one in dict.fromkeys([options] if isinstance(options, PruneOptions) else options):
        pruner.check(one, backbone.num_layers)
    options = of_prompts(options, full_layout)
    if not isinstance(seed, int) and len(seed) != full_layout.num_prompts:
        raise ValueError(f"seed has {len(seed)} entries for {full_layout.num_prompts} prompts")
    if full_layout.num_tokens == 0:
        pruner = NoPruner()  # text only: nothing to prune, nothing to append
    seen = pruner.prepare(backbone, inputs, options)
    prompt = backbone.embed(seen, pruner.taps, None if pruner.sees_own_images else images, pruner.attended)
    next_position = prompt.next_positions(1)[-1, :, 0]  # before an image at the end loses its last tokens
    run = _Run.start(backbone, pruner, prompt, options, evidence_masks, seed)
    for index in range(BEFORE_FIRST_LAYER, backbone.num_layers):
        if index > BEFORE_FIRST_LAYER:
            run.layer(index)
        if index in run.stages:
            run.prune(index)
    run.count_layers(backbone.num_layers - 1)
    return Prefill(
        logits=backbone.logits(prompt.hidden[:, -logits_to_keep:]),
        cache=run.cache,
        cache_masks=run.cache_masks,
        attention_mask=prompt.attention_mask,
        position_ids=prompt.position_ids,
        next_position=next_position,
        visual_id=prompt.visual_id,
        keep_mask=run.alive,
        importance_logits=run.scores,
        layout=prompt.layout,
        full_layout=full_layout,
        full_length=backbone.send(full_mask.sum(1)),
        layers_run=run.layers_run,
        layers_cached=run.alive * backbone.num_layers if pruner.compact_cache else run.layers_run,
        findings=run.findings,
    )


@dataclass
class _Run:
    """State of one prefill between two layers."""

    backbone: Backbone
    pruner: Pruner
    prompt: Prompt
    options: Options
    evidence_masks: Sequence[Tensor] | None
    seed: int | Sequence[int]
    cache: DynamicCache
    stages: set[int]
    vectors: dict[int, Tensor]  # the pruner's own tokens, while they are in the sequence
    alive: Tensor
    layers_run: Tensor
    mask: Tensor | None
    rotary: Rotary
    counted: int = BEFORE_FIRST_LAYER  # the last layer that is in `layers_run`
    scores: Tensor | None = None
    attention: dict[int, Tensor] = field(default_factory=dict)
    cache_masks: LayerMasks = field(default_factory=LayerMasks)
    findings: list[Finding] = field(default_factory=list)  # that nobody has waited for yet

    @classmethod
    def start(cls, backbone, pruner, prompt, options, evidence_masks, seed) -> _Run:
        vectors = {i: v.to(prompt.hidden) for i, v in pruner.tokens().items()}
        if vectors:
            prompt.append(vectors[0])
        alive = torch.ones(prompt.layout.num_tokens, dtype=torch.bool, device=prompt.hidden.device)
        return cls(
            backbone=backbone,
            pruner=pruner,
            prompt=prompt,
            options=options,
            evidence_masks=evidence_masks,
            seed=seed,
            cache=DynamicCache(config=backbone.text_config),
            stages=set(pruner.stages),
            vectors=vectors,
            alive=alive,
            layers_run=torch.zeros_like(alive, dtype=torch.long),
            mask=backbone.causal_mask(prompt.hidden, prompt.padding_mask, None),
            rotary=backbone.rotary(prompt.hidden, prompt.position_ids),
        )

    def layer(self, index: int) -> None:
        """Runs one decoder layer, and reads the attention row of the last position if the pruner reads it here."""
        hidden = self.prompt.hidden
        if index in self.vectors and index > 0:
            hidden[:, -self.vectors[index].shape[0] :] += self.vectors[index]
        self.prompt.hidden = self.backbone.run_layer(index, self.prompt, self.mask, self.rotary, self.cache)
        self.cache_masks.add_layer(self.prompt)
        if index in self.pruner.read_layers:
            query = self.backbone.query(index, hidden[:, -1:], self._last_rotary())
            layer: Any = self.cache.layers[index]
            self.attention[index] = self._attention_row(query, layer.keys, self.pruner.log_softmax)

    def prune(self, index: int) -> None:
        """Asks the pruner and drops what it does not keep; with the last stage, the pruner's own tokens too."""
        view = PruneView(
            stage=index,
            num_layers=self.backbone.num_layers,
            prompt=self.prompt,
            options=self.options,
            alive=self.alive,
            attention=self.attention,
            evidence_masks=self.evidence_masks,
            seed=self.seed,
            look_ahead=lambda rotate: self._look_ahead(index + 1, rotate),
        )
        self.count_layers(index)
        self.scores = self.pruner.scores(view)
        finite = self._finite(self.scores, index)
        self.alive = self.pruner.keep(self.scores, view)
        replace_visual(self.prompt, self.pruner.merge(view, self.alive))
        is_last = index == max(self.stages)
        num_appended = self.vectors[0].shape[0] if is_last and self.vectors else 0
        self.vectors = {} if is_last else self.vectors
        num_dropped = self._num_dropped(view)
        gather = drop(self.prompt, self.alive, num_appended, num_dropped, finite)
        if num_dropped is not None:
            self.findings.append(finite)
        if self.pruner.compact_cache:
            compact(self.cache, gather)
            self.cache_masks.compact(self.prompt)
        if is_last:
            self.prompt.taps = []  # nobody reads them any more
        self.mask = self.backbone.causal_mask(self.prompt.hidden, self.prompt.padding_mask, None)
        self.rotary = self.backbone.rotary(self.prompt.hidden, self.prompt.position_ids)

    def _finite(self, scores: Tensor, index: int) -> Finding:
        """That scores, and the attention that they come from, are finite for all tokens that are still there."""
        read = [scores[:, None], *self.attention.values()]
        read += [look.received[:, None] for look in self.prompt.vision_attention.values()]
        wrong = [one.isnan() if self.pruner.infinite_scores else ~one.isfinite() for one in read]
        wrong_tokens = torch.stack([one.any(1) for one in wrong]).any(0)
        where = "before the first layer" if index == BEFORE_FIRST_LAYER else f"after layer {index}"
        return Finding(
            ~(wrong_tokens & self.alive).any(),
            f"pruner {self.pruner.name!r}: scores of visual tokens {where} are not finite numbers; "
            f"{str(self.prompt.hidden.dtype).removeprefix('torch.')} may be too narrow for this model: "
            "try dtype='bfloat16' or 'float32'",
        )

    def _num_dropped(self, view: PruneView) -> list[int] | None:
        """Number dropped per prompt, where an exact budget meets tokens that are all still there; else None."""
        if self.pruner.decides_itself or view.stage != min(self.stages):
            return None
        counts = known_counts(view.layout, self.pruner.stage_options(view))
        if counts is None:
            return None
        return [size - count for size, count in zip(view.layout.prompt_sizes, counts, strict=True)]

    def count_layers(self, index: int) -> None:
        """Notes that the tokens alive now went through all layers up to this one."""
        self.layers_run += self.alive * (index - self.counted)
        self.counted = index

    def _look_ahead(self, index: int, rotate: bool) -> Tensor:
        """Attention of the last position in a layer that has not run yet, from its own projections."""
        if index == self.backbone.num_layers:
            raise ValueError(f"pruner {self.pruner.name!r} looks ahead after layer {index - 1}, which is the last one")
        hidden, rotary = self.prompt.hidden, self.rotary if rotate else None
        query = self.backbone.query(index, hidden[:, -1:], self._last_rotary() if rotate else None)
        return self._attention_row(query, self.backbone.key(index, hidden, rotary), log_softmax=True)

    def _last_rotary(self) -> Rotary:
        cos, sin = self.rotary
        return cos[:, -1:], sin[:, -1:]

    def _attention_row(self, query: Tensor, keys: Tensor, log_softmax: bool) -> Tensor:
        """Reads one row [N, H] from a layer's own projections: no second attention, no S x S weights."""
        row = read_attention(query, keys, self.prompt.attention_mask, log_softmax)[:, :, 0]
        return self.prompt.gather_visual(row.transpose(1, 2), float("-inf"))


def replace_visual(prompt: Prompt, merged: Tensor | None) -> None:
    """Puts new hidden states [N, D] in the places of the visual tokens; None: leaves all as it is."""
    if merged is not None:
        new = prompt.spread_visual(merged.to(prompt.hidden))
        prompt.hidden = torch.where(prompt.is_visual.unsqueeze(-1), new, prompt.hidden)
