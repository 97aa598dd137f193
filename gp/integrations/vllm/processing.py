"""Before vLLM's engine: how many tokens each image keeps, and smaller images for `downsample`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from vllm.model_executor.models.qwen2_5_vl import (
    Qwen2_5_VLDummyInputsBuilder,
    Qwen2_5_VLMultiModalProcessor,
    Qwen2_5_VLProcessingInfo,
)
from vllm.multimodal.inputs import MultiModalFieldConfig
from vllm.multimodal.processing import PromptReplacement, PromptUpdate

from gp.integrations.vllm.outline import method, outline_of
from gp.integrations.vllm.settings import KEY, METHODS, Settings, of_engine, of_request


class PrunedProcessingInfo(Qwen2_5_VLProcessingInfo):
    """Images only: gp prunes no videos."""

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        return {"image": None}


class PrunedDummyInputs(Qwen2_5_VLDummyInputsBuilder):
    """Made-up prompts on which vLLM measures its memory; like real ones they do not end with an image."""

    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        return super().get_dummy_text(mm_counts) + "<|vision_end|>"


class PrunedProcessor(Qwen2_5_VLMultiModalProcessor):
    """vLLM's processor of Qwen2.5-VL, with as many image tokens in a prompt as are kept.

    Each image gets a row under `KEY`: number of the method in `METHODS`, tokens kept, seed.
    """

    def __init__(self, info: PrunedProcessingInfo, *args: Any, **kwargs: Any) -> None:
        super().__init__(info, *args, **kwargs)
        self.default = of_engine(info.get_hf_config())
        if KEY in (info.ctx.get_mm_config().mm_processor_kwargs or {}):
            raise ValueError(f"mm_processor_kwargs of the engine: give {KEY} in hf_overrides")

    def _apply_hf_processor_main(self, mm_items: Any, hf_kwargs: Mapping[str, Any]) -> Any:
        settings, rest = of_request(self.default, hf_kwargs)
        data = super()._apply_hf_processor_main(mm_items, rest)
        if "image_grid_thw" in data:
            if "pixel_values" not in data:
                raise ValueError("image_embeds cannot be pruned: give the images")
            self._plan(data, settings)
        return data

    def _plan(self, data: Any, settings: Settings) -> None:
        """Adds the rows to what the stock processor gives; makes images smaller if that is the method."""
        backbone = outline_of(self.info.ctx.model_config)
        grids = data["image_grid_thw"]
        if settings.method == "downsample":
            pixels = data["pixel_values"].split(grids.prod(1).tolist())
            smaller = [self._smaller(one, grid, settings) for one, grid in zip(pixels, grids, strict=True)]
            data["pixel_values"] = torch.cat([one["pixel_values"] for one in smaller])
            data["image_grid_thw"] = torch.cat([one["image_grid_thw"] for one in smaller])
            counts = [h * w for h, w in backbone.image_sizes(data)]
        else:
            counts = [settings.count(h, w) for h, w in backbone.image_sizes(data)]
        number = METHODS.index(settings.method)
        data[KEY] = torch.tensor([[number, count, settings.seed] for count in counts], dtype=torch.long)

    def _smaller(self, pixels: Tensor, grid: Tensor, settings: Settings) -> Mapping[str, Tensor]:
        """One image as `downsample` makes it, through the door by which gp's engine asks for it."""
        backbone = outline_of(self.info.ctx.model_config)
        inputs = {"pixel_values": pixels, "image_grid_thw": grid.unsqueeze(0)}
        ((height, width),) = backbone.image_sizes(inputs)
        prompt = torch.full((1, height * width), backbone.image_token_id)
        whole = {**inputs, "input_ids": prompt}
        return method(settings.method, backbone).prepare(backbone, whole, settings.options())

    def _get_mm_fields_config(self, hf_inputs: Any, hf_processor_mm_kwargs: Mapping[str, Any]) -> Any:
        stock = super()._get_mm_fields_config(hf_inputs, hf_processor_mm_kwargs)
        return {**stock, KEY: MultiModalFieldConfig.batched("image", keep_on_cpu=True)}

    def _get_prompt_updates(
        self, mm_items: Any, hf_processor_mm_kwargs: Mapping[str, Any], out_mm_kwargs: Any
    ) -> Sequence[PromptUpdate]:
        image_token = self.info.get_hf_config().image_token_id

        def placeholders(image: int) -> list[int]:
            _, count, _ = out_mm_kwargs["image"][image][KEY].data.tolist()
            return [image_token] * count

        return [PromptReplacement(modality="image", target=[image_token], replacement=placeholders)]

    def apply(self, inputs: Any, timing_ctx: Any) -> Any:
        done = super().apply(inputs, timing_ctx)
        ends = [place.offset + place.length for place in done["mm_placeholders"].get("image", ())]
        if len(done["prompt_token_ids"]) in ends:
            raise ValueError(
                "the prompt ends with an image: its last tokens may be dropped, and vLLM could not tell where the "
                "answer stands; add text behind it, or the chat template's generation prompt"
            )
        return done
