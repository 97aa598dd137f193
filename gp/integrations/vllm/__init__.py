"""Image pruning in stock vLLM, by gp's own methods: a plug-in of the group `vllm.general_plugins`, see docs/vllm.md."""

from __future__ import annotations

ARCHITECTURE = "PrunedQwen2_5_VLForConditionalGeneration"  # what users write in hf_overrides
CPU_WORKER = "gp.integrations.vllm.cpu_worker.PrunedCPUWorker"  # and in worker_cls, where vLLM runs on a CPU


def register() -> None:
    """Makes the architecture known to vLLM, which calls this in each of its processes, once or more often.

    Nothing changes for models that do not ask for it, and nothing of the model is imported yet.
    """
    from vllm import ModelRegistry

    if ARCHITECTURE not in ModelRegistry.get_supported_archs():
        ModelRegistry.register_model(ARCHITECTURE, f"gp.integrations.vllm.model:{ARCHITECTURE}")
