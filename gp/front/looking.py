"""The glimpse: a small model says which parts of the pictures a question needs, and they are cut out."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from gp import calls
from gp.asking import conversation_inputs
from gp.backbones.cropping import Crop
from gp.model import GlimpseModel
from gp.pruners.zoom import PLAN, Zoom

NAME = Zoom.name


@dataclass(frozen=True)
class Look:
    """What a request's pictures become.

    Args:
        thumbnails: a small copy of each picture.
        crops: parts at full resolution, of all pictures.
    """

    thumbnails: list[Image.Image]
    crops: list[Image.Image]


class Looker:
    """A model that looks, one request at a time; may be used by several threads.

    Args:
        model: with its processor.
        settings: of `zoom`, and pruning options, of requests that say nothing else.

    Raises:
        ValueError: a model without trained parts and no other method named, a base whose images have one size, or an
            option that there is not.
    """

    def __init__(self, model: GlimpseModel, settings: Mapping[str, Any]) -> None:
        if model.backbone.one_image_size:
            raise ValueError("model.base: the front needs a base that sees images at their own size")
        self.model, self.settings = model, dict(settings)
        self._turn = threading.Lock()
        self.choose_method({})

    def choose_method(self, given: Mapping[str, Any]) -> tuple[Zoom, Any]:
        """`zoom` as it glances, and its options; ValueError for one that there is not."""
        rest = {**self.settings, **given}
        settings = calls.take_settings(NAME, rest)
        if ":" in json.dumps(settings.get("of", "")):
            raise ValueError("zoom.of: a request may not name code to import")
        options = calls.take_options(self.model.options, None, rest, 1)
        if rest:
            raise ValueError(f"zoom has no option {next(iter(rest))!r}")
        zoom = self.model.find_pruner(NAME, settings)
        assert isinstance(zoom, Zoom)
        zoom.looks_closer = False  # it says where, and the other server looks
        return zoom, options

    def look(
        self, messages: Sequence[Mapping[str, Any]], pictures: Sequence[Image.Image], given: Mapping[str, Any]
    ) -> Look:
        """Looks at the pictures of a conversation for its last question.

        Args:
            messages: as the processor's chat template takes them, pictures included.
            pictures: of all messages, in order.
            given: settings and pruning options of this request.

        Raises:
            ValueError: an option that there is not, or what the engine raises.
        """
        glance, options = self.choose_method(given)
        with self._turn:
            inputs = calls.take_inputs(
                self.model.backbone, conversation_inputs(self.model.processor, messages), "front"
            )
            done = self.model.prefill(inputs, glance, options)
            crops = done.notes[PLAN].crops
        full = [fit(one, grid, self.unit) for one, grid in zip(pictures, done.full_layout.grids, strict=True)]
        small = [fit(one, grid, self.unit) for one, grid in zip(pictures, done.layout.grids, strict=True)]
        return Look(small, [cut_out(full[crop.image], crop, self.unit) for crop in crops])

    @property
    def unit(self) -> int:
        """Width and height of what a visual token stands for, in pixels."""
        images = self.model.processor.image_processor
        return images.patch_size * images.merge_size


def fit(image: Image.Image, grid: tuple[int, int], unit: int) -> Image.Image:
    """A picture at the size at which a grid of visual tokens lies over it exactly, so that nobody resizes it again."""
    size = (grid[1] * unit, grid[0] * unit)
    return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)


def cut_out(image: Image.Image, crop: Crop, unit: int) -> Image.Image:
    """A part of a picture that `fit` has made."""
    top, left, bottom, right = crop.box
    return image.crop((left * unit, top * unit, right * unit, bottom * unit))
