"""What `ask` returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from torch import Tensor

from gp.boxes import WHOLE_IMAGE, Frame
from gp.painting import outline, paint_tokens, side_by_side

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Answer:
    """Answer of `GlimpseModel.ask`. Prints in one line, without masks and pictures.

    Args:
        text: without special tokens.
        keep_masks: one bool [h, w] per image, True = kept.
        num_kept, num_visual: visual tokens kept, and all, of the whole prompt.
        images: that were asked about.
        frames: what each image's grid of visual tokens lies over; empty: the image.
        crops: parts that `zoom` has seen again: number of the image, and left, top, right, bottom in its pixels.
        seen_masks: one bool [h, w] per image, on its own grid also where the method made it smaller, True = a kept
            token of the image or of a crop lies over it; empty: as `keep_masks`.
    """

    text: str
    keep_masks: tuple[Tensor, ...] = field(repr=False, compare=False)
    num_kept: int
    num_visual: int
    images: tuple[Image.Image, ...] = field(default=(), repr=False, compare=False)
    frames: tuple[Frame, ...] = field(default=(), repr=False, compare=False)
    crops: tuple[tuple[int, Box], ...] = field(default=(), repr=False)
    seen_masks: tuple[Tensor, ...] = field(default=(), repr=False, compare=False)

    def overlay(self) -> Image.Image:
        """The images, side by side, with the dropped visual tokens darkened and crops framed; RGB.

        Raises:
            ValueError: an answer to a question without an image.
        """
        if not self.images:
            raise ValueError("this answer is about no image: there is nothing to show")
        frames = self.frames or [WHOLE_IMAGE] * len(self.images)
        masks = self.seen_masks or self.keep_masks
        painted = [paint_tokens(*one) for one in zip(self.images, masks, frames, strict=True)]
        for image, box in self.crops:
            outline(painted[image], box)
        return side_by_side(painted)

    def save(self, path: str | Path) -> Path:
        """Writes `overlay` to a file, as its name ends (`.png`, `.jpg`), and returns its path.

        Raises:
            ValueError: an ending that is no picture's, or no image.
        """
        self.overlay().save(path)
        return Path(path)
