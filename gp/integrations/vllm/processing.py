"""Before vLLM's engine: how many tokens each image keeps, its question, and smaller images for `downsample`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from vllm.multimodal.hasher import MultiModalHasher
from vllm.multimodal.inputs import MultiModalFieldConfig
from vllm.multimodal.processing import PromptReplacement, PromptUpdate

from gp.integrations.vllm.asking import PROMPT, PROMPTS, prompts_of
from gp.integrations.vllm.outline import method, outline_of
from gp.integrations.vllm.settings import GLIMPSE, KEY, METHODS, Settings, of_engine, of_request


class ImagesOnly:
    """Stands before a family's processing info: gp prunes no videos."""

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        return {"image": None}


class TextBehindImages:
    """Stands before a family's made-up prompts, on which vLLM measures its memory: they, too, end with text."""

    text_behind: str

    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        return super().get_dummy_text(mm_counts) + self.text_behind  # type: ignore[misc]


class PrunedProcessing:
    """Stands before a family's processor: as many image tokens in a prompt as are kept.

    Each image gets a row under `KEY`: number of the method in `METHODS`, tokens kept, seed, height and width in visual
    tokens. For a method that looks at the question it also gets its prompt, which counts wherever vLLM asks whether it
    has seen an image before.
    """

    info: Any
    refused: ClassVar[Mapping[str, str]] = {}  # methods that the family cannot have here, and why

    def __init__(self, info: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(info, *args, **kwargs)  # type: ignore[call-arg]  # of the class behind
        self.default = self._allowed(of_engine(info.get_hf_config()))
        if KEY in (info.ctx.get_mm_config().mm_processor_kwargs or {}):
            raise ValueError(f"mm_processor_kwargs of the engine: give {KEY} in hf_overrides")

    def _allowed(self, settings: Settings) -> Settings:
        if settings.method in self.refused:
            raise ValueError(f"{KEY}: method {settings.method!r} does not work here: {self.refused[settings.method]}")
        return settings

    def _settings(self, kwargs: Mapping[str, Any]) -> tuple[Settings, dict[str, Any]]:
        """Settings of a request, and the other arguments of its processor."""
        settings, rest = of_request(self.default, kwargs)
        return self._allowed(settings), rest

    @property
    def _backbone(self) -> Any:
        return outline_of(self.info.ctx.model_config)

    @property
    def frame(self) -> tuple[int, int]:
        """Text tokens before and behind those of an image that belong to it."""
        return self._backbone.image_frame

    # ---- prompts --------------------------------------------------------------------------------------------------

    def apply(self, inputs: Any, timing_ctx: Any) -> Any:
        """Refuses before vLLM notes what it would send to its engine."""
        settings, _ = self._settings(inputs.hf_processor_mm_kwargs)
        images = inputs.mm_data_items.get_all_counts().get("image", 0)
        if images:
            self.check(inputs.prompt, images, settings)
        if images and settings.method == GLIMPSE:
            prompts = prompts_of(inputs.prompt, self._backbone.image_token_id, self.frame, images)
            inputs = replace(inputs, hf_processor_mm_kwargs={**inputs.hf_processor_mm_kwargs, PROMPTS: prompts})
        return super().apply(inputs, timing_ctx)  # type: ignore[misc]

    def check(self, ids: Sequence[int], images: int, settings: Settings) -> None:
        """ValueError for a prompt that does not work, ids with one image token an image."""
        if ids[-1] == self._backbone.image_token_id:
            raise ValueError(
                "the prompt ends with an image: its last tokens may be dropped, and vLLM could not tell where the "
                "answer stands; add text behind it, or the chat template's generation prompt"
            )

    def _get_mm_hashes(self, inputs: Any) -> Any:
        """What an image is known again by: with a question, that too, as this image is shown with it."""
        rest = dict(inputs.hf_processor_mm_kwargs)
        prompts = rest.pop(PROMPTS, None)
        hashes = dict(super()._get_mm_hashes(replace(inputs, hf_processor_mm_kwargs=rest)))  # type: ignore[misc]
        if prompts is not None:
            algorithm = self.info.ctx.get_mm_config().mm_hasher_algorithm
            hashes["image"] = [
                MultiModalHasher.hash_kwargs(algorithm, image=one, prompt=prompt)
                for one, prompt in zip(hashes["image"], prompts, strict=True)
            ]
        return hashes

    def _get_cache_missing_processor_kwargs(self, inputs: Any, mm_is_cached: Any) -> Mapping[str, Any]:
        kwargs = dict(super()._get_cache_missing_processor_kwargs(inputs, mm_is_cached))  # type: ignore[misc]
        if PROMPTS in kwargs:
            known = mm_is_cached["image"]
            kwargs[PROMPTS] = [one for one, is_known in zip(kwargs[PROMPTS], known, strict=True) if not is_known]
        return kwargs

    # ---- images ---------------------------------------------------------------------------------------------------

    def _apply_hf_processor_main(self, mm_items: Any, hf_kwargs: Mapping[str, Any]) -> Any:
        settings, rest = self._settings(hf_kwargs)
        prompts = rest.pop(PROMPTS, None)
        data = super()._apply_hf_processor_main(mm_items, rest)  # type: ignore[misc]
        if "image_embeds" in data:
            raise ValueError("image_embeds cannot be pruned: give the images")
        if "pixel_values" in data:
            self._plan(data, settings)
            nothing = torch.empty(0, dtype=torch.long)
            asked = prompts if prompts is not None else [nothing] * len(data[KEY])
            data[PROMPT] = [torch.as_tensor(one, dtype=torch.long) for one in asked]
        return data

    def _plan(self, data: Any, settings: Settings) -> None:
        """Adds the rows to what the stock processor gives; makes images smaller if that is the method."""
        backbone = self._backbone
        if settings.method == "downsample":
            grids = data["image_grid_thw"]
            pixels = data["pixel_values"].split(grids.prod(1).tolist())
            smaller = [self._smaller(one, grid, settings) for one, grid in zip(pixels, grids, strict=True)]
            data["pixel_values"] = torch.cat([one["pixel_values"] for one in smaller])
            data["image_grid_thw"] = torch.cat([one["image_grid_thw"] for one in smaller])
            settings = replace(settings, budget=1.0)  # of what is left
        number, seed = METHODS.index(settings.method), settings.seed
        sizes = backbone.image_sizes(data)
        rows = [[number, settings.count(height, width), seed, height, width] for height, width in sizes]
        data[KEY] = torch.tensor(rows, dtype=torch.long)

    def _smaller(self, pixels: Tensor, grid: Tensor, settings: Settings) -> Mapping[str, Tensor]:
        """One image as `downsample` makes it, through the door by which gp's engine asks for it."""
        backbone = self._backbone
        inputs = {"pixel_values": pixels, "image_grid_thw": grid.unsqueeze(0)}
        ((height, width),) = backbone.image_sizes(inputs)
        prompt = torch.full((1, height * width), backbone.image_token_id)
        whole = {**inputs, "input_ids": prompt}
        return method(settings.method, backbone).prepare(backbone, whole, settings.options())

    def _get_mm_fields_config(self, hf_inputs: Any, hf_processor_mm_kwargs: Mapping[str, Any]) -> Any:
        stock = super()._get_mm_fields_config(hf_inputs, hf_processor_mm_kwargs)  # type: ignore[misc]
        own = MultiModalFieldConfig.batched("image", keep_on_cpu=True)
        return {**stock, KEY: own, PROMPT: own}

    def _get_prompt_updates(
        self, mm_items: Any, hf_processor_mm_kwargs: Mapping[str, Any], out_mm_kwargs: Any
    ) -> Sequence[PromptUpdate]:
        image_token = self._backbone.image_token_id

        def placeholders(image: int) -> list[int]:
            count = out_mm_kwargs["image"][image][KEY].data.tolist()[1]
            return [image_token] * count

        return [PromptReplacement(modality="image", target=[image_token], replacement=placeholders)]
