"""Qwen3-VL as vLLM serves it, with images pruned between vision tower and decoder, and what goes to deeper layers, too.

vLLM's tower gives each token its features for the first decoder layers behind its embedding (deepstack), so that they
are dropped with it.
"""

from __future__ import annotations

from vllm.model_executor.models.qwen3_vl import (
    Qwen3VLDummyInputsBuilder,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMultiModalProcessor,
    Qwen3VLProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from gp.integrations.vllm.processing import ImagesOnly, PrunedProcessing, TextBehindImages
from gp.integrations.vllm.qwen import PrunedQwen


class Info(ImagesOnly, Qwen3VLProcessingInfo):
    """Sizes of images."""

    def get_supported_mm_processor_kwargs(self) -> dict[str, set[str]]:
        # the stock class adds to the arguments of videos, of which there are none here
        return super(Qwen3VLProcessingInfo, self).get_supported_mm_processor_kwargs()


class DummyInputs(TextBehindImages, Qwen3VLDummyInputsBuilder):
    """Made-up prompts."""

    text_behind = "<|vision_end|>"


class Processor(PrunedProcessing, Qwen3VLMultiModalProcessor):
    """Prompts and pixels."""


@MULTIMODAL_REGISTRY.register_processor(Processor, info=Info, dummy_inputs=DummyInputs)
class PrunedQwen3VLForConditionalGeneration(PrunedQwen, Qwen3VLForConditionalGeneration):
    """Stock model behind `PrunedImages`."""
