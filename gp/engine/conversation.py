"""Several prompts that begin alike: what the prune layer saw of the common part is kept and computed once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gp.backbones import Backbone, on_host
from gp.backbones.cropping import Crop
from gp.backbones.originals import Originals
from gp.engine.compaction import tail_of
from gp.engine.prefill import Prefill, finish, prefill
from gp.engine.run import Run
from gp.pruners import NoPruner, Pruner
from gp.selection import Options, of_prompts
from gp.types import ImageFeatures, Prompt, PruneOptions, VisualLayout


@dataclass
class Conversation:
    """One prompt that grows from turn to turn, pruned anew in each.

    The layers up to the method's first stage see all tokens, whatever the question: their keys, values and outputs are
    kept, images are encoded once, and a turn runs only what is new through these layers, then what it keeps of
    everything through the others. Each turn gives what a prefill of its whole prompt gives. With a method that makes
    images of its own for each question (`zoom`, `downsample`) a turn is that prefill: nothing is kept.

    Args:
        backbone: adapter of the frozen model.
        pruner: the method.

    Attributes:
        ids: of the prompt that is kept; a turn goes on behind the part that it has in common with it.
        trunk: that prompt behind the layer of the first stage.
        images, layout, pixels: of its images: their features, places, and what the features were made of.
        has_own: whether the method has tokens of its own.

    """

    backbone: Backbone
    pruner: Pruner
    ids: list[int] | None = None
    trunk: Run | None = None
    images: ImageFeatures | None = None
    layout: VisualLayout | None = None
    pixels: Tensor | None = None
    has_own: bool = False

    def __post_init__(self) -> None:
        self.has_own = bool(self.pruner.tokens())  # made once: vectors of all layers cost something

    @torch.no_grad()
    def turn(
        self,
        inputs: Mapping[str, Tensor],
        options: Options | None = None,
        seed: int = 0,
        logits_to_keep: int = 1,
        originals: Originals | None = None,
    ) -> Prefill:
        """Prefills the prompt of a turn.

        Args:
            inputs: the processor's output for the whole conversation up to the question: one row.
            options, seed, logits_to_keep, originals: as for `gp.engine.prefill.prefill`.

        Raises:
            ValueError: several rows, or what `prefill` raises.
        """
        inputs, backbone = on_host(inputs), self.backbone
        if len(inputs["input_ids"]) != 1:
            raise ValueError(f"a conversation is one prompt, got {len(inputs['input_ids'])} rows of input_ids")
        if self.pruner.sees_own_images:
            how: dict[str, Any] = {"logits_to_keep": logits_to_keep, "originals": originals}
            return prefill(backbone, inputs, self.pruner, options, None, seed, **how)
        layout, mask = backbone.layout(inputs)
        options = options or PruneOptions()
        for one in dict.fromkeys([options] if isinstance(options, PruneOptions) else options):
            self.pruner.check(one, backbone.num_layers)
        prompt = backbone.embed(inputs, self.pruner.taps, self._see(inputs, layout), self.pruner.attended)
        next_position = prompt.next_positions(1)[-1, :, 0]
        run = self._to_trunk(inputs["input_ids"][0][mask[0]].tolist(), prompt).copy()
        run.options, run.seed = of_prompts(options, layout), seed
        if layout.num_tokens == 0:
            run.take(NoPruner())
        elif self.has_own:
            run.take(self.pruner)
            run.append_own()
        if run.depth in run.stages_left:
            run.prune(run.depth)
        run.advance(backbone.num_layers - 1)
        return finish(run, next_position, layout, mask, logits_to_keep)

    @property
    def _depth(self) -> int:
        """The layer up to which nothing is pruned."""
        return min(self.pruner.stages, default=self.backbone.num_layers - 1)

    def _see(self, inputs: Mapping[str, Tensor], layout: VisualLayout) -> ImageFeatures:
        """Features of all images; only those that are new are encoded, if the others come first."""
        old = self.layout.grids if self.layout is not None else ()
        if not self._begins_alike(inputs, layout, old):
            old, self.trunk = (), None
        if not old or self.images is None:
            self.images = self.backbone.see(inputs, self.pruner.taps, self.pruner.attended)
        elif len(layout.grids) > len(old):
            whole = [Crop(k, (0, 0, *grid)) for k, grid in enumerate(layout.grids) if k >= len(old)]
            new = self.backbone.see(self.backbone.crop(inputs, whole), self.pruner.taps, self.pruner.attended)
            self.images = self.images.plus(new)
        self.layout = layout
        self.pixels = inputs.get("pixel_values")
        return self.images

    def _begins_alike(
        self, inputs: Mapping[str, Tensor], layout: VisualLayout, old: tuple[tuple[int, int], ...]
    ) -> bool:
        """Whether the first images are those of the turn before."""
        before, now = self.pixels, inputs.get("pixel_values")
        if before is None or not old:
            return True
        return now is not None and layout.grids[: len(old)] == old and torch.equal(now[: len(before)], before)

    def _to_trunk(self, ids: list[int], prompt: Prompt) -> Run:
        """Makes the trunk the whole prompt, going on from what it has in common with it."""
        start = common(self.ids or [], ids[:-1])  # at least one token is new: methods read the last one
        image = self.backbone.image_token_id
        if self.trunk is not None and image in (self.ids or [])[start:]:
            self.trunk = None  # an image would have to be taken back
        if self.trunk is None:
            self.trunk = Run.start(self.backbone, NoPruner(), prompt, PruneOptions())
            self._take()
            self.trunk.advance(self._depth, prune=False)
        else:
            self.trunk.cut([len(self.ids or []) - start])
            here = torch.arange(self.trunk.prompt.layout.num_tokens, device=self.backbone.device)
            self.trunk.renumber(prompt.layout, here)
            self.trunk.prompt.taps, self.trunk.prompt.vision_attention = prompt.taps, prompt.vision_attention
            self._take()
            self.trunk.append(tail_of(prompt, [start]))
        self.ids = ids
        return self.trunk

    def _take(self) -> None:
        """What a method reads at the question's last token is read on the way; tokens of its own come later."""
        assert self.trunk is not None
        self.trunk.take(NoPruner() if self.has_own else self.pruner)


def common(one: list[int], other: list[int]) -> int:
    """Number of first entries that are the same."""
    pairs = enumerate(zip(one, other))
    return next((k for k, (a, b) in pairs if a != b), min(len(one), len(other)))
