"""The object that users hold: a frozen LVLM with its trained glimpse, and `generate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from gp.backbones import Backbone, backbone_of
from gp.engine.generation import Handover, PrunedDecoder
from gp.engine.prefill import Prefill, prefill
from gp.formats import publish
from gp.pruners import BASELINES, BEFORE_FIRST_LAYER, GlimpsePruner, NoPruner, Pruner, make_baseline
from gp.types import ImageFeatures, PruneOptions

REFUSED = {
    "assistant_model": "speculative decoding would need the dropped tokens back",
    "prompt_lookup_num_tokens": "speculative decoding would need the dropped tokens back",
    "cache": "the prompt is prefilled and pruned as a whole",
    "past_key_values": "the prompt is prefilled and pruned as a whole",
    "inputs_embeds": "pass input_ids and the processor's image tensors",
    "prefill_chunk_size": "the prompt is prefilled and pruned as a whole",
}


@dataclass(frozen=True)
class Answer:
    """Answer of `GlimpseModel.ask`.

    Args:
        text: without special tokens.
        keep_masks: one bool [h, w] per image, True = kept.
        num_kept, num_visual: visual tokens kept, and all, of the whole prompt.
    """

    text: str
    keep_masks: tuple[Tensor, ...]
    num_kept: int
    num_visual: int


class GlimpseModel(nn.Module):
    """A frozen LVLM that drops the visual tokens which the question does not need.

    Args:
        base: a stock transformers model of a supported family; frozen, in eval mode, otherwise unchanged.
        glimpse: the trained parts; None: baselines only.
        options: defaults of every call.
        processor: the base's own, for convenience.
        pruner_settings: method -> its settings where they are not the published ones, see `gp.pruners.make_baseline`.

    Raises:
        ValueError: settings of a method that there is not.
    """

    def __init__(
        self,
        base: PreTrainedModel,
        glimpse: GlimpsePruner | None = None,
        options: PruneOptions | None = None,
        processor: Any = None,
        pruner_settings: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__()
        self.base = base.requires_grad_(False).eval()
        self.backbone = backbone_of(base)
        self.glimpse = glimpse
        self.options = options or PruneOptions()
        self.processor = processor
        if unknown := [name for name in pruner_settings or () if name not in BASELINES]:
            raise ValueError(f"pruner_settings: no pruner {unknown[0]!r}; there is {', '.join(sorted(BASELINES))}")
        self.pruner_settings = pruner_settings or {}

    def train(self, mode: bool = True) -> GlimpseModel:
        """Switches the trained parts; the base stays in eval mode."""
        super().train(mode)
        self.base.eval()
        return self

    @torch.no_grad()
    def generate(
        self,
        *,
        pruner: str | Pruner | None = None,
        options: PruneOptions | None = None,
        evidence_masks: Sequence[Tensor] | None = None,
        seed: int | Sequence[int] = 0,
        **kwargs: Any,
    ) -> Tensor | ModelOutput:
        """transformers' `generate` behind one pruned prefill.

        Args:
            pruner: `glimpse` (the default, if there is one), `none`, another method's name, or a `Pruner`.
            options: pruning options of this call; single ones can be given by name (`max_keep_ratio=0.1`).
            evidence_masks: for `oracle`, one [h, w] mask per image.
            seed: for methods that draw; one for the batch, or one per prompt.
            kwargs: the processor's output, and anything that `generate` takes.

        Returns:
            Like transformers: ids [B, full prompt + new tokens], or with `return_dict_in_generate=True` its
            output object, which then also has `keep_masks` (one bool [h, w] per image), `num_kept` and `num_visual`
            (one number per prompt).

        Raises:
            ValueError: what cannot work on a pruned prompt, and why.
        """
        options = self._options(options, kwargs)
        inputs = {k: kwargs.pop(k) for k in self.backbone.prompt_keys if kwargs.get(k) is not None}
        _refuse(kwargs)
        done = self.prefill(inputs, pruner, options, evidence_masks, seed)
        out = self.decode(inputs["input_ids"], done, consume=True, **kwargs)
        if isinstance(out, ModelOutput):
            out["keep_masks"], out["num_kept"], out["num_visual"] = (
                tuple(done.keep_masks),
                tuple(done.num_kept),
                tuple(done.full_layout.prompt_sizes),
            )
        return out

    def ask(self, images: Image | Sequence[Image], question: str, **kwargs: Any) -> Answer:
        """Asks one question about one image or several, through the processor's chat template.

        Args:
            images: PIL images, in the order in which they stand before the question.
            question: text.
            kwargs: as for `generate`; greedy unless they say otherwise.

        Raises:
            ValueError: a model without a processor; and what `generate` raises.
        """
        if self.processor is None:
            raise ValueError("ask needs a processor: load the model with gp.from_pretrained, or set model.processor")
        images = [images] if isinstance(images, Image) else list(images)
        content = [*({"type": "image", "image": image} for image in images), {"type": "text", "text": question}]
        inputs = self.processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        how = {"do_sample": False, "max_new_tokens": 64, **kwargs, "return_dict_in_generate": True}
        out = self.generate(**inputs, **how)
        new = out.sequences[0, inputs["input_ids"].shape[1] :]
        text = self.processor.tokenizer.decode(new, skip_special_tokens=True).strip()
        return Answer(text, out.keep_masks, out.num_kept[0], out.num_visual[0])

    @torch.no_grad()
    def prefill(
        self,
        inputs: Mapping[str, Tensor],
        pruner: str | Pruner | None = None,
        options: PruneOptions | None = None,
        evidence_masks: Sequence[Tensor] | None = None,
        seed: int | Sequence[int] = 0,
        images: ImageFeatures | None = None,
    ) -> Prefill:
        """Runs only the prefill: keep masks, importance logits, and the cache that `decode` starts from.

        Args:
            images: of `see`, when several methods prefill the same batch; the rest as for `generate`.
        """
        chosen = self.find_pruner(pruner)
        return prefill(self.backbone, inputs, chosen, options or self.options, evidence_masks, seed, images=images)

    @torch.no_grad()
    def see(self, inputs: Mapping[str, Tensor], pruners: Sequence[str | Pruner]) -> ImageFeatures:
        """Runs the batch's images through the vision tower, once for all these methods."""
        found = [self.find_pruner(pruner) for pruner in pruners]
        taps = {layer for pruner in found for layer in pruner.taps}
        attended = {block for pruner in found for block in pruner.attended}
        return self.backbone.see(inputs, sorted(taps), sorted(attended))

    def decode(self, input_ids: Tensor, done: Prefill, consume: bool = False, **kwargs: Any) -> Tensor | ModelOutput:
        """Runs only the decoding: `generate` on a finished prefill.

        Args:
            input_ids: [B, S], of the prompts as they came.
            done: of `prefill`; can be decoded any number of times.
            consume: this is the last time: the cache is moved, not kept, which halves the memory of decoding.
            kwargs: as for `generate`.

        Raises:
            ValueError: the prefill was consumed before.
        """
        decoder, handover = PrunedDecoder(self.backbone), Handover(done, consume)
        return decoder.generate(input_ids.to(self.backbone.device), handover=handover, **kwargs)

    def find_pruner(self, pruner: str | Pruner | None) -> Pruner:
        """The method that a call asked for.

        Raises:
            ValueError: no such method, or `glimpse` without trained parts.
        """
        if isinstance(pruner, Pruner):
            return pruner
        if pruner in (None, GlimpsePruner.name):
            if self.glimpse is None and pruner is not None:
                raise ValueError("pruner 'glimpse': this model was loaded without trained parts; pass glimpse=...")
            return self.glimpse or NoPruner()
        prune_layer = self.glimpse.prune_layer if self.glimpse is not None else BEFORE_FIRST_LAYER
        return make_baseline(pruner, self.backbone, prune_layer, self.pruner_settings.get(pruner))

    def save_pretrained(self, folder: str | Path, **card: Any) -> Path:
        """Writes the trained parts with a model card.

        Args:
            folder: made if missing; `gp.from_pretrained(base, glimpse=folder)` reads it back.
            card: see `gp.formats.publish.save_pretrained`.

        Raises:
            ValueError: a model without trained parts.
        """
        return publish.save_pretrained(folder, *self._trained(), **card)

    def push_to_hub(self, repo_id: str, *, private: bool = False, **card: Any) -> str:
        """Uploads what `save_pretrained` writes and returns the commit's address; `private` for a new repository."""
        return publish.push_to_hub(repo_id, *self._trained(), private=private, **card)

    def _trained(self) -> tuple[GlimpsePruner, Backbone, PruneOptions]:
        if self.glimpse is None:
            raise ValueError("this model has no trained parts to save: it was loaded without glimpse=...")
        return self.glimpse, self.backbone, self.options

    def _options(self, options: PruneOptions | None, kwargs: dict[str, Any]) -> PruneOptions:
        """The call's options: the given or the default ones, changed by single ones in `kwargs`."""
        single = {name: kwargs.pop(name) for name in PruneOptions.field_names() if name in kwargs}
        return (options or self.options).but(**single)


def _refuse(kwargs: Mapping[str, Any]) -> None:
    for name, why in REFUSED.items():
        if kwargs.get(name) is not None:
            raise ValueError(f"generate: {name} does not work on a pruned prompt: {why}")
    if kwargs.get("use_cache") is False:
        raise ValueError("generate: use_cache=False does not work on a pruned prompt: it lives in the cache")
    if any(k in kwargs for k in ("pixel_values_videos", "video_grid_thw")):
        raise ValueError("generate: videos are not pruned yet; pass images")
