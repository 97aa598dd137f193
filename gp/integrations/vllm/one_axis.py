"""Positions for a family with one rotary axis: vLLM lets a prompt say its own only where a model has several."""

from __future__ import annotations

from typing import Any

from vllm.model_executor.models.config import VerifyAndUpdateConfig

AXES = [0, 0, 0]  # no width of a head is any axis's: the decoder's own rotary embedding stays as it is


class OneAxis(VerifyAndUpdateConfig):
    """Marks a model's config, so that vLLM asks the model for positions [3, N]; which of them counts is the model's."""

    @staticmethod
    def verify_and_update_model_config(model_config: Any) -> None:
        model_config.hf_config.mrope_section = AXES
