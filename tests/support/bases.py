"""Micro bases of every family on disk, with their processors: what a real run loads."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from gp.backbones.processor import Qwen3VLProcessor
from tests.support import llava_bases
from tests.support.micro_run import save_base
from tests.support.small_shards import CHAT_TEMPLATE, small_processor
from tests.support.tiny_models import tiny_qwen3


def qwen3_processor() -> Qwen3VLProcessor:
    """As `small_processor`, with patches of 16 px."""
    images = Qwen2VLImageProcessorPil(patch_size=16, min_pixels=32 * 32, max_pixels=8 * 32 * 32)
    return Qwen3VLProcessor(images, small_processor().tokenizer, chat_template=CHAT_TEMPLATE)


# family (as in `tests.support.tiny_models.FAMILIES`) -> saves a base into a folder (with a seed), returns its path
BASES: dict[str, Callable[..., str]] = {
    "qwen2_5_vl": save_base,
    "qwen3_vl": partial(save_base, make=tiny_qwen3, processor=qwen3_processor()),
    "llava": llava_bases.save_base,
}
