"""The glimpse before vLLM's decoder: gp's engine runs the first layers over whole images and their question.

vLLM cannot drop tokens behind one of its layers, but it takes what an image's encoding gives. So the layers up to the
one that the glimpse is read in run twice: here for all tokens of an image with its prompt, up to the decision, then in
vLLM's decoder, from layer 0, for what is kept. The second run has few tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from gp.backbones import Backbone, backbone_of, find_family
from gp.engine.run import Run
from gp.formats.glimpse_folder import load_glimpse
from gp.integrations.vllm.asking import unfolded
from gp.pruners import GlimpsePruner
from gp.selection import of_prompts
from gp.types import ImageFeatures, PruneOptions

LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.(.+)$")  # number of a decoder layer and name of a weight in it
OF_TOWER = ("visual", "vision")


class Look:
    """A glimpse with the decoder layers that it is read in, copied from the weights that vLLM loads.

    Args:
        place: of the base.
        revision: of its hub id.
        glimpse: trained parts, as for `gp.formats.glimpse_folder.load_glimpse`.
        device, dtype: of the base.
        embed: token embeddings of the base, a module with a `weight`.

    Raises:
        FileNotFoundError, ValueError: no such parts, or parts of a base of other sizes.
    """

    def __init__(
        self, place: str, revision: str | None, glimpse: str, device: torch.device, dtype: torch.dtype, embed: Any
    ) -> None:
        family, source = find_family(place, revision)
        self.backbone: Backbone = backbone_of(family.outline(source))
        pruner, _ = load_glimpse(glimpse, self.backbone)
        self.pruner: GlimpsePruner = pruner.requires_grad_(False).to(device, dtype)
        text, config = self.backbone.text_model, self.backbone.text_config
        self.layers: dict[int, Any] = {}
        for index in range(pruner.prune_layer + 1):
            layer = type(text.layers[index])(config, index).requires_grad_(False).eval().to(device, dtype)
            self.layers[index] = text.layers[index] = layer
        text.rotary_emb = type(text.rotary_emb)(config=config).to(device)
        text.embed_tokens = embed
        self._missing = {(index, name) for index, layer in self.layers.items() for name in layer.state_dict()}

    def copying(self, weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """Hands on the weights of a checkpoint, by name, and copies those of its layers on the way."""
        for name, weight in weights:
            found = LAYER.search(name)
            if found is not None and not any(word in name for word in OF_TOWER):
                self._copy(int(found[1]), found[2], weight)
            yield name, weight

    @torch.no_grad()
    def _copy(self, index: int, name: str, weight: Tensor) -> None:
        if (index, name) not in self._missing:
            return
        own = self.layers[index].state_dict()[name]
        if own.shape == weight.shape and weight.is_floating_point():
            own.copy_(weight)
            self._missing.discard((index, name))

    def check(self) -> None:
        """Raises ValueError if a weight of its layers has not come by."""
        if self._missing:
            index, name = min(self._missing)
            raise ValueError(
                f"glimpse: layer {index} has no plain weight {name} among those that vLLM loads: take the base as it "
                "was published, not quantized, and no load_format that loads no weights"
            )

    @torch.no_grad()
    def keep(
        self,
        images: Sequence[ImageFeatures],
        sizes: Sequence[tuple[int, int]],
        prompts: Sequence[Sequence[int]],
        options: Sequence[PruneOptions],
    ) -> list[Tensor]:
        """Decides what is kept of images, each with its prompt a row of one batch.

        Args:
            images: features of each, with the vision layers of `pruner.taps`.
            sizes: (height, width) of each in visual tokens.
            prompts: ids of each, with one image token.
            options: of each, with an exact budget.

        Returns:
            Numbers of the kept tokens of each image in raster order, [k] int64, ascending.

        Raises:
            ValueError: scores that are not finite.
        """
        token = self.backbone.image_token_id
        rows = [unfolded(ids, token, h * w) for ids, (h, w) in zip(prompts, sizes, strict=True)]
        longest = max(map(len, rows))
        ids = torch.zeros(len(rows), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, filled in enumerate(rows):
            ids[row, longest - len(filled) :] = torch.tensor(filled)
            mask[row, longest - len(filled) :] = 1
        inputs = {"input_ids": ids, "attention_mask": mask, **self.backbone.image_facts(sizes)}
        features = reduce(ImageFeatures.plus, images)
        prompt = self.backbone.embed(inputs, self.pruner.taps, features, sizes=sizes)
        run = Run.start(self.backbone, self.pruner, prompt, of_prompts(list(options), prompt.layout))
        run.advance(self.pruner.prune_layer)
        for finding in run.findings:
            finding.insist()
        return [one.flatten().nonzero()[:, 0] for one in prompt.layout.split_by_image(run.alive)]
