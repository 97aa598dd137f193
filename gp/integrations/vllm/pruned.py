"""What is alike in all families that vLLM serves with images pruned between vision tower and decoder."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from vllm.config import VllmConfig
from vllm.platforms import current_platform
from vllm.utils.gpu_sync_debug import gpu_sync_allowed

from gp.integrations.vllm import CPU_WORKER
from gp.integrations.vllm.asking import PROMPT
from gp.integrations.vllm.look import Look
from gp.integrations.vllm.outline import method, outline_of
from gp.integrations.vllm.positions import PlacedImage, place_images, prompt_positions, take_places, with_places
from gp.integrations.vllm.pruning import prune_image
from gp.integrations.vllm.settings import GLIMPSE, KEY, METHODS, of_engine
from gp.types import ImageFeatures, PruneOptions, VisionAttention

ANY_RATE = 0.5  # of videos, which are not taken: vLLM asks models for positions only if some rate is set
Size = tuple[int, int]


class PrunedImages:
    """Stands before a stock model's class: the decoder gets fewer embeddings an image, each at its original position.

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
        compilation: Any = vllm_config.compilation_config
        for option in ("compile_mm_encoder", "cudagraph_mm_encoder"):
            if getattr(compilation, option, False):
                raise ValueError(f"compilation_config.{option}: what is pruned is read inside the vision tower")
        config: Any = vllm_config.model_config
        if not config.uses_mrope:
            raise ValueError(f"{type(self).__name__}: this version of vLLM does not let the model place its tokens")
        config.multimodal_config.video_pruning_rate = ANY_RATE  # before the parts that ask for it are made
        super().__init__(vllm_config=vllm_config, prefix=prefix)  # type: ignore[call-arg]  # of the class behind
        self.video_pruning_rate = ANY_RATE
        self.is_multimodal_pruning_enabled = True
        self.outline = outline_of(config)
        settings = of_engine(config.hf_config)
        self.look: Look | None = None
        if settings.glimpse is not None:
            embed = self.language_model.model.embed_tokens  # type: ignore[attr-defined]
            place = (str(config.model), config.revision, settings.glimpse)
            self.look = Look(*place, embed.weight.device, config.dtype, embed)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        if self.look is None:
            return super().load_weights(weights)  # type: ignore[misc]
        loaded = super().load_weights(self.look.copying(weights))  # type: ignore[misc]
        self.look.check()
        return loaded

    # ---- what each family states ----------------------------------------------------------------------------------

    @abstractmethod
    def read_tower(
        self, images: Any, sizes: Sequence[Size], blocks: Sequence[int], taps: Sequence[int]
    ) -> list[ImageFeatures]:
        """Runs the tower once: embeddings of each image, attention of some blocks, features of some layers."""

    def grid_of(self, size: Size) -> Size:
        """(rows, columns) over which the positions of an image of this size are counted."""
        return size

    # ---- positions ------------------------------------------------------------------------------------------------

    def get_mrope_input_positions(self, input_tokens: list[int], mm_features: list[Any]) -> tuple[Tensor, int]:
        features = sorted(mm_features, key=lambda feature: feature.mm_position.offset)
        return prompt_positions(len(input_tokens), [self._placed(feature) for feature in features])

    def _placed(self, feature: Any) -> PlacedImage:
        _, _, _, height, width = feature.data[KEY].data.tolist()
        return PlacedImage(feature.mm_position.offset, feature.mm_position.length, self.grid_of((height, width)))

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
            is_image = ids == self.outline.image_token_id
            return embeds, place_images(mrope_positions, is_image, num_computed_tokens, rows_columns), delta

    # ---- images ---------------------------------------------------------------------------------------------------

    def embed_multimodal(self, **kwargs: Any) -> tuple[Tensor, ...]:
        """Embeddings of each image's kept tokens with their places behind them, [k, D + 4]."""
        rows, prompts = kwargs.pop(KEY, None), kwargs.pop(PROMPT, None)
        images = self._parse_and_validate_image_input(**kwargs)  # type: ignore[attr-defined]
        if images is None or rows is None:
            return ()
        wanted = [(METHODS[number], count, seed) for number, count, seed, _, _ in rows.tolist()]
        sizes = [(height, width) for *_, height, width in rows.tolist()]
        with gpu_sync_allowed():
            blocks, taps = self._reads([name for name, _, _ in wanted])
            seen = self.read_tower(images, sizes, blocks, taps)
            asked = [k for k, (name, _, _) in enumerate(wanted) if name == GLIMPSE]
            kept = dict(zip(asked, self._looked(asked, seen, sizes, prompts, [count for _, count, _ in wanted])))
            return tuple(
                self._placed_tokens(*self._keep(one, size, *how, kept.get(k)), size)
                for k, (one, size, how) in enumerate(zip(seen, sizes, wanted, strict=True))
            )

    def _reads(self, names: Sequence[str]) -> tuple[list[int], tuple[int, ...]]:
        """Vision blocks whose attention these methods read, and vision layers whose features they read."""
        pruners = [method(name, self.outline) for name in set(names) - {GLIMPSE}]
        taps = self.look.pruner.taps if self.look is not None and GLIMPSE in names else ()
        return sorted({block for pruner in pruners for block in pruner.attended}), taps

    def _looked(
        self,
        asked: Sequence[int],
        seen: Sequence[ImageFeatures],
        sizes: Sequence[Size],
        prompts: Any,
        counts: Sequence[int],
    ) -> list[Tensor]:
        """What the glimpse keeps of the images `asked`."""
        if not asked:
            return []
        if self.look is None:
            raise ValueError(f"{KEY}: method 'glimpse' in an engine without trained parts")
        return self.look.keep(
            [seen[k] for k in asked],
            [sizes[k] for k in asked],
            [prompts[k].tolist() for k in asked],
            [PruneOptions(num_keep=counts[k], budget_scope="image") for k in asked],
        )

    def _keep(
        self, seen: ImageFeatures, size: Size, name: str, count: int, seed: int, kept: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Embeddings [k, D] of an image's kept tokens, behind them what deeper layers get, and the tokens' numbers."""
        embeds, deeper = seen.embeds, list(seen.deepstack.values())
        pruner = None if name == GLIMPSE else method(name, self.outline)
        if kept is not None:
            embeds = embeds[kept]
        elif pruner is not None and pruner.stages:
            attention: Mapping[int, VisionAttention] = seen.attention
            embeds, kept = prune_image(pruner, embeds, size, count, attention, seed, self.outline.num_layers)
        else:
            kept = torch.arange(len(embeds), device=embeds.device)
        return torch.cat([embeds, *(one[kept] for one in deeper)], dim=1), kept

    def _placed_tokens(self, embeds: Tensor, kept: Tensor, size: Size) -> Tensor:
        return with_places(embeds, kept, self.grid_of(size))
