"""Zoom: a small copy of the image tells where to look, and only that part is seen at full resolution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from math import floor, sqrt
from typing import Any, ClassVar

import torch
from torch import Tensor

from gp.backbones import Backbone
from gp.backbones.cropping import Crop
from gp.backbones.originals import ORIGINALS, pixels_of
from gp.backbones.twig import Twig
from gp.pruners.base import Closer, Pruner, PruneView, RankingPruner
from gp.pruners.glimpse import GlimpsePruner, looked_at
from gp.pruners.regions import centres, near, rectangles, scaled
from gp.pruners.sharing import best_of, most_that_fit
from gp.selection import Group, Options, groups_of, of_prompts
from gp.types import PruneOptions, VisualLayout

CROP_KEEP = ("region", "all")
GATES = ("always", "rule", "trained", "never")
WIDE = 0.5  # share of an image that its crops cover together from which on `rule` takes none
PLAN = "zoom"  # note: the crops that were chosen


@dataclass(frozen=True)
class Plan:
    """Crops of a batch.

    Args:
        crops: in the order of their images.
        wanted: of each crop bool [h * w], tokens that go to the decoder.
    """

    crops: tuple[Crop, ...] = ()
    wanted: tuple[Tensor, ...] = ()


class Zoom(Pruner):
    """A method looks at a small copy of the image; where it looks, the image is seen again at full resolution.

    1. Glance: every image, resized to `glance` of its visual tokens, goes through the vision tower, and the prompt
       through the decoder layers up to the one after which the method drops tokens.
    2. Where: cells that it keeps (over the threshold, or the budget's best) make groups; the best `max_crops` give
       rectangles with `margin` cells around; faint cells beside far more important ones make none larger.
    3. Closer: these parts of the full-resolution image go through the tower, each as an image of its own. Of their
       tokens those over kept cells (and the margin) stay.
    4. Answer: text before, kept glance tokens, crop tokens, question. Keys and values of the former two are there
       already; crops and question follow them, from the first layer on, at the positions of the stock prompt with the
       crops as further images.
    5. Gate: where no crop is taken, the glance's own prefill goes on.

    Of several images in a prompt all crops stand behind the last one. On a base that sees images at one size (LLaVA)
    crops are cut from the pictures themselves where the call has them (`originals`), else enlarged from what it saw.

    A budget is a share of the visual tokens of the images as they came, T tokens of a prompt (or image, by
    `budget_scope`), and counts what is kept of the copy and of the crops together. It is solved so: the k most
    important cells are looked at, k the largest number whose own tokens and crops are within T (of a method that
    decides by itself, no more cells than it keeps); if one cell's crop is too large alone, the tokens of its least
    important cells go; what is left of T goes to further tokens of the copy, the most important ones first. With
    fewer tokens than T in copy and crops, all of them stay. `max_keep_ratio` is a bound, and nothing is filled up.

    Args:
        of: the method that looks.
        glance: share of the visual tokens that the small copy has, in (0, 1], rounded down on either side; None: a
            quarter, or all where the base sees images of one size only.
        margin: cells of the glance around each group; half a cell is a token of the image if the glance is a quarter.
        max_crops: of one image.
        crop_keep: `region` or `all` of a crop's tokens.
        gate: `always` a crop; `never` one; `rule`: none where the crops would cover half of the image or more;
            `trained`: none where the glimpse's gate is `sure` that the copy is enough.
        sure: probability in (0, 1) from which on the trained gate takes no crop.

    Raises:
        ValueError: a value outside its range, a method that drops no tokens or resizes images itself, or
            `gate=trained` of a method without a trained gate.

    Source: ours. Related: Q-Zoom (arXiv 2604.06912), ViCrop (arXiv 2502.17422).
    """

    name: ClassVar[str] = "zoom"
    sees_own_images: ClassVar[bool] = True
    looks_closer = True
    decides_itself = True  # a budget does not tell how many of the copy's tokens stay

    def __init__(
        self,
        of: Pruner,
        glance: float | None = None,
        margin: float = 0.5,
        max_crops: int = 2,
        crop_keep: str = "region",
        gate: str = "always",
        sure: float = 0.9,
    ) -> None:
        super().__init__()
        if glance is not None and not 0 < glance <= 1:
            raise ValueError(f"zoom: glance must be in (0, 1], got {glance!r}")
        if isinstance(margin, bool) or not isinstance(margin, int | float) or not 0 <= margin < float("inf"):
            raise ValueError(f"zoom: margin must be a number of cells, 0 or more, got {margin!r}")
        if not isinstance(max_crops, int) or isinstance(max_crops, bool) or max_crops < 1:
            raise ValueError(f"zoom: max_crops must be a whole number of 1 or more, got {max_crops!r}")
        for name, word, known in (("crop_keep", crop_keep, CROP_KEEP), ("gate", gate, GATES)):
            if word not in known:
                raise ValueError(f"zoom: {name} must be one of {', '.join(known)}, got {word!r}")
        if isinstance(sure, bool) or not isinstance(sure, int | float) or not 0 < sure < 1:
            raise ValueError(f"zoom: sure must be in (0, 1), got {sure!r}")
        if not of.stages or of.sees_own_images:
            raise ValueError(f"zoom: {of.name!r} drops no tokens that would tell where to look: name another method")
        if gate == "trained" and not (isinstance(of, GlimpsePruner) and of.gate is not None):
            raise ValueError(
                f"zoom: gate 'trained' needs a trained gate, which {of.name!r} does not have: train one with task gate "
                "(configs/tiny_zoom_gate.yaml), load its folder as the glimpse, or choose another gate"
            )
        self.of = copy(of)  # the caller's stays as it is
        self.glance, self.margin, self.max_crops = glance, margin, max_crops
        self.crop_keep, self.gate, self.sure = crop_keep, gate, sure
        self.stages, self.read_layers, self.log_softmax = of.stages, of.read_layers, of.log_softmax
        self.taps, self.attended = of.taps, of.attended
        self.infinite_scores = of.infinite_scores
        self.of.compact_cache = True  # what follows must see the same tokens in all layers

    @classmethod
    def settings(cls) -> list[str]:
        return ["of", "glance", "margin", "max_crops", "crop_keep", "gate", "sure"]

    # ---- the glance: as the method does -------------------------------------------------------------------------

    def prepare(self, backbone: Backbone, inputs: Mapping[str, Tensor], options: Options) -> Mapping[str, Tensor]:
        layout, _ = backbone.layout(inputs)
        share = self.glance if self.glance is not None else (1.0 if backbone.one_image_size else 0.25)
        sizes = [copy_size(h, w, share) for h, w in layout.grids]
        return inputs if tuple(sizes) == layout.grids else backbone.downsample(inputs, sizes)

    def own_layers(self) -> Twig | None:
        return self.of.own_layers()

    def tokens(self) -> dict[int, Tensor]:
        return self.of.tokens()

    def scores(self, view: PruneView) -> Tensor:
        return self.of.scores(view)

    def merge(self, view: PruneView, keep_mask: Tensor) -> Tensor | None:
        return self.of.merge(view, keep_mask)

    def check(self, options: PruneOptions, num_layers: int) -> None:
        self.of.check(options, num_layers)

    # ---- what is kept of the copy, and where to look closer -----------------------------------------------------

    @torch.no_grad()
    def keep(self, scores: Tensor, view: PruneView) -> Tensor:
        search = Search(self, scores, view)
        if view.stage != max(self.stages):
            return search.keep_at_most()
        mask, view.notes[PLAN] = search.decide()
        return mask

    def shut(self, scores: Tensor, view: PruneView) -> list[bool]:
        """Of each prompt: whether the gate takes no crop, whatever the method keeps."""
        if self.gate == "trained":
            assert isinstance(self.of, GlimpsePruner) and self.of.gate is not None  # as checked above
            sure = self.of.gate(looked_at(scores, view)).sigmoid()
            return (sure >= self.sure).tolist()
        return [self.gate == "never"] * view.layout.num_prompts

    def choose(
        self, image: int, mask: Tensor, importance: Tensor, full: tuple[int, int], backbone: Backbone
    ) -> list[Crop]:
        """Crops of one image.

        Args:
            image: its number.
            mask: cells that are looked at, bool [h, w].
            importance: of the cells, 0..1, [h, w].
            full: (height, width) of the image in visual tokens.
            backbone: knows which boxes the tower takes.
        """
        grid = (mask.shape[0], mask.shape[1])
        boxes = [scaled(box, grid, full) for box in rectangles(mask, importance, self.max_crops, self.margin)]
        return [Crop(image, backbone.fit_box(box, full)) for box in boxes]

    def too_wide(self, crops: Sequence[Crop], full: tuple[int, int]) -> bool:
        """Whether the gate `rule` takes none of an image's crops."""
        area = sum(crop.size[0] * crop.size[1] for crop in crops)
        return self.gate == "rule" and area >= WIDE * full[0] * full[1]

    # ---- the closer look ----------------------------------------------------------------------------------------

    def look_closer(
        self, backbone: Backbone, inputs: Mapping[str, Tensor], layout: VisualLayout, notes: Mapping[str, Any]
    ) -> Closer | None:
        plan: Plan = notes[PLAN]
        if not plan.crops:
            return None
        full, _ = backbone.layout(inputs)
        pictures = notes.get(ORIGINALS) if backbone.one_image_size else None
        pixels = pixels_of(pictures, plan.crops, full.grids, inputs["pixel_values"]) or backbone.crop(
            inputs, plan.crops
        )
        return Closer(plan.crops, tuple(backbone.image_sizes(pixels)), pixels, torch.cat(plan.wanted))


class Search:
    """One batch, behind a stage: what the method would keep of it, with which crops, within which budget.

    Args:
        zoom: its settings.
        scores: [N] float32, of the copy's tokens.
        view: of the stage.

    Attributes:
        groups, limits: groups of the images as they came, and the tokens that each may keep; None: no limit.
        cells: tokens of the copy in each group.
        ranks, importance: scores of each image's cells, as they are and in 0..1, on the host.
    """

    def __init__(self, zoom: Zoom, scores: Tensor, view: PruneView) -> None:
        assert view.backbone is not None  # the engine gives it
        self.zoom, self.scores, self.view, self.backbone = zoom, scores, view, view.backbone
        self.full = view.full or view.layout
        self.rows = of_prompts(view.options, self.full)
        self.groups = groups_of(self.full, self.rows)
        self.unbound = [replace(one, fixed_keep_ratio=None, max_keep_ratio=None, num_keep=None) for one in self.rows]
        self.cells = [group.size for group in groups_of(view.layout, self.unbound)]
        on_host = scores.float().cpu()
        self.ranks = view.layout.split_by_image(on_host)
        self.importance = view.layout.split_by_image(on_host.sigmoid().nan_to_num(0.0))
        self.limits = [limit_of(group) for group in self.groups]

    def keep_at_most(self) -> Tensor:
        """What the method keeps where each group may keep what its budget allows; [N] bool."""
        if all(limit is None for limit in self.limits):
            return self._of(self.unbound)
        return self._keep([min(cells, limit) for cells, limit in zip(self.cells, self._bounds())])

    def decide(self) -> tuple[Tensor, Plan]:
        """Keep mask of the copy's tokens, [N] bool, and the crops."""
        shut = self.zoom.shut(self.scores, self.view)
        if all(limit is None for limit in self.limits):
            mask = self._of(self.unbound)
            return mask, self._plan(mask, shut)
        counts = self._counts(shut)
        looked_at = self._keep(counts)
        plan = self._plan(looked_at, shut)
        spent = self._tokens(plan)
        bounds = self._bounds()
        plan = self._cut(plan, [bound - count for bound, count in zip(bounds, counts)])
        filled = [
            min(cells, bound - in_crops) if group.exact is not None else count
            for group, cells, bound, in_crops, count in zip(self.groups, self.cells, bounds, spent, counts, strict=True)
        ]
        filled = [max(one, count) for one, count in zip(filled, counts)]
        return (looked_at if filled == counts else self._keep(filled)), plan

    # ---- how many cells ---------------------------------------------------------------------------------------

    def _counts(self, shut: Sequence[bool]) -> list[int]:
        """Cells of each group that are looked at."""
        bounds = self._bounds()
        most = list(self.cells)
        if not isinstance(self.zoom.of, RankingPruner):
            most = self._sizes(self._of(self.unbound))
        closed = [shut[group.prompt] for group in self.groups]

        def costs(counts: list[int]) -> list[int]:
            in_crops = self._tokens(self._plan(self._keep(counts), shut, ruled=False))
            return [count + more for count, more in zip(counts, in_crops, strict=True)]

        # without crops: as many as the budget has, or of a bound as many as the method keeps
        most = [
            cells if shut_here and group.exact is not None else own
            for group, cells, own, shut_here in zip(self.groups, self.cells, most, closed, strict=True)
        ]
        return most_that_fit(costs, most, bounds)

    def _bounds(self) -> list[int]:
        """Tokens that each group may keep."""
        return [group.size if limit is None else limit for group, limit in zip(self.groups, self.limits)]

    def _keep(self, counts: Sequence[int]) -> Tensor:
        """What the method keeps of so many cells of each group, [N] bool."""
        of_rows: list[list[int]] = [[] for _ in self.rows]
        for group, count in zip(self.groups, counts, strict=True):
            of_rows[group.prompt].append(count)
        return self._of([one.but(num_keep=tuple(own)) for one, own in zip(self.rows, of_rows, strict=True)])

    def _of(self, options: list[PruneOptions]) -> Tensor:
        return self.zoom.of.keep(self.scores, replace(self.view, options=options))

    def _sizes(self, mask: Tensor) -> list[int]:
        """Tokens of a mask in each group."""
        return [int(part.sum()) for part in mask.cpu().split(self.cells)]

    # ---- their crops ------------------------------------------------------------------------------------------

    def _plan(self, mask: Tensor, shut: Sequence[bool], ruled: bool = True) -> Plan:
        """Crops over the cells of a mask; `ruled`: whether the gate `rule` has its say."""
        zoom, layout, full = self.zoom, self.view.layout, self.full
        crops: list[Crop] = []
        wanted: list[Tensor] = []
        for image, (kept, weights) in enumerate(zip(layout.split_by_image(mask.cpu()), self.importance, strict=True)):
            if shut[layout.rows[image]]:
                continue
            found = zoom.choose(image, kept, weights, full.grids[image], self.backbone)
            if ruled and zoom.too_wide(found, full.grids[image]):
                continue
            for crop in found:
                points = self._centres(crop)
                inside = torch.ones(len(points), dtype=torch.bool)
                wanted.append(inside if zoom.crop_keep == "all" else near(points, kept, zoom.margin))
            crops += found
        return Plan(tuple(crops), tuple(wanted))

    def _centres(self, crop: Crop) -> Tensor:
        """Centre of each token of a crop in cells of the copy, [h * w, 2]."""
        grid = self.full.grids[crop.image]
        size = grid if self.backbone.one_image_size else crop.size
        return centres(crop.box, size, grid, self.view.layout.grids[crop.image])

    def _group(self, image: int) -> int:
        """Number of the group that an image is in."""
        prompt = self.full.rows[image]
        mine = [number for number, group in enumerate(self.groups) if group.prompt == prompt]
        if self.rows[prompt].budget_scope == "prompt":
            return mine[0]
        return mine[image - self.full.rows.index(prompt)]

    def _tokens(self, plan: Plan) -> list[int]:
        """Tokens of the crops of each group that go to the decoder."""
        sums = [0] * len(self.groups)
        for crop, wanted in zip(plan.crops, plan.wanted, strict=True):
            sums[self._group(crop.image)] += int(wanted.sum())
        return sums

    def _cut(self, plan: Plan, left: Sequence[int]) -> Plan:
        """The same crops with no more tokens than each group has left; those over the most important cells stay."""
        wanted = list(plan.wanted)
        for group, count in enumerate(left):
            mine = [k for k, crop in enumerate(plan.crops) if self._group(crop.image) == group]
            if not mine:
                continue
            ranks = []
            for k in mine:
                cells = self._centres(plan.crops[k]).long()
                ranks.append(self.ranks[plan.crops[k].image][cells[:, 0], cells[:, 1]])
            together = best_of(torch.cat([wanted[k] for k in mine]), torch.cat(ranks), count)
            for k, part in zip(mine, together.split([len(wanted[k]) for k in mine]), strict=True):
                wanted[k] = part
        return Plan(plan.crops, tuple(wanted))


def copy_size(height: int, width: int, share: float) -> tuple[int, int]:
    """Height and width in tokens of a copy with about `share` of an image's tokens, and the image's shape.

    Both sides shrink alike, as in a processor that is given so many pixels, and on such copies a glimpse is trained:
    cards that are wider than they were are found less often.
    """
    scale = sqrt(share)
    return max(1, floor(round(height * scale, 6))), max(1, floor(round(width * scale, 6)))


def limit_of(group: Group) -> int | None:
    """Tokens that a group may keep in all; None: what the method decides."""
    if group.exact is not None:
        return group.exact
    return None if group.options.max_keep_ratio is None else group.at_most
