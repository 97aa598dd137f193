"""The one prefill: embeds the prompts and runs them through the decoder, pruned where the method says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from gp.backbones import Backbone, LayerMasks, on_host
from gp.backbones.cropping import Crop
from gp.backbones.originals import ORIGINALS, Originals
from gp.engine.closer import go_closer
from gp.engine.compaction import Finding
from gp.engine.run import Run
from gp.pruners import NoPruner, Pruner
from gp.selection import Options, of_prompts
from gp.types import ImageFeatures, PruneOptions, VisualLayout


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
        crops: parts of the images (of `full_layout`) that were seen again, in the order in which they stand in `layout`
            behind the other images of their prompt.
        notes: what the method left, see `gp.pruners.PruneView`.
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
    crops: tuple[Crop, ...] = ()
    notes: dict[str, Any] = field(default_factory=dict)

    def insist(self) -> None:
        """Raises ValueError if scores were not finite. Call it where the host waits for the device anyway."""
        while self.findings:
            self.findings[0].insist()
            self.findings.pop(0)

    @property
    def keep_masks(self) -> list[Tensor]:
        """Masks of the images that came, bool [h, w] each; smaller ones if the method made the images smaller."""
        return self._of_images(self.keep_mask)

    @property
    def importance(self) -> list[Tensor]:
        """Scores of the last stage on the grids of `keep_masks`, float32 [h, w] each; empty if nothing was scored.

        Logits of methods that decide by a threshold; of others only their order means something. -inf or NaN where an
        earlier stage dropped the token.
        """
        return [] if self.importance_logits is None else self._of_images(self.importance_logits)

    @property
    def seen_again(self) -> list[SeenAgain]:
        """The crops, with what was kept of them."""
        masks = self.layout.split_by_image(self.keep_mask)
        kept = [mask for mask, new in zip(masks, self._is_crop, strict=True) if new]
        return [SeenAgain(crop, self.full_layout.grids[crop.image], mask) for crop, mask in zip(self.crops, kept)]

    @property
    def seen_masks(self) -> list[Tensor]:
        """On the grids of the images as they came, bool [h, w] each: what lies behind a token that is still there."""
        masks = [on_grid(mask, grid) for mask, grid in zip(self.keep_masks, self.full_layout.grids, strict=True)]
        for again in self.seen_again:
            top, left, bottom, right = again.crop.box
            masks[again.crop.image][top:bottom, left:right] |= on_grid(again.keep_mask, again.crop.size)
        return masks

    def _of_images(self, values: Tensor) -> list[Tensor]:
        """Values of all visual tokens, [N], by image, without those of crops."""
        parts = self.layout.split_by_image(values)
        return [part for part, new in zip(parts, self._is_crop, strict=True) if not new]

    @property
    def _is_crop(self) -> list[bool]:
        """Of each image in `layout`: whether it is a crop, which stand behind the other images of their prompt."""
        rows, came = self.layout.rows, self.full_layout.rows
        return [k - rows.index(row) >= came.count(row) for k, row in enumerate(rows)]

    @property
    def num_kept(self) -> list[int]:
        """Visual tokens kept of each prompt; raises like `insist`."""
        self.insist()
        return torch.stack([part.sum() for part in self.layout.split_by_prompt(self.keep_mask)]).tolist()


@dataclass(frozen=True)
class SeenAgain:
    """A part of an image that was seen again.

    Args:
        crop: which image, and which of its visual tokens.
        grid: (height, width) of the image in visual tokens.
        keep_mask: bool [h, w], over the crop's own tokens.
    """

    crop: Crop
    grid: tuple[int, int]
    keep_mask: Tensor

    @property
    def part(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of the crop as fractions of what the image's grid lies over."""
        (height, width), (top, left, bottom, right) = self.grid, self.crop.box
        return left / width, top / height, right / width, bottom / height


def on_grid(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """A mask on another grid over the same image: what the centres of the new cells lie in; bool [h, w] -> `grid`."""
    if tuple(mask.shape) == grid:
        return mask.clone()
    return torch.nn.functional.interpolate(mask[None, None].float(), grid, mode="nearest-exact")[0, 0].bool()


def crop_counts(done: Prefill, evidence_masks: Sequence[Tensor]) -> list[tuple[int, int]]:
    """Crops of each prompt, and the tokens of its evidence (on the images as they came) that lie in one."""
    counts = []
    for row in range(done.full_layout.num_prompts):
        images = [k for k, of_row in enumerate(done.full_layout.rows) if of_row == row]
        seen = {k: torch.zeros_like(evidence_masks[k], dtype=torch.bool) for k in images}
        mine = [crop for crop in done.crops if crop.image in seen]
        for crop in mine:
            top, left, bottom, right = crop.box
            seen[crop.image][top:bottom, left:right] = True
        counts.append((len(mine), sum(int((seen[k] & evidence_masks[k].bool()).sum()) for k in images)))
    return counts


def prefill(
    backbone: Backbone,
    inputs: Mapping[str, Tensor],
    pruner: Pruner | None = None,
    options: Options | None = None,
    evidence_masks: Sequence[Tensor] | None = None,
    seed: int | Sequence[int] = 0,
    logits_to_keep: int = 1,
    images: ImageFeatures | None = None,
    originals: Originals | None = None,
) -> Prefill:
    """Runs a left-padded batch of prompts through the model, dropping visual tokens on the way.

    Gradients are the caller's choice; with them, layers run again in the backward pass (`gp.engine.again`).

    Args:
        backbone: adapter of the frozen model.
        inputs: processor output: `input_ids` [B, S], `attention_mask`, image tensors.
        pruner: the method; None keeps everything.
        options: budget and threshold of this call; a list has one entry per prompt.
        evidence_masks: for `oracle`: one [h, w] mask per image.
        seed: for methods that draw; one for the batch, or one per prompt.
        logits_to_keep: positions at the end whose logits are wanted; 0: all.
        images: of `Backbone.see`, when several methods prefill the same batch.
        originals: the pictures behind the images, for methods that look closer.

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
    seen = on_host(pruner.prepare(backbone, inputs, options))
    if images is None or pruner.sees_own_images:
        images = backbone.see(seen, pruner.taps, pruner.attended)
    prompt = backbone.embed(seen, pruner.taps, images, pruner.attended)
    # what a method taps lives no longer than its last stage
    images = replace(images, taps={}, attention={}) if pruner.looks_closer else None
    next_position = prompt.next_positions(1)[-1, :, 0]  # before an image at the end loses its last tokens
    run = Run.start(backbone, pruner, prompt, options, evidence_masks, seed, full_layout)
    if originals is not None:
        originals.check(len(full_layout.grids))
        run.notes[ORIGINALS] = originals
    crops: tuple[Crop, ...] = ()
    if images is not None:
        run.advance(max(pruner.stages))
        closer = pruner.look_closer(backbone, inputs, run.prompt.layout, run.notes)
        if closer is not None:
            next_position = go_closer(run, seen, images, closer).next_positions(1)[-1, :, 0]
            crops = closer.crops
    run.advance(backbone.num_layers - 1)
    return finish(run, next_position, full_layout, full_mask, logits_to_keep, crops)


def finish(
    run: Run,
    next_position: Tensor,
    full_layout: VisualLayout,
    full_mask: Tensor,
    logits_to_keep: int = 1,
    crops: tuple[Crop, ...] = (),
) -> Prefill:
    """What a run through all layers leaves.

    Args:
        run: behind the last layer.
        next_position: [B] int64, rotary position of the first new token.
        full_layout: the images as they came.
        full_mask: [B, S] bool, of the prompts as they came.
        logits_to_keep: positions at the end whose logits are wanted; 0: all.
        crops: see `Prefill`.
    """
    backbone, prompt = run.backbone, run.prompt
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
        layers_cached=run.alive * backbone.num_layers if run.pruner.compact_cache else run.layers_run,
        findings=run.findings,
        crops=crops,
        notes={name: value for name, value in run.notes.items() if name != ORIGINALS},
    )
