"""Zoom against stock models on the prompt that it stands for: the small copy, its crops, the question."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from gp.backbones import backbone_of
from gp.backbones.cropping import Crop
from gp.engine.prefill import prefill
from gp.model import GlimpseModel
from gp.pruners import make_baseline
from gp.pruners.zoom import Zoom, copy_size
from gp.types import PruneOptions
from tests.support.glimpses import micro_glimpse
from tests.support.ragged import rows_alone
from tests.support.small_shards import small_processor
from tests.support.stock import embedded
from tests.support.tiny_models import FAMILIES, Family, tiny_qwen

pytestmark = pytest.mark.core
KEEP_ALL = PruneOptions(threshold=0.0)
GREEDY = {"max_new_tokens": 6, "do_sample": False}
PROMPTS = [([(4, 6)], 9), ([(2, 4), (6, 4)], 8), ([], 5), ([(6, 6)], 14), ([(4, 4)], 6)]
LOOK = 1  # prune layer


class Fixed(Zoom):
    """Takes the crops that it is told to."""

    boxes: tuple[Crop, ...] = ()

    def choose(self, image, mask, importance, full, backbone):
        return [
            dataclasses.replace(crop, box=backbone.fit_box(crop.box, full))
            for crop in self.boxes
            if crop.image == image
        ]


# one crop, two crops of two images, none, two crops of one image, none
CROPS = (
    Crop(0, (1, 2, 4, 5)),
    Crop(1, (0, 0, 2, 2)),
    Crop(2, (2, 1, 5, 4)),
    Crop(3, (0, 0, 3, 3)),
    Crop(3, (3, 3, 6, 6)),
)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request) -> Family:
    return FAMILIES[request.param]


@pytest.fixture(scope="module")
def model(family) -> GlimpseModel:
    return micro_glimpse(family.make(), LOOK)


@pytest.fixture(scope="module")
def inputs(family) -> dict[str, torch.Tensor]:
    return family.inputs(family.fit(PROMPTS))


@pytest.fixture(scope="module")
def glance(family) -> float | None:
    """LLaVA's images have one size: its small copy is as large as the image."""
    return None if family.fit([([(4, 6)], 1)]) != [([(4, 6)], 1)] else 0.4


def fixed(model, glance, crops=CROPS, **settings) -> Fixed:
    pruner = Fixed(model.glimpse, glance=glance, **settings)
    square = model.backbone.one_image_size  # 5 x 5 tokens an image
    pruner.boxes = tuple(Crop(c.image, tuple(min(edge, 5) for edge in c.box)) for c in crops) if square else crops
    return pruner


def stock_inputs(model, inputs, glance, boxes) -> dict[str, torch.Tensor]:
    """The prompts as a user would write them for the stock model: further images behind the last one of each row."""
    backbone, pruner = model.backbone, Zoom(model.glimpse, glance=glance)
    small = dict(pruner.prepare(backbone, inputs, KEEP_ALL))
    layout, mask = backbone.layout(small)
    full, _ = backbone.layout(inputs)
    crops = [dataclasses.replace(c, box=backbone.fit_box(c.box, full.grids[c.image])) for c in boxes]
    pixels = backbone.crop(inputs, crops)
    sizes = backbone.image_sizes(pixels)
    rows, order = [], []
    for row, (ids, real) in enumerate(zip(small["input_ids"], mask)):
        ids = ids[real].tolist()
        mine = [k for k, crop in enumerate(crops) if layout.rows[crop.image] == row]
        order += [("old", k) for k, of_row in enumerate(layout.rows) if of_row == row] + [("new", k) for k in mine]
        if mine:
            last = len(ids) - 1 - ids[::-1].index(backbone.image_token_id)
            before = [ids[max(k for k in range(last) if ids[k] != backbone.image_token_id)]]
            before = before if backbone.image_frame[0] else []
            new = [[*before, *[backbone.image_token_id] * (h * w), ids[last + 1]] for h, w in (sizes[k] for k in mine)]
            ids = ids[: last + 2] + [token for one in new for token in one] + ids[last + 2 :]
        rows.append(torch.tensor(ids))
    longest = max(map(len, rows))
    joint = {
        "input_ids": torch.stack([torch.nn.functional.pad(row, (longest - len(row), 0)) for row in rows]),
        "attention_mask": torch.stack([(torch.arange(longest) >= longest - len(row)).long() for row in rows]),
    }
    joint["mm_token_type_ids"] = (joint["input_ids"] == backbone.image_token_id).long()
    parts = {"old": images_of(small), "new": images_of(pixels)}
    joint["pixel_values"] = torch.cat([parts[kind][k][0] for kind, k in order])
    if "image_grid_thw" in inputs:
        joint["image_grid_thw"] = torch.stack([parts[kind][k][1] for kind, k in order])
    else:
        del joint["mm_token_type_ids"]
    return joint


def images_of(inputs) -> list[tuple]:
    """Pixels and grid of each image."""
    if "image_grid_thw" not in inputs:
        return [(pixels[None], None) for pixels in inputs["pixel_values"]]
    grids = inputs["image_grid_thw"]
    return list(zip(inputs["pixel_values"].split(grids.prod(1).tolist()), grids, strict=True))


def test_with_nothing_dropped_it_is_stock_with_the_crops_as_images(model, inputs, glance):
    """Logits, and greedy ids, of a batch with one crop, two, none, and no image."""
    pruner = fixed(model, glance, crop_keep="all")
    stock = stock_inputs(model, inputs, glance, pruner.boxes)
    done = prefill(model.backbone, inputs, pruner, KEEP_ALL, logits_to_keep=0)
    assert [crop.image for crop in done.crops] == [crop.image for crop in CROPS]
    real = stock["attention_mask"].bool()
    with torch.no_grad():
        expected = model.base(**stock).logits
    assert torch.equal(done.attention_mask, real)
    torch.testing.assert_close(done.logits[real], expected[real], atol=1e-4, rtol=1e-4)
    out = model.generate(**inputs, pruner=pruner, options=KEEP_ALL, **GREEDY)
    new = model.base.generate(**stock, **GREEDY)[:, stock["input_ids"].shape[1] :]
    assert torch.equal(out[:, inputs["input_ids"].shape[1] :], new)


def test_without_crops_it_is_the_method_on_the_small_copy(model, inputs, glance):
    pruner = Zoom(model.glimpse, glance=glance, gate="never")
    small = pruner.prepare(model.backbone, inputs, PruneOptions())
    one, other = prefill(model.backbone, inputs, pruner), prefill(model.backbone, small, model.glimpse)
    assert one.crops == () and 0 < int(one.keep_mask.sum()) < len(one.keep_mask)
    assert torch.equal(one.keep_mask, other.keep_mask) and torch.equal(one.logits, other.logits)
    assert torch.equal(one.next_position, other.next_position)


def test_dropped_tokens_are_unseen_by_what_follows(model, inputs, glance):
    """Against the whole sequence at once, where dropped tokens are masked: those of the glance from the crops on and
    behind the look for all, those of the crops for all.
    """
    pruner = fixed(model, glance)
    done = prefill(model.backbone, inputs, pruner)
    stock = stock_inputs(model, inputs, glance, pruner.boxes)
    assert 0 < int(done.keep_mask.sum()) < len(done.keep_mask)
    base, mask, ids = model.base, stock["attention_mask"].bool(), stock["input_ids"]
    text, visual = base.model.language_model, ids == model.backbone.image_token_id
    with torch.no_grad():
        hidden, positions, deepstack = embedded(base, ids, mask, visual, stock)
    dropped = torch.zeros_like(visual).masked_scatter(visual, ~done.keep_mask)
    of_crop = torch.zeros_like(visual)
    follows = torch.zeros_like(visual)
    layout = done.layout
    number = visual.flatten().long().cumsum(0).view_as(ids) - 1
    starts = torch.tensor(layout.image_sizes).cumsum(0) - torch.tensor(layout.image_sizes)
    full, _ = model.backbone.layout(inputs)
    for row in range(len(ids)):
        mine = [k for k, of_row in enumerate(layout.rows) if of_row == row]
        new = mine[len([k for k in full.rows if k == row]) :]
        if not new:
            continue
        begin = int(((number[row] == starts[new[0]]) & visual[row]).nonzero()[0])
        of_crop[row, begin:] = visual[row, begin:]
        follows[row, begin - model.backbone.image_frame[0] :] = True
    length = ids.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril() & mask[:, None, None, :]
    causal = causal | torch.eye(length, dtype=torch.bool)
    without = causal & ~dropped[:, None, None, :] | torch.eye(length, dtype=torch.bool)
    early = causal & ~(dropped & of_crop)[:, None, None, :] & ~(follows[:, None, :, None] & dropped[:, None, None, :])
    early = early | torch.eye(length, dtype=torch.bool)
    rotary = text.rotary_emb(hidden, positions)
    with torch.no_grad():
        for index, layer in enumerate(text.layers):
            allowed = early if index <= LOOK else without
            bias = torch.zeros_like(allowed, dtype=hidden.dtype).masked_fill(~allowed, torch.finfo(hidden.dtype).min)
            hidden = layer(hidden, attention_mask=bias, position_embeddings=rotary)
            if index < len(deepstack):
                hidden = text._deepstack_process(hidden, visual, deepstack[index])
    expected = model.backbone.logits(hidden[:, -1:])
    torch.testing.assert_close(done.logits, expected, atol=1e-4, rtol=1e-4)


def test_a_batch_equals_its_singles(family, model, inputs, glance):
    settings = {"glance": glance, "max_crops": 2, "margin": 0}
    together = model.generate(**inputs, pruner=Zoom(model.glimpse, **settings), **GREEDY)
    num_crops = []
    for row, single in enumerate(rows_alone(inputs, family.fit(PROMPTS))):
        pruner = Zoom(model.glimpse, **settings)
        alone = model.generate(**single, pruner=pruner, **GREEDY)
        assert torch.equal(alone[0, -6:], together[row, -6:]), row
        num_crops.append(len(prefill(model.backbone, single, pruner).crops))
    assert len(set(num_crops)) > 1, num_crops


def test_a_crop_of_a_picture_is_the_picture_cropped():
    """The processor's own patches of the part, cut out before."""
    processor = small_processor()
    side = 2 * processor.image_processor.patch_size
    noise = np.random.default_rng(0).integers(0, 255, (4 * side, 6 * side, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    how = {"return_tensors": "pt", "size": {"shortest_edge": side**2, "longest_edge": 24 * side**2}}
    whole = processor.image_processor(picture, **how)
    part = processor.image_processor(picture.crop((2 * side, side, 5 * side, 3 * side)), **how)
    backbone = backbone_of(tiny_qwen(patch_px=processor.image_processor.patch_size))
    cropped = backbone.crop(whole, [Crop(0, (1, 2, 3, 5))])
    assert torch.equal(cropped["pixel_values"], part["pixel_values"])
    assert torch.equal(cropped["image_grid_thw"], part["image_grid_thw"])


@pytest.mark.parametrize(
    ("size", "share", "copy"),
    [((16, 16), 1 / 4, (8, 8)), ((15, 17), 1 / 4, (7, 8)), ((9, 6), 1 / 9, (3, 2)), ((1, 30), 1 / 4, (1, 15)),
     ((5, 7), 1, (5, 7))],
)  # fmt: skip
def test_a_copy_has_the_shape_of_its_image(size, share, copy):
    assert copy_size(*size, share) == copy


def test_the_rule_takes_no_crop_of_half_an_image(model, inputs, glance):
    everything = {"glance": glance, "margin": 9}
    assert prefill(model.backbone, inputs, Zoom(model.glimpse, gate="rule", **everything), KEEP_ALL).crops == ()
    assert prefill(model.backbone, inputs, Zoom(model.glimpse, **everything), KEEP_ALL).crops


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"glance": 0}, "glance must be in"),
        ({"glance": 1.5}, "glance must be in"),
        ({"margin": -1}, "margin must be"),
        ({"max_crops": 0}, "max_crops must be"),
        ({"max_crops": 1.5}, "max_crops must be"),
        ({"gate": "sometimes"}, "gate must be one of"),
        ({"crop_keep": "some"}, "crop_keep must be one of"),
    ],
)
def test_bad_settings(model, settings, message):
    with pytest.raises(ValueError, match=message):
        Zoom(model.glimpse, **settings)


def test_settings_and_the_method_that_looks_by_name(model, inputs, glance):
    """Through `generate`: settings of the call, of the model, and `zoom(fastv)`."""
    how = {**inputs, **GREEDY, "pruner": "zoom", "glance": glance, "return_dict_in_generate": True}
    given = model.generate(**how, margin=0)
    assert given.crops and torch.equal(
        given.sequences, model.generate(**inputs, pruner=Zoom(model.glimpse, glance, margin=0), **GREEDY)
    )
    assert model.generate(**how, gate="never").crops == ()
    configured = GlimpseModel(model.base, model.glimpse, pruner_settings={"zoom": {"gate": "never"}})
    assert configured.generate(**how).crops == ()
    plain = GlimpseModel(model.base)
    fastv = plain.generate(**{**how, "pruner": "zoom(fastv)"}, fixed_keep_ratio=0.2)
    assert fastv.crops
    assert torch.equal(fastv.sequences, plain.generate(**how, of="fastv", fixed_keep_ratio=0.2).sequences)
    with pytest.raises(ValueError, match="without trained parts"):
        plain.generate(**how)
    with pytest.raises(ValueError, match="drops no tokens"):
        plain.generate(**{**how, "pruner": "zoom(none)"})
    with pytest.raises(ValueError, match="unknown option 'glanze'"):
        model.generate(**how, glanze=0.5)


def test_masks_on_the_images_as_they_came(model, inputs, glance):
    """What lies behind a kept token of the copy or of a crop, by hand."""
    done = prefill(model.backbone, inputs, fixed(model, glance))
    full, _ = model.backbone.layout(inputs)
    again = {k: [one for one in done.seen_again if one.crop.image == k] for k in range(len(full.grids))}
    for image, (height, width) in enumerate(full.grids):
        small = done.keep_masks[image]
        for row in range(height):
            for column in range(width):
                cell = int((row + 0.5) * small.shape[0] / height), int((column + 0.5) * small.shape[1] / width)
                behind = [bool(small[cell])]
                for one in again[image]:
                    top, left, bottom, right = one.crop.box
                    if top <= row < bottom and left <= column < right:
                        rows, columns = one.keep_mask.shape
                        y, x = (
                            (row - top + 0.5) * rows / (bottom - top),
                            (column - left + 0.5) * columns / (right - left),
                        )
                        behind.append(bool(one.keep_mask[int(y), int(x)]))
                assert bool(done.seen_masks[image][row, column]) == any(behind), (image, row, column)


def test_the_method_that_is_handed_over_stays_as_it_is(model):
    fastv = make_baseline("fastv", model.backbone)
    assert Zoom(fastv).of.compact_cache and not fastv.compact_cache
