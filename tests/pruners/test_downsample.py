"""Downsampling: the choice of the grid, pixels against the real image processor, prompts, generation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from gp.backbones import backbone_of
from gp.model import GlimpseModel
from gp.pruners import make_baseline
from gp.pruners.downsample import fit_grid
from gp.types import PruneOptions
from tests.support.ragged import rows_alone
from tests.support.tiny_models import FAMILIES, IMAGE_PAD, tiny_inputs, tiny_llava, tiny_qwen

GREEDY = {"max_new_tokens": 5, "do_sample": False}
RAGGED = [([(4, 6)], 9), ([(2, 3), (6, 4)], 7), ([], 5)]
TOKEN_PX = 28


def test_the_grid_by_hand():
    assert fit_grid(6, 6, 9) == (3, 3)
    assert fit_grid(4, 8, 8) == (2, 4)
    # 2 x 3 = 6 tokens of shape 0.67 (image 0.5): 6 sqrt(0.75) = 5.2; 1 x 7: 7 sqrt(0.29) = 3.7
    assert fit_grid(4, 8, 7) == (2, 3)
    # 11 x 11 = 121, square; 10 x 12 = 120 is not; 64 and 63 likewise
    assert [fit_grid(24, 24, budget) for budget in (64, 63, 128)] == [(8, 8), (7, 9), (11, 11)]
    assert fit_grid(1, 30, 7) == (1, 7) and fit_grid(3, 3, 1) == fit_grid(3, 3, 0) == (1, 1)


def test_no_grid_exceeds_its_budget_or_misses_it_by_a_whole_side():
    for height in range(1, 13):
        for width in range(1, 13):
            assert fit_grid(height, width, height * width) == (height, width)
            for budget in range(1, height * width):
                h, w = fit_grid(height, width, budget)
                assert h <= height and w <= width and 0 <= budget - h * w < max(height, width)


def drawing(width: int, height: int) -> Image.Image:
    """Shapes with edges and a gradient, no symmetry."""
    image = Image.linear_gradient("L").resize((width, height)).convert("RGB")
    draw = ImageDraw.Draw(image)
    draw.ellipse((width // 8, height // 8, width // 2, height // 2), fill=(250, 60, 20))
    draw.rectangle((width * 5 // 8, height // 2, width * 7 // 8, height * 7 // 8), fill=(10, 90, 200))
    draw.line((0, height - 1, width // 2, height // 2), fill=(0, 255, 0), width=5)
    return image


def test_pixels_are_those_of_an_image_that_pillow_resized():
    """Up to Pillow's rounding to whole numbers and its cut at black and white, where bicubic overshoots."""
    process = Qwen2VLImageProcessorPil(min_pixels=TOKEN_PX**2, max_pixels=10**7)
    images = [drawing(8 * TOKEN_PX, 12 * TOKEN_PX), drawing(10 * TOKEN_PX, 6 * TOKEN_PX)]
    smaller = [(6, 4), (3, 7)]  # (height, width) in tokens
    inputs = dict(process(images, return_tensors="pt"))
    ids = [1, *[IMAGE_PAD] * (12 * 8), 2, *[IMAGE_PAD] * (6 * 10), 3]
    inputs["input_ids"] = torch.tensor([ids])
    ours = backbone_of(tiny_qwen(patch_px=14)).downsample(inputs, smaller)
    resized = [
        image.resize((w * TOKEN_PX, h * TOKEN_PX), Image.Resampling.BICUBIC) for image, (h, w) in zip(images, smaller)
    ]
    theirs = process(resized, return_tensors="pt")
    assert torch.equal(ours["image_grid_thw"], theirs["image_grid_thw"])
    assert ours["pixel_values"].shape == theirs["pixel_values"].shape
    difference = (ours["pixel_values"] - theirs["pixel_values"]).abs()
    step = 1 / 255 / 0.26  # one grey level after normalisation
    assert difference.quantile(0.9) < step and difference.mean() < step / 2
    spread = theirs["pixel_values"].std()
    assert difference.square().mean().sqrt() < 0.05 * spread
    assert ours["input_ids"].tolist() == [[1, *[IMAGE_PAD] * 24, 2, *[IMAGE_PAD] * 21, 3]]


def test_llava_pixels_are_those_of_an_image_that_pillow_resized():
    image = drawing(20, 20)
    pixels = torch.tensor(np.array(image)).permute(2, 0, 1).unsqueeze(0).float()
    inputs = {"input_ids": torch.tensor([[1, *[IMAGE_PAD] * 25, 2]]), "pixel_values": pixels}
    ours = backbone_of(tiny_llava()).downsample(inputs, [(3, 3)])
    small = image.resize((12, 12), Image.Resampling.BICUBIC)
    theirs = torch.tensor(np.array(small)).permute(2, 0, 1).unsqueeze(0).float()
    difference = (ours["pixel_values"].clamp(0, 255) - theirs).abs()  # grey levels; Pillow also cuts between its passes
    assert difference.quantile(0.9) < 1 and difference.max() < 8
    assert ours["input_ids"].tolist() == [[1, *[IMAGE_PAD] * 9, 2]]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return FAMILIES[request.param]


@pytest.fixture(scope="module")
def model(family):
    return GlimpseModel(family.make())


def small_prompts(family, options):
    """The same prompts with images of the grids that downsampling is to choose, as if they had come so."""
    sizes = [[fit_grid(*g, int(options.fixed_keep_ratio * g[0] * g[1])) for g in grids] for grids, _ in family]
    return [(grids, length) for grids, (_, length) in zip(sizes, family)]


def test_the_model_sees_prompts_with_smaller_images(family, model):
    """Same text, natural positions and token types, image tokens of the new grid: as if the images had come so."""
    prompts = family.fit(RAGGED)
    inputs, options = family.inputs(prompts), PruneOptions(fixed_keep_ratio=0.4)
    backbone = model.backbone
    seen = make_baseline("downsample", backbone).prepare(backbone, inputs, options)
    expected = tiny_inputs(small_prompts(prompts, options))  # text is drawn before pixels: it is the same
    assert set(seen) == set(inputs)
    for key in ("input_ids", "attention_mask", "mm_token_type_ids"):
        if key in inputs:
            assert torch.equal(seen[key], expected[key])
    if "image_grid_thw" in inputs:
        assert torch.equal(seen["image_grid_thw"], expected["image_grid_thw"])
    done = model.prefill(inputs, "downsample", options)
    mask = expected["attention_mask"].bool()
    natural = backbone.positions({**seen}, mask)
    assert torch.equal(done.position_ids.masked_fill(~mask, 0), natural.masked_fill(~mask, 0))
    assert done.keep_mask.all() and not done.cache_masks.is_ragged
    assert done.full_layout.prompt_sizes == [sum(h * w for h, w in grids) for grids, _ in prompts]


def stock_answers(base, seen) -> torch.Tensor:
    if "image_grid_thw" in seen:
        return base.generate(**seen, **GREEDY)[:, -5:]
    # stock LLaVA takes smaller images in `get_image_features` only
    features = base.get_image_features(pixel_values=seen["pixel_values"], interpolate_pos_encoding=True).pooler_output
    ids = seen["input_ids"]
    embeds = base.get_input_embeddings()(ids)
    embeds = embeds.masked_scatter((ids == IMAGE_PAD).unsqueeze(-1), torch.cat(list(features)))
    return base.generate(inputs_embeds=embeds, attention_mask=seen["attention_mask"], **GREEDY)[:, -5:]


def test_it_generates_what_stock_generate_does_on_the_smaller_images(family, model):
    prompts = family.fit(RAGGED)
    inputs, options = family.inputs(prompts), PruneOptions(fixed_keep_ratio=0.4)
    out = model.generate(**inputs, pruner="downsample", options=options, **GREEDY)
    seen = make_baseline("downsample", model.backbone).prepare(model.backbone, inputs, options)
    assert torch.equal(out[:, -5:], stock_answers(model.base, seen))
    assert torch.equal(out[:, :-5], inputs["input_ids"])
    for row, single in enumerate(rows_alone(inputs, prompts)):
        alone = model.generate(**single, pruner="downsample", options=options, **GREEDY)
        assert torch.equal(alone[0, -5:], out[row, -5:])


def test_images_of_one_size_only_are_refused_by_name():
    family = FAMILIES["llava"]
    model = GlimpseModel(family.make())
    inputs = family.inputs(family.fit([([(5, 5)], 5), ([(5, 5)], 5)]))
    with pytest.raises(ValueError, match=r"one size.*\[\(2, 2\), \(3, 3\)\]"):
        model.prefill(inputs, "downsample", PruneOptions(num_keep=(4, 9)))
