"""Zoom: a small copy of the image tells where to look, and only that part is seen at full resolution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import ClassVar

import torch
from torch import Tensor

from gp.backbones import Backbone
from gp.backbones.cropping import Crop
from gp.backbones.twig import Twig
from gp.pruners.base import Closer, Pruner, PruneView
from gp.pruners.downsample import fit_grid
from gp.pruners.regions import cells_behind, rectangles, scaled
from gp.selection import Options, whole_tokens
from gp.types import PruneOptions, VisualLayout

CROP_KEEP = ("region", "all")
GATES = ("always", "rule", "never")
WIDE = 0.5  # share of an image that its crops cover together from which on `rule` takes none


class Zoom(Pruner):
    """A method looks at a small copy of the image; where it looks, the image is seen again at full resolution.

    1. Glance: every image, resized to `glance` of its visual tokens, goes through the vision tower, and the prompt
       through the decoder layers up to the one after which the method drops tokens.
    2. Where: cells that it keeps (over the threshold, or the budget's best) make groups; the best `max_crops` give
       rectangles with `margin` cells around.
    3. Closer: these parts of the full-resolution image go through the tower, each as an image of its own. Of their
       tokens those over kept cells (and the margin) stay.
    4. Answer: text before, kept glance tokens, crop tokens, question. Keys and values of the former two are there
       already; crops and question follow them, from the first layer on, at the positions of the stock prompt with the
       crops as further images.
    5. Gate: where no crop is taken, the glance's own prefill goes on.

    Of several images in a prompt all crops stand behind the last one.

    Args:
        of: the method that looks.
        glance: share of the visual tokens that the small copy has, in (0, 1]; None: a quarter, or all where the base
            sees images of one size only.
        margin: cells of the glance around each group.
        max_crops: of one image.
        crop_keep: `region` or `all` of a crop's tokens.
        gate: `always` a crop; `never` one; `rule`: none where the crops would cover half of the image or more.

    Raises:
        ValueError: a value outside its range, or a method that drops no tokens or resizes images itself.

    Source: ours. Related: Q-Zoom (arXiv 2604.06912), ViCrop (arXiv 2502.17422).
    """

    name: ClassVar[str] = "zoom"
    sees_own_images: ClassVar[bool] = True
    looks_closer: ClassVar[bool] = True

    def __init__(
        self,
        of: Pruner,
        glance: float | None = None,
        margin: int = 1,
        max_crops: int = 2,
        crop_keep: str = "region",
        gate: str = "always",
    ) -> None:
        super().__init__()
        if glance is not None and not 0 < glance <= 1:
            raise ValueError(f"zoom: glance must be in (0, 1], got {glance!r}")
        for name, count, least in (("margin", margin, 0), ("max_crops", max_crops, 1)):
            if not isinstance(count, int) or isinstance(count, bool) or count < least:
                raise ValueError(f"zoom: {name} must be a whole number of {least} or more, got {count!r}")
        for name, word, known in (("crop_keep", crop_keep, CROP_KEEP), ("gate", gate, GATES)):
            if word not in known:
                raise ValueError(f"zoom: {name} must be one of {', '.join(known)}, got {word!r}")
        if not of.stages or of.sees_own_images:
            raise ValueError(f"zoom: {of.name!r} drops no tokens that would tell where to look: name another method")
        self.of = copy(of)  # the caller's stays as it is
        self.glance, self.margin, self.max_crops = glance, margin, max_crops
        self.crop_keep, self.gate = crop_keep, gate
        self.stages, self.read_layers, self.log_softmax = of.stages, of.read_layers, of.log_softmax
        self.taps, self.attended = of.taps, of.attended
        self.infinite_scores, self.decides_itself = of.infinite_scores, of.decides_itself
        self.of.compact_cache = True  # what follows must see the same tokens in all layers

    @classmethod
    def settings(cls) -> list[str]:
        return ["of", "glance", "margin", "max_crops", "crop_keep", "gate"]

    # ---- the glance: as the method does -------------------------------------------------------------------------

    def prepare(self, backbone: Backbone, inputs: Mapping[str, Tensor], options: Options) -> Mapping[str, Tensor]:
        layout, _ = backbone.layout(inputs)
        share = self.glance if self.glance is not None else (1.0 if backbone.one_image_size else 0.25)
        sizes = [fit_grid(h, w, max(1, whole_tokens(share, h * w))) for h, w in layout.grids]
        return inputs if tuple(sizes) == layout.grids else backbone.downsample(inputs, sizes)

    def own_layers(self) -> Twig | None:
        return self.of.own_layers()

    def tokens(self) -> dict[int, Tensor]:
        return self.of.tokens()

    def scores(self, view: PruneView) -> Tensor:
        return self.of.scores(view)

    def stage_options(self, view: PruneView) -> Options:
        return self.of.stage_options(view)

    def keep(self, scores: Tensor, view: PruneView) -> Tensor:
        return self.of.keep(scores, view)

    def merge(self, view: PruneView, keep_mask: Tensor) -> Tensor | None:
        return self.of.merge(view, keep_mask)

    def check(self, options: PruneOptions, num_layers: int) -> None:
        self.of.check(options, num_layers)

    # ---- the closer look ----------------------------------------------------------------------------------------

    def look_closer(
        self,
        backbone: Backbone,
        inputs: Mapping[str, Tensor],
        layout: VisualLayout,
        alive: Tensor,
        scores: Tensor,
    ) -> Closer | None:
        full, _ = backbone.layout(inputs)
        kept = [mask.cpu() for mask in layout.split_by_image(alive)]
        importance = [part.cpu() for part in layout.split_by_image(scores.float().sigmoid().nan_to_num(0.0))]
        crops = []
        for image, (mask, weights) in enumerate(zip(kept, importance, strict=True)):
            crops += self.choose(image, mask, weights, full.grids[image], backbone)
        if not crops:
            return None
        pixels = backbone.crop(inputs, crops)
        sizes = backbone.image_sizes(pixels)
        regions = [widened(mask, self.margin) for mask in kept]
        wanted = [self._wanted(one, size, full, layout, regions) for one, size in zip(crops, sizes, strict=True)]
        return Closer(tuple(crops), tuple(sizes), pixels, torch.cat(wanted))

    def choose(
        self, image: int, mask: Tensor, importance: Tensor, full: tuple[int, int], backbone: Backbone
    ) -> list[Crop]:
        """Crops of one image.

        Args:
            image: its number.
            mask: cells that the method keeps, bool [h, w].
            importance: of the cells, 0..1, [h, w].
            full: (height, width) of the image in visual tokens.
            backbone: knows which boxes the tower takes.
        """
        if self.gate == "never":
            return []
        grid = (mask.shape[0], mask.shape[1])
        boxes = [scaled(box, grid, full) for box in rectangles(mask, importance, self.max_crops, self.margin)]
        crops = [Crop(image, backbone.fit_box(box, full)) for box in boxes]
        area = sum(crop.size[0] * crop.size[1] for crop in crops)
        return [] if self.gate == "rule" and area >= WIDE * full[0] * full[1] else crops

    def _wanted(
        self, crop: Crop, size: tuple[int, int], full: VisualLayout, glance: VisualLayout, regions: Sequence[Tensor]
    ) -> Tensor:
        """Which of a crop's tokens go to the decoder, [h * w] bool."""
        if self.crop_keep == "all":
            return torch.ones(size[0] * size[1], dtype=torch.bool)
        cells = cells_behind(crop.box, size, full.grids[crop.image], glance.grids[crop.image])
        return regions[crop.image][cells[:, 0], cells[:, 1]]


def widened(mask: Tensor, margin: int) -> Tensor:
    """Kept cells and so many around each; bool [h, w]."""
    window = 2 * margin + 1
    return torch.nn.functional.max_pool2d(mask.float()[None, None], window, 1, margin)[0, 0].bool()
