"""vLLM's worker for CPUs with what its loading leaves out there: asking a model that prunes for its positions."""

from __future__ import annotations

from typing import Any

from vllm.v1.worker.cpu_worker import CPUWorker


class PrunedCPUWorker(CPUWorker):
    """Stock worker; vLLM 0.32 sets the flag below when it loads a model onto a GPU, not when it stays on the CPU."""

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        super().load_model(*args, **kwargs)
        model = self.model_runner.get_model()
        self.model_runner.is_multimodal_pruning_enabled = getattr(model, "is_multimodal_pruning_enabled", False)
