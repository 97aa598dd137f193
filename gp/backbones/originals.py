"""The pictures behind a batch's pixels, for bases that see every image at one size: crops are cut out of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image
from torch import Tensor

from gp.backbones.cropping import Crop, Size

ORIGINALS = "originals"  # note of a prefill (`gp.pruners.PruneView.notes`)
WHITE = 255


class Originals:
    """Pictures as they came, in the order of the batch's images.

    Args:
        processor: of the base, from `gp.backbones.processor.load_processor`.
        pictures: RGB.
    """

    def __init__(self, processor: Any, pictures: Sequence[Image.Image]) -> None:
        self.processor, self.pictures = processor, list(pictures)

    @classmethod
    def given(cls, processor: Any, pictures: Sequence[Image.Image] | None) -> Originals | None:
        """Those of a call, if it has any; ValueError without a processor."""
        if pictures is None:
            return None
        if processor is None:
            raise ValueError("originals need a processor: use gp.from_pretrained, or set model.processor")
        return cls(processor, pictures)

    def check(self, num_images: int) -> None:
        """ValueError unless there is a picture for each image."""
        if len(self.pictures) != num_images:
            raise ValueError(
                f"originals: expected a picture for each of the {num_images} images, got {len(self.pictures)}"
            )

    def crop(self, crops: Sequence[Crop], grids: Sequence[Size]) -> dict[str, Tensor]:
        """Pixels of parts, each cut from its picture and resized once, to the size that the tower takes.

        Args:
            crops: square parts (see `Backbone.fit_box`).
            grids: (height, width) of every image of the batch in visual tokens.

        Returns:
            `pixel_values` [crops, 3, S, S], as the image processor makes them of the part.
        """
        parts = [self._part(crop, grids[crop.image]) for crop in crops]
        images = self.processor.image_processor
        how = {"do_resize": True, "do_center_crop": False, "do_pad": False, "return_tensors": "pt"}
        side = images.crop_size["height"] if images.do_center_crop else _side(images.size)
        return {"pixel_values": images(parts, size={"height": side, "width": side}, **how)["pixel_values"]}

    def _part(self, crop: Crop, grid: Size) -> Image.Image:
        """The pixels behind a crop, at the picture's own resolution; what lies outside has the colour of the border."""
        picture = self.pictures[crop.image]
        width, height = picture.size
        left, top, right, bottom = self.processor.frame(width, height)
        x, y = (right - left) * width / grid[1], (bottom - top) * height / grid[0]  # pixels a token stands for
        box = crop.box
        edges = (
            round(left * width + box[1] * x),
            round(top * height + box[0] * y),
            round(left * width + box[3] * x),
            round(top * height + box[2] * y),
        )
        part = Image.new("RGB", (max(edges[2] - edges[0], 1), max(edges[3] - edges[1], 1)), self._border())
        part.paste(picture.convert("RGB"), (-edges[0], -edges[1]))
        return part

    def _border(self) -> tuple[int, ...]:
        """The colour that images are padded with: the mean that is taken off them."""
        return tuple(int(WHITE * mean) for mean in self.processor.image_processor.image_mean)


def _side(size: Any) -> int:
    """Pixels of the square that an image processor makes."""
    return size["height"] if "height" in size else size["shortest_edge"]


def pixels_of(originals: Originals | None, crops: Sequence[Crop], grids: Sequence[Size], like: Tensor) -> Any:
    """The crops' image tensors from the pictures, of the type of the batch's own; None without pictures."""
    if originals is None:
        return None
    return {name: value.to(like.dtype) for name, value in originals.crop(crops, grids).items()}
