"""Crops cut from the pictures themselves, where a base sees every image at one size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import gp
from gp.backbones.cropping import Crop
from gp.backbones.originals import Originals
from gp.pruners.zoom import Zoom
from tests.support.bases import BASES
from tests.support.glimpses import micro_glimpse


@pytest.fixture(scope="module", params=[True, False], ids=["padded", "cropped"])
def model(request, tmp_path_factory):
    loaded = gp.from_pretrained(BASES["llava"](tmp_path_factory.mktemp("base")), do_pad=request.param)
    looking = micro_glimpse(loaded.base, 1)
    looking.processor = loaded.processor
    return looking


def stripes(width: int, height: int) -> Image.Image:
    """Lines of one pixel, black and white: grey in any smaller copy."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[:, ::2] = 255
    return Image.fromarray(pixels)


def side_px(model) -> int:
    return model.backbone.vision_config.image_size


def levels(model, pixels: torch.Tensor) -> torch.Tensor:
    """Pixel values as 0..1."""
    images = model.processor.image_processor
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (images.image_mean, images.image_std))
    return pixels * std + mean


def test_what_the_small_image_has_lost_is_in_the_crop(model):
    """A square picture 5 times as large as what the base sees: a fifth of it, pixel by pixel."""
    side = side_px(model)
    picture, grid = stripes(5 * side, 5 * side), 5
    assert model.backbone.image_sizes(model.processor(images=[picture], text="<image>", return_tensors="pt")) == [
        (5, 5)
    ]
    whole = model.processor.image_processor(picture, return_tensors="pt")["pixel_values"]
    crop = Crop(0, (1, 2, 2, 3))
    enlarged = levels(model, model.backbone.crop({"pixel_values": whole}, [crop])["pixel_values"][0])
    sharp = levels(model, Originals(model.processor, [picture]).crop([crop], [(grid, grid)])["pixel_values"][0])
    expected = torch.from_numpy(np.asarray(picture.crop((2 * side, side, 3 * side, 2 * side)))) / 255
    torch.testing.assert_close(sharp, expected.permute(2, 0, 1), atol=2e-3, rtol=0)
    assert float(sharp.std()) > 0.45 and float(enlarged.std()) < 0.2


def test_a_part_lies_where_the_grid_lies(model):
    """Of a wide picture: the frame is its padded square, or its middle; colours tell which part it is."""
    side = side_px(model)
    pixels = np.zeros((4 * side, 8 * side, 3), dtype=np.uint8)
    pixels[:, :, 0] = np.linspace(0, 255, 8 * side).astype(np.uint8)  # red tells the column
    picture = Image.fromarray(pixels)
    inputs = model.processor(images=[picture], text="<image>", return_tensors="pt")
    for box in ((2, 0, 3, 1), (2, 3, 3, 4), (2, 4, 3, 5)):
        crop = Crop(0, box)
        seen = levels(model, model.backbone.crop(inputs, [crop])["pixel_values"][0])
        cut = levels(model, Originals(model.processor, [picture]).crop([crop], [(5, 5)])["pixel_values"][0])
        assert float((seen[0].mean() - cut[0].mean()).abs()) < 0.03, box
    if model.processor.frame(*picture.size)[1] < 0:  # padded: the first row of tokens is all border
        border = Originals(model.processor, [picture]).crop([Crop(0, (0, 0, 1, 1))], [(5, 5)])["pixel_values"]
        assert float(border.abs().max()) < 0.02


def test_through_ask_and_generate(model):
    """The crop that the tower gets is cut from the picture: its pixels alone change the answer's numbers."""
    side = side_px(model)
    picture = stripes(5 * side, 5 * side)
    seen: list[torch.Tensor] = []
    see = model.backbone.see

    def noting(inputs, *rest):
        seen.append(inputs["pixel_values"])
        return see(inputs, *rest)

    model.backbone.see = noting
    try:
        how = {"max_new_tokens": 2, "pruner": Zoom(model.glimpse, margin=0, max_crops=1), "num_keep": 2}
        answer = model.ask(picture, "what is here ?", **how)
        assert len(seen) == 2 and float(levels(model, seen[1][0]).std()) > 0.4
        (left, top, right, bottom) = answer.crops[0][1]
        assert right - left == bottom - top < 5 * side
        inputs = model.processor(images=[picture], text="<image> what ?", return_tensors="pt")
        seen.clear()
        model.generate(**inputs, **how)
        without = float(levels(model, seen[1][0]).std())
        seen.clear()
        model.generate(**inputs, originals=[picture], **how)
        assert float(levels(model, seen[1][0]).std()) > 0.4 > without
    finally:
        del model.backbone.see
    with pytest.raises(ValueError, match="originals: expected a picture for each of the 1 images, got 2"):
        model.generate(**inputs, originals=[picture, picture], **how)
