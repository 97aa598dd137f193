"""Qwen2.5-VL as vLLM serves it, with images pruned between vision tower and decoder."""

from __future__ import annotations

from vllm.model_executor.models.qwen2_5_vl import (
    Qwen2_5_VLDummyInputsBuilder,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLMultiModalProcessor,
    Qwen2_5_VLProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from gp.integrations.vllm.processing import ImagesOnly, PrunedProcessing, TextBehindImages
from gp.integrations.vllm.qwen import PrunedQwen


class Info(ImagesOnly, Qwen2_5_VLProcessingInfo):
    """Sizes of images."""


class DummyInputs(TextBehindImages, Qwen2_5_VLDummyInputsBuilder):
    """Made-up prompts."""

    text_behind = "<|vision_end|>"


class Processor(PrunedProcessing, Qwen2_5_VLMultiModalProcessor):
    """Prompts and pixels."""


@MULTIMODAL_REGISTRY.register_processor(Processor, info=Info, dummy_inputs=DummyInputs)
class PrunedQwen2_5_VLForConditionalGeneration(PrunedQwen, Qwen2_5_VLForConditionalGeneration):
    """Stock model behind `PrunedImages`."""
