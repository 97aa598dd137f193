"""Pixel values travel as 8-bit levels and are then the stock processor's own, to the last bit."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from transformers.utils import is_torchvision_available

from gp.data.batch import Batch, Collator, question_messages
from tests.support.bases import qwen3_processor
from tests.support.llava_bases import micro_processor
from tests.support.samples import LARGE, SMALL
from tests.support.small_shards import small_processor

SETTINGS = {
    "as saved": {},
    "other mean, std and factor": {
        "image_mean": [0.5, 0.25, 0.1],
        "image_std": [0.5, 1.0, 0.3],
        "rescale_factor": 1 / 127,
    },
    "not rescaled": {"do_rescale": False},
    "not normalised": {"do_normalize": False},
    "neither": {"do_rescale": False, "do_normalize": False},
}


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8))


SAMPLES = [replace(SMALL, image=noise(70, 40)), replace(LARGE, image=noise(90, 60))]


def padded_llava():
    """LLaVA-1.5 as trained: images padded to a square with the mean colour."""
    processor = micro_processor()
    own = processor.image_processor
    names = ("size", "crop_size", "resample")
    images = transformers.LlavaImageProcessorPil(do_pad=True, **{name: getattr(own, name) for name in names})
    processor.image_processor = images
    return processor


PROCESSORS = {
    "qwen2_5_vl": small_processor,
    "qwen3_vl": qwen3_processor,
    "llava cropped": micro_processor,
    "llava padded": padded_llava,
}


@pytest.fixture(params=["pillow", "torchvision"])
def backend(request):
    if request.param == "torchvision" and not is_torchvision_available():
        pytest.skip("needs torchvision")
    return request.param


def make_processor(name: str, backend: str, settings: dict):
    processor = PROCESSORS[name]()
    images = processor.image_processor
    if backend == "torchvision":
        settings = {**images.to_dict(), **settings}
        images = getattr(transformers, type(images).__name__.removesuffix("Pil"))(**settings)
    else:
        for key, value in settings.items():
            setattr(images, key, value)
    processor.image_processor = images
    return processor


def stock(processor, **images_kwargs):
    """What users get who call the processor themselves."""
    return processor.apply_chat_template(
        [question_messages(sample) for sample in SAMPLES],
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True, "padding_side": "left", "images_kwargs": images_kwargs},
    )


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("name", PROCESSORS)
def test_inputs_are_the_stock_processors(name, backend, settings):
    processor = make_processor(name, backend, SETTINGS[settings])
    batch, expected = Collator(processor)(SAMPLES), stock(processor)
    assert batch.sent["pixel_values"].dtype == torch.uint8
    assert batch.inputs.keys() == expected.keys()
    for key, value in expected.items():
        assert batch.inputs[key].dtype == value.dtype and torch.equal(batch.inputs[key], value), key


def test_inputs_under_pixel_limits():
    processor = small_processor()
    batch = Collator(processor, max_pixels=4 * 28 * 28)(SAMPLES)
    expected = stock(processor, **processor.pixel_limits(None, 4 * 28 * 28))["pixel_values"]
    assert torch.equal(batch.inputs["pixel_values"], expected)


def test_an_eighth_of_the_bytes_travels():
    batch = Collator(small_processor())(SAMPLES)
    expected = {key: value.clone() for key, value in batch.inputs.items()}
    assert batch.sent["pixel_values"].nbytes * 8 == expected["pixel_values"].nbytes
    message = pickle.dumps(batch.to("cpu"))
    assert len(message) < expected["pixel_values"].nbytes
    again: Batch = pickle.loads(message)
    assert all(torch.equal(again.inputs[key], value) for key, value in expected.items())
    for name in ("answer_ids", "answer_mask"):
        assert torch.equal(getattr(again, name), getattr(batch, name))
    assert all(torch.equal(*masks) for masks in zip(again.evidence_masks, batch.evidence_masks, strict=True))
    assert again.frames == batch.frames


def test_pixel_values_are_made_on_the_device_of_the_batch():
    moved = Collator(small_processor())(SAMPLES).to("meta")
    pixels = moved.inputs["pixel_values"]
    assert pixels.device.type == "meta" and pixels.dtype == torch.float32
    assert pixels.shape == (int(stock(small_processor())["image_grid_thw"].prod(1).sum()), 1176)
