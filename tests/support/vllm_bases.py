"""Micro bases of all families as complete stock folders, which vLLM loads, and requests for them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from gp.backbones.processor import Qwen2_5_VLProcessor, Qwen3VLProcessor
from tests.support import llava_bases
from tests.support.micro_run import save_base
from tests.support.small_shards import CHAT_TEMPLATE, small_processor
from tests.support.tiny_models import tiny_qwen, tiny_qwen3
from tests.support.vllm_plugin import Request

HIDDEN, HEADS = 128, 4  # vLLM's attention on CPUs has heads of 32 and more
SIDES = ((128, 192), (256, 96), (64, 64), (160, 160))  # px
QWEN = {
    "qwen2_5_vl": (tiny_qwen, Qwen2_5_VLProcessor, 14, "Qwen2VLVideoProcessor"),
    "qwen3_vl": (tiny_qwen3, Qwen3VLProcessor, 16, "Qwen3VLVideoProcessor"),
}


def save_stock(family: str, folder: Path, seed: int = 0) -> Path:
    """A random base with all the files that stock processors ask for; returns its folder."""
    sizes = {"hidden": HIDDEN, "heads": HEADS}
    if family == "llava":
        llava_bases.save_base(folder, seed, **sizes)
        rename_as_published(folder / "model.safetensors")
        return folder
    make, kind, patch, video_kind = QWEN[family]
    images = Qwen2VLImageProcessorPil(patch_size=patch, min_pixels=4 * patch**2, max_pixels=400 * patch**2)
    processor = kind(images, small_processor().tokenizer, chat_template=CHAT_TEMPLATE)
    save_base(folder, seed, make=make, processor=processor, **sizes)
    if family == "qwen3_vl":  # as published: vLLM asks the config what transformers knows of the family
        config = json.loads((folder / "config.json").read_text())
        rotary = {"mrope_section": [6, 5, 5], "mrope_interleaved": True}
        config["text_config"]["rope_parameters"] |= rotary
        (folder / "config.json").write_text(json.dumps(config))
    settings = images.to_dict()
    for name, more in (("preprocessor", {}), ("video_preprocessor", {"video_processor_type": video_kind})):
        kept = {k: v for k, v in settings.items() if k != "image_processor_type"} if more else settings
        (folder / f"{name}_config.json").write_text(json.dumps({**kept, **more}, default=dict))
    return folder


def rename_as_published(file: Path) -> None:
    """Names the vision tower of a LLaVA as the published conversions do; vLLM knows that name alone."""
    weights = {name.removeprefix("model."): weight for name, weight in load_file(file).items()}
    tower, published = "vision_tower.", "vision_tower.vision_model."
    renamed = {k.replace(tower, published) if k.startswith(tower) else k: v for k, v in weights.items()}
    save_file(renamed, file, metadata={"format": "pt"})


def noise(number: int) -> Image.Image:
    height, width = SIDES[number % len(SIDES)]
    levels = np.random.default_rng(number).integers(0, 255, (height // 16, width // 16, 3), dtype=np.uint8)
    return Image.fromarray(levels).resize((width, height), Image.Resampling.NEAREST)


def requests() -> list[Request]:
    """One picture of each size, two pictures in a prompt, one picture twice, and one with two questions."""
    questions = ["what is here ?", "is big red here ?", "what is 1 2 3 ?", "what is blue ?"]
    asked: list[Request] = [([noise(k)], question) for k, question in enumerate(questions)]
    return [*asked, ([noise(1), noise(2)], questions[1]), ([noise(0)] * 2, questions[0]), ([noise(0)], questions[3])]
