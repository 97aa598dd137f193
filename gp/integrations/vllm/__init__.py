"""Image pruning in stock vLLM, by gp's own methods: a plug-in of the group `vllm.general_plugins`, see docs/vllm.md."""

from __future__ import annotations

# model type -> what users write in hf_overrides
ARCHITECTURES = {
    "qwen2_5_vl": "PrunedQwen2_5_VLForConditionalGeneration",
    "qwen3_vl": "PrunedQwen3VLForConditionalGeneration",
    "llava": "PrunedLlavaForConditionalGeneration",
}
CPU_WORKER = "gp.integrations.vllm.cpu_worker.PrunedCPUWorker"  # and in worker_cls, where vLLM runs on a CPU


def register() -> None:
    """Makes the architectures known to vLLM, which calls this in each of its processes, once or more often.

    Nothing changes for models that do not ask for it, and nothing of a model is imported yet.
    """
    from vllm import ModelRegistry
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP

    from gp.integrations.vllm.one_axis import OneAxis

    for model_type, architecture in ARCHITECTURES.items():
        if architecture not in ModelRegistry.get_supported_archs():
            ModelRegistry.register_model(architecture, f"gp.integrations.vllm.{model_type}:{architecture}")
    MODELS_CONFIG_MAP.setdefault(ARCHITECTURES["llava"], OneAxis)
