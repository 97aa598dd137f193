"""What both Qwen families have in vLLM: vision blocks that are read alike, patches of a token behind one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from gp.integrations.vllm.pruned import PrunedImages, Size
from gp.integrations.vllm.settings import KEY
from gp.integrations.vllm.towers import attention_by_image, behind_block, record, states_by_image
from gp.types import ImageFeatures


class PrunedQwen(PrunedImages):
    """`PrunedImages` with the tower of these families."""

    def read_tower(
        self, images: Any, sizes: Sequence[Size], blocks: Sequence[int], taps: Sequence[int]
    ) -> list[ImageFeatures]:
        visual: Any = self.visual  # type: ignore[attr-defined]
        spread = self.use_data_parallel  # type: ignore[attr-defined]
        if (blocks and visual.tp_size > 1) or ((blocks or taps) and spread):
            raise ValueError(f"{KEY}: visionzip and glimpse read a vision tower that is on one device")
        attention = {block: visual.blocks[block].attn.attn for block in blocks}
        with record(attention, given={layer: behind_block(visual, layer) for layer in taps}) as found:
            embeds = self._process_image_input(images)  # type: ignore[attr-defined]
        looks = {block: attention_by_image(visual, call, sizes) for block, call in found.calls.items()}
        states = {layer: states_by_image(visual, out, sizes) for layer, out in found.states.items()}
        width = self.outline.hidden_size
        seen = []
        for k, one in enumerate(embeds):
            own, *deeper = one.split(width, dim=1)
            features = ImageFeatures(own, {layer: parts[k] for layer, parts in states.items()})
            attended = {block: parts[k] for block, parts in looks.items()}
            seen.append(replace(features, attention=attended, deepstack=dict(enumerate(deeper))))
        return seen
