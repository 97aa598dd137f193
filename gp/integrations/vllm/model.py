"""Qwen2.5-VL as vLLM serves it, with images pruned between vision tower and decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from vllm.config import VllmConfig
from vllm.model_executor.models.qwen2_5_vl import Qwen2_5_VLForConditionalGeneration
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.platforms import current_platform
from vllm.utils.gpu_sync_debug import gpu_sync_allowed

from gp.integrations.vllm import CPU_WORKER
from gp.integrations.vllm.outline import method, outline_of
from gp.integrations.vllm.positions import PlacedImage, place_images, prompt_positions, take_places, with_places
from gp.integrations.vllm.processing import PrunedDummyInputs, PrunedProcessingInfo, PrunedProcessor
from gp.integrations.vllm.pruning import prune_image
from gp.integrations.vllm.settings import KEY, METHODS
from gp.integrations.vllm.vision import attention_by_image, record_queries_and_keys
from gp.pruners import Pruner
from gp.types import VisionAttention

ANY_RATE = 0.5  # of videos, which are not taken: vLLM asks models for positions only if some rate is set


@MULTIMODAL_REGISTRY.register_processor(PrunedProcessor, info=PrunedProcessingInfo, dummy_inputs=PrunedDummyInputs)
class PrunedQwen2_5_VLForConditionalGeneration(Qwen2_5_VLForConditionalGeneration):
    """Stock model; the decoder gets fewer embeddings per image, each at its original position.

    Changed: `embed_multimodal` drops tokens and sends the places of the others along, `get_mrope_input_positions` gives
    positions of prompts whose images lack tokens, and `recompute_mrope_positions` puts the kept ones where they were.

    Raises:
        ValueError: settings or ways of running vLLM that do not go together with pruning.
    """

    supports_mm_device_do_normalize = False  # `downsample` resizes normalised pixels
    supports_tower_connector_lora = False  # it derives the tower's tokens from those of the prompt

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        if vllm_config.speculative_config is not None:
            raise ValueError("speculative_config: drafts do not know the positions of pruned prompts")
        worker = vllm_config.parallel_config.worker_cls
        if current_platform.is_cpu() and worker != CPU_WORKER:
            raise ValueError(f"worker_cls must be {CPU_WORKER!r} on a CPU, got {worker!r}; see docs/vllm.md")
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        self.multimodal_config.video_pruning_rate = self.video_pruning_rate = ANY_RATE
        self.is_multimodal_pruning_enabled = True
        self.outline = outline_of(self.model_config)

    # ---- positions ------------------------------------------------------------------------------------------------

    def get_mrope_input_positions(self, input_tokens: list[int], mm_features: list[Any]) -> tuple[Tensor, int]:
        features = sorted(mm_features, key=lambda feature: feature.mm_position.offset)
        return prompt_positions(len(input_tokens), [self._placed(feature) for feature in features])

    def _placed(self, feature: Any) -> PlacedImage:
        grid = feature.data["image_grid_thw"].data.unsqueeze(0)
        (size,) = self.outline.image_sizes({"image_grid_thw": grid})
        return PlacedImage(feature.mm_position.offset, feature.mm_position.length, size)

    def recompute_mrope_positions(
        self,
        input_ids: list[int] | Tensor,
        multimodal_embeddings: Sequence[Tensor],
        mrope_positions: Tensor,
        num_computed_tokens: int,
    ) -> tuple[Sequence[Tensor], Tensor, int]:
        next_position = int(mrope_positions.max()) + 1  # of text: no prompt ends with an image
        delta = next_position - mrope_positions.shape[1]
        if not multimodal_embeddings:
            return multimodal_embeddings, mrope_positions, delta
        embeds, places = zip(*map(take_places, multimodal_embeddings), strict=True)
        ids = torch.as_tensor(input_ids, device=mrope_positions.device)
        with gpu_sync_allowed():
            rows_columns = torch.cat(places).to(mrope_positions.device)
            is_image = ids == self.config.image_token_id
            return embeds, place_images(mrope_positions, is_image, num_computed_tokens, rows_columns), delta

    # ---- images ---------------------------------------------------------------------------------------------------

    def embed_multimodal(self, **kwargs: Any) -> tuple[Tensor, ...]:
        """Embeddings of each image's kept tokens with their places behind them, [k, D + 4]."""
        rows = kwargs.pop(KEY, None)
        images = self._parse_and_validate_image_input(**kwargs)
        if images is None or rows is None:
            return ()
        wanted = [(method(METHODS[number], self.outline), count, seed) for number, count, seed in rows.tolist()]
        grids = images["image_grid_thw"].tolist()
        with gpu_sync_allowed():
            embeds, attention = self._see(images, grids, [pruner for pruner, _, _ in wanted])
            return tuple(
                self._keep(*one, size, look)
                for one, size, look in zip(
                    zip(embeds, wanted, strict=True), self.outline.image_sizes(images), attention, strict=True
                )
            )

    def _see(
        self, images: Any, grids: list[list[int]], pruners: Sequence[Pruner]
    ) -> tuple[Sequence[Tensor], list[dict[int, VisionAttention]]]:
        """Embeddings of each image, [V, D], and the attention of the blocks that one of the methods reads."""
        blocks = sorted({block for pruner in pruners for block in pruner.attended})
        if (blocks and self.visual.tp_size > 1) or (blocks and self.use_data_parallel):
            raise ValueError(f"{KEY}: visionzip reads the attention of a vision tower that is on one device")
        with record_queries_and_keys(self.visual, blocks) as calls:
            embeds = self._process_image_input(images)
        looks = {block: attention_by_image(self.visual, call, grids) for block, call in calls.items()}
        return embeds, [{block: own[i] for block, own in looks.items()} for i in range(len(grids))]

    def _keep(
        self,
        embeds: Tensor,
        wanted: tuple[Pruner, int, int],
        size: tuple[int, int],
        attention: dict[int, VisionAttention],
    ) -> Tensor:
        pruner, count, seed = wanted
        kept = torch.arange(len(embeds), device=embeds.device)
        if pruner.stages:
            embeds, kept = prune_image(pruner, embeds, size, count, attention, seed, self.outline.num_layers)
        return with_places(embeds, kept, size)
