"""Tokens on their way through the decoder: all at the same depth, with what is left of them in the caches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from gp.backbones import Backbone, LayerMasks, Rotary, read_attention
from gp.engine.again import run_again
from gp.engine.compaction import Finding, compact, drop, repack
from gp.engine.known_rows import KnownCache, rows_mask, takes_rows
from gp.engine.twig import read_twig
from gp.pruners import BEFORE_FIRST_LAYER, Pruner, PruneView
from gp.selection import Options, known_counts
from gp.types import Prompt, VisualLayout


@dataclass
class Run:
    """A batch between two decoder layers. Every token that is here went through layers 0..`depth`.

    `advance` takes all of them one layer further, `prune` drops what the method does not keep, `append` brings new
    tokens to the same depth behind those that are there, and `cut` takes the last ones away. A new token sees what is
    there, so keys and values are those of one pass over it.

    Args:
        backbone: adapter of the frozen model.
        pruner: the method, with its stages and read layers.
        prompt: the tokens, with their hidden states behind layer `depth`.
        options, evidence_masks, seed: as for `gp.engine.prefill.prefill`.
        cache: keys and values of layers 0..`depth`.
        stages_left: stages of the method that are still to come.
        vectors: the pruner's own tokens, while they are in the sequence.
        alive: [N] bool, visual tokens that no stage has dropped.
        layers_run: [N] int64, decoder layers that worked on each visual token, up to layer `counted`.
        mask, rotary: of the next layer, for all tokens.
        depth: the last layer that has run.
        scores: of the last stage.
        attention: read layer -> [N, H].
        cache_masks: of the layers that have run.
        findings: what nobody has waited for yet.
        full: the images as they came, where the method has changed them.
        notes: of the method, see `PruneView`.
    """

    backbone: Backbone
    pruner: Pruner
    prompt: Prompt
    options: Options
    evidence_masks: Sequence[Tensor] | None
    seed: int | Sequence[int]
    cache: DynamicCache
    stages_left: frozenset[int]
    vectors: dict[int, Tensor]
    alive: Tensor
    layers_run: Tensor
    mask: Tensor | None
    rotary: Rotary
    depth: int = BEFORE_FIRST_LAYER
    counted: int = BEFORE_FIRST_LAYER
    scores: Tensor | None = None
    attention: dict[int, Tensor] = field(default_factory=dict)
    cache_masks: LayerMasks = field(default_factory=LayerMasks)
    findings: list[Finding] = field(default_factory=list)
    full: VisualLayout | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def start(
        cls,
        backbone: Backbone,
        pruner: Pruner,
        prompt: Prompt,
        options: Options,
        evidence_masks: Sequence[Tensor] | None = None,
        seed: int | Sequence[int] = 0,
        full: VisualLayout | None = None,
    ) -> Run:
        """A batch before the first layer, with the pruner's own tokens behind it."""
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
            stages_left=frozenset(pruner.stages),
            vectors=vectors,
            alive=alive,
            layers_run=torch.zeros_like(alive, dtype=torch.long),
            mask=backbone.causal_mask(prompt.hidden, prompt.padding_mask, None),
            rotary=backbone.rotary(prompt.hidden, prompt.position_ids),
            full=full,
        )

    def copy(self) -> Run:
        """Another run that goes on from here. Tensors are shared: none of them is changed in place, but where the
        pruner's own tokens are in the sequence, so copy before they are.
        """
        cache = DynamicCache(config=self.backbone.text_config)
        for index in range(self.depth + 1):
            layer: Any = self.cache.layers[index]
            cache.update(layer.keys, layer.values, index)
        masks = replace(self.cache_masks, distinct=[*self.cache_masks.distinct], of_layer=[*self.cache_masks.of_layer])
        return replace(
            self,
            prompt=replace(self.prompt),
            cache=cache,
            cache_masks=masks,
            attention={**self.attention},
            findings=[*self.findings],
            notes={**self.notes},
        )

    def take(self, pruner: Pruner) -> None:
        """Goes on with another method, whose first stage is not before `depth`."""
        self.pruner, self.stages_left = pruner, frozenset(pruner.stages)

    # ---- one layer further --------------------------------------------------------------------------------------

    def advance(self, last: int, prune: bool = True) -> None:
        """Runs the layers up to and with `last`, and prunes behind those that are stages of the method, or does not."""
        if prune and BEFORE_FIRST_LAYER in self.stages_left:
            self.prune(BEFORE_FIRST_LAYER)
        for index in range(self.depth + 1, last + 1):
            is_stage = prune and index in self.stages_left
            if is_stage and not self.pruner.needs_hidden and takes_rows(self.backbone) and not torch.is_grad_enabled():
                self._pruned_layer(index)
                continue
            self._layer(index)
            if is_stage:
                self.prune(index)

    def _enter(self, index: int) -> Tensor:
        """The input of a decoder layer, on its device, with the pruner's vectors added; it is the prompt's, too."""
        hidden, self.mask, self.rotary = self.backbone.reach(index, self.prompt.hidden, self.mask, self.rotary)
        self._add_vectors(index, hidden)
        self.prompt.hidden = hidden
        return hidden

    def _pruned_layer(self, index: int) -> None:
        """Runs a stage's layer and drops, for a method that asks nothing of what comes out of the layer.

        Of a dropped token later layers see nothing, and this one its key and value alone: so all tokens give these,
        and only what stays goes through the rest of the layer. The numbers are those of `_layer` and `prune`.
        """
        hidden = self._enter(index)
        self.backbone.remember(index, hidden, self.rotary, self.cache)
        self.cache_masks.add_layer(self.prompt)
        self.depth = index
        self._read(index, hidden, self.rotary)
        layer: Any = self.cache.layers[index]
        known: Any = KnownCache(layer.keys, layer.values)
        seen = self.prompt.attention_mask
        rows = self.prune(index)
        hidden, mask, rotary = self.backbone.reach(
            index, self.prompt.hidden, rows_mask(self.backbone, seen, rows), self.rotary
        )
        self.prompt.hidden = hidden
        self.prompt.hidden = self.backbone.run_layer(index, self.prompt, mask, rotary, known)

    def _layer(self, index: int) -> None:
        """Runs one decoder layer, and reads the attention row of the last position if the pruner reads it here."""
        hidden = self._enter(index)
        if torch.is_grad_enabled():
            self.prompt.hidden = self._run_again(index)
        else:
            self.prompt.hidden = self.backbone.run_layer(index, self.prompt, self.mask, self.rotary, self.cache)
        self.cache_masks.add_layer(self.prompt)
        self.depth = index
        self._read(index, hidden, self.rotary)

    def _run_again(self, index: int) -> Tensor:
        """Hidden states behind a layer that keeps only its input for the backward pass."""
        prompt, mask, rotary = replace(self.prompt), self.mask, self.rotary  # as they are now

        def layer(hidden: Tensor, cache: Any) -> Tensor:
            return self.backbone.run_layer(index, replace(prompt, hidden=hidden), mask, rotary, cache)

        hidden, (keys, values) = run_again(layer, prompt.hidden)
        self.cache.update(keys, values, index)
        return hidden

    def _add_vectors(self, index: int, hidden: Tensor) -> None:
        if index in self.vectors and index > 0:
            hidden[:, -self.vectors[index].shape[0] :] += self.vectors[index].to(hidden.device)

    def _read(self, index: int, hidden: Tensor, rotary: Rotary) -> None:
        """Reads the row of the last of the tokens `hidden`, the input of a layer that has run, if a stage will ask."""
        if index in self.pruner.read_layers and self.stages_left:
            query = self.backbone.query(index, hidden[:, -1:], last_of(rotary))
            layer: Any = self.cache.layers[index]
            self.attention[index] = self._attention_row(query, layer.keys, self.pruner.log_softmax)

    # ---- fewer tokens -------------------------------------------------------------------------------------------

    def prune(self, index: int) -> Tensor:
        """Asks the pruner and drops what it does not keep; with the last stage, the pruner's own tokens too.

        Returns:
            The places that what stays had before, [B, R] int64.
        """
        if (twig := self.pruner.own_layers()) is not None and self.vectors:
            read = (self.vectors, self.pruner.read_layers, self.pruner.log_softmax)
            self.attention |= read_twig(self.backbone, twig, self.prompt, *read)
        view = self.view(index)
        self.stages_left = self.stages_left - {index}
        self.count_layers(index)
        self.scores = self.pruner.scores(view)
        finite = self._finite(self.scores, index)
        self.alive = self.pruner.keep(self.scores, view)
        replace_visual(self.prompt, self.pruner.merge(view, self.alive))
        is_last = index == max(self.pruner.stages)
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
        self._look_at_all()
        return gather

    def view(self, index: int) -> PruneView:
        """What the pruner sees behind layer `index`."""
        return PruneView(
            stage=index,
            num_layers=self.backbone.num_layers,
            prompt=self.prompt,
            options=self.options,
            alive=self.alive,
            attention=self.attention,
            evidence_masks=self.evidence_masks,
            seed=self.seed,
            look_ahead=lambda rotate: self._look_ahead(index + 1, rotate),
            full=self.full,
            backbone=self.backbone,
            notes=self.notes,
        )

    def cut(self, counts: Sequence[int]) -> None:
        """Takes so many tokens away at the end of each row, out of the caches too.

        Args:
            counts: of each row; text only.
        """
        steps = torch.arange(self.prompt.attention_mask.shape[1]).flip(0)  # 0: the last position
        keep = self.backbone.send(steps >= torch.tensor(counts).unsqueeze(1)) & self.prompt.attention_mask
        self.prompt.lengths = [have - less for have, less in zip(self.prompt.lengths, counts, strict=True)]
        self._repack(keep)

    def _repack(self, keep: Tensor) -> None:
        gather = repack(self.prompt, keep)
        compact(self.cache, gather)
        self.cache_masks.compact(self.prompt)
        self._look_at_all()

    def _look_at_all(self) -> None:
        """Mask and rotary of the tokens that are here now."""
        self.mask = self.backbone.causal_mask(self.prompt.hidden, self.prompt.padding_mask, None)
        self.rotary = self.backbone.rotary(self.prompt.hidden, self.prompt.position_ids)

    # ---- more tokens --------------------------------------------------------------------------------------------

    def append(self, block: Prompt) -> None:
        """Brings new tokens to the same depth, behind those that are there, which do not see them.

        Args:
            block: embedded tokens, left padded. Its visual tokens are numbered, and its layout and deepstack made, for
                all images of the batch, those that are here already among them (see `renumber`).

        Raises:
            ValueError: caches of layers that hold different tokens.
        """
        if self.cache_masks.is_ragged:
            raise ValueError(f"pruner {self.pruner.name!r}: nothing can follow where layers hold different tokens")
        here, self.prompt = self.prompt.hidden, behind(self.prompt, block)
        hidden = self._to_depth(block)
        self.prompt.hidden = torch.cat([here, hidden.to(here.device)], dim=1)
        self.cache_masks.compact(self.prompt)
        if block.has_padding:
            self._repack(self.prompt.attention_mask)
        else:
            self._look_at_all()

    def append_own(self) -> None:
        """Appends the method's own tokens, at the same depth; its last stage takes them away again."""
        prompt, hidden = self.prompt, self.prompt.hidden
        self.vectors = {i: v.to(hidden) for i, v in self.pruner.tokens().items()}
        batch, count = len(hidden), self.vectors[0].shape[0]
        self.append(
            replace(
                prompt,
                hidden=self.vectors[0].expand(batch, -1, -1).clone(),
                attention_mask=prompt.attention_mask.new_ones(batch, count),
                position_ids=prompt.next_positions(count),
                visual_id=prompt.visual_id.new_full((batch, count), -1),
                lengths=[count] * batch,
            )
        )

    def _to_depth(self, block: Prompt) -> Tensor:
        """Hidden states of a block behind layer `depth`; its keys and values join the cache."""
        padding_mask = self.prompt.attention_mask if self.prompt.has_padding else None
        mask = self.backbone.causal_mask(block.hidden, padding_mask, self.cache if self.depth >= 0 else None)
        rotary = self.backbone.rotary(block.hidden, block.position_ids)
        for index in range(self.depth + 1):
            hidden, mask, rotary = self.backbone.reach(index, block.hidden, mask, rotary)
            self._add_vectors(index, hidden)
            block.hidden = hidden
            block.hidden = self.backbone.run_layer(index, block, mask, rotary, self.cache)
            self._read(index, hidden, rotary)
        return block.hidden

    def renumber(self, layout: VisualLayout, numbers: Tensor) -> None:
        """Makes room for images that are still to come.

        Args:
            layout: of all images.
            numbers: [N] int64, new number of each visual token that is here.
        """
        prompt, total = self.prompt, layout.num_tokens

        def spread(values: Tensor, filling: float) -> Tensor:
            return values.new_full((total, *values.shape[1:]), filling).index_copy(0, numbers, values)

        if len(numbers):
            prompt.visual_id = torch.where(prompt.is_visual, numbers[prompt.visual_id.clamp(min=0)], -1)
        prompt.layout = layout
        self.alive = spread(self.alive.long(), 1).bool()
        self.layers_run = spread(self.layers_run, self.counted + 1)
        self.scores = None if self.scores is None else spread(self.scores, float("nan"))
        self.attention = {index: spread(row, float("-inf")) for index, row in self.attention.items()}

    # ---- what else is asked -------------------------------------------------------------------------------------

    def count_layers(self, index: int) -> None:
        """Notes that the tokens alive now went through all layers up to this one."""
        self.layers_run = self.layers_run + self.alive * (index - self.counted)
        self.counted = index

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
        if self.pruner.decides_itself or view.stage != min(self.pruner.stages):
            return None
        counts = known_counts(view.layout, self.pruner.stage_options(view))
        if counts is None:
            return None
        return [size - count for size, count in zip(view.layout.prompt_sizes, counts, strict=True)]

    def _look_ahead(self, index: int, rotate: bool) -> Tensor:
        """Attention of the last position in a layer that has not run yet, from its own projections."""
        if index == self.backbone.num_layers:
            raise ValueError(f"pruner {self.pruner.name!r} looks ahead after layer {index - 1}, which is the last one")
        hidden, rotary = self.prompt.hidden, self.rotary if rotate else None
        query = self.backbone.query(index, hidden[:, -1:], last_of(self.rotary) if rotate else None)
        return self._attention_row(query, self.backbone.key(index, hidden, rotary), log_softmax=True)

    def _attention_row(self, query: Tensor, keys: Tensor, log_softmax: bool) -> Tensor:
        """Reads one row [N, H] from a layer's own projections: no second attention, no S x S weights."""
        row = read_attention(query, keys, self.prompt.attention_mask, log_softmax)[:, :, 0]
        return self.prompt.gather_visual(row.transpose(1, 2), float("-inf"))


def behind(prompt: Prompt, block: Prompt) -> Prompt:
    """The tokens of a prompt with those of a block behind them; hidden states are still the prompt's alone."""
    return replace(
        prompt,
        attention_mask=torch.cat([prompt.attention_mask, block.attention_mask], dim=1),
        position_ids=torch.cat([prompt.position_ids, block.position_ids], dim=2),
        visual_id=torch.cat([prompt.visual_id, block.visual_id], dim=1),
        layout=block.layout,
        deepstack=block.deepstack,
        lengths=[one + other for one, other in zip(prompt.lengths, block.lengths, strict=True)],
    )


def last_of(rotary: Rotary) -> Rotary:
    """Cosine and sine of the last position."""
    cos, sin = rotary
    return cos[:, -1:], sin[:, -1:]


def replace_visual(prompt: Prompt, merged: Tensor | None) -> None:
    """Puts new hidden states [N, D] in the places of the visual tokens; None: leaves all as it is."""
    if merged is not None:
        new = prompt.spread_visual(merged.to(prompt.hidden))
        is_visual = prompt.is_visual.unsqueeze(-1).to(new.device)
        prompt.hidden = torch.where(is_visual, new, prompt.hidden)
