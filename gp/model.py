"""The object that users hold: a frozen LVLM with its trained glimpse, and `generate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import torch
from PIL.Image import Image
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from gp import calls
from gp.answer import Answer
from gp.asking import chat_inputs, check_questions, read_answers, refuse_markers
from gp.backbones import CACHE, Backbone, backbone_of, is_placed
from gp.backbones.adapters import adapter_weights, count_trainable, is_wrapped
from gp.backbones.originals import Originals
from gp.backbones.processor import ImageGrids
from gp.chat import Chat
from gp.engine.compiled import compiled_decoding
from gp.engine.forward import PrunedOutput, forward
from gp.engine.generation import Handover, PrunedDecoder, add_masks
from gp.engine.prefill import Prefill, prefill
from gp.formats import publish
from gp.images import read_images
from gp.pruners import BEFORE_FIRST_LAYER, GlimpsePruner, NoPruner, Pruner, Zoom, find_class, make_baseline, split_zoom
from gp.selection import Options
from gp.types import ImageFeatures, PruneOptions


class GlimpseModel(nn.Module):
    """An LVLM that drops the visual tokens which the question does not need.

    It stands where the stock model stood: what it does not have itself (`hf_device_map`, `input_modalities`,
    `get_input_embeddings`, ...) is the base's.

    Args:
        base: a stock transformers model of a supported family, or what peft's `get_peft_model` made of it with a LoRA
            adapter; set to eval mode, otherwise left as it is: what is trainable stays so (see `trainable`).
        glimpse: the trained parts; None: baselines only.
        options: defaults of every call.
        processor: the base's own, for `ask`.
        pruner_settings: method -> its settings where they are not the published ones, see `gp.pruners.make_baseline`.
        compile_decode: whether calls that do not say it compile the decoding, see `generate`.

    Raises:
        ValueError: settings of a method that there is not, or a base that the engine does not compute exactly.
    """

    main_input_name = "input_ids"

    def __init__(
        self,
        base: PreTrainedModel,
        glimpse: GlimpsePruner | None = None,
        options: PruneOptions | None = None,
        processor: Any = None,
        pruner_settings: Mapping[str, Mapping[str, Any]] | None = None,
        compile_decode: bool = False,
    ) -> None:
        super().__init__()
        self.base = base.eval()
        self.backbone = backbone_of(base)
        self.glimpse = glimpse
        self.options = options or PruneOptions()
        self.processor = processor
        if isinstance(processor, ImageGrids):
            self.backbone.image_frame = processor.image_frame() or self.backbone.image_frame
        for name in pruner_settings or ():
            try:
                find_class(name)
            except ValueError as error:
                raise ValueError(f"pruner_settings: {error}") from error
        self.pruner_settings = pruner_settings or {}
        self.compile_decode = compile_decode

    # ---- being a model ------------------------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            base = self.__dict__.get("_modules", {}).get("base")
            if base is None or name.startswith("_") or not hasattr(base, name):
                raise
            return getattr(base, name)

    @property
    def device(self) -> torch.device:
        """Where prompts are embedded: where to send a processor's output."""
        return self.backbone.device

    @property
    def dtype(self) -> torch.dtype:
        return self.backbone.dtype

    @property
    def config(self) -> Any:
        """The base's own."""
        return self.base.config

    @property
    def adapter(self) -> Any:
        """peft's wrapper around the base, which can switch its adapter off; None for a base without one.

        Raises:
            ValueError: an adapter that was put into the base without the wrapper.
        """
        if is_wrapped(self.base):
            return self.base
        if (one := next(adapter_weights(self.base), None)) is not None:
            raise ValueError(
                f"this base has an adapter inside ({one[0]}) and no wrapper of peft's around it, without which it "
                "would be lost when saved: use peft.get_peft_model(base, ...) or PeftModel.from_pretrained(base, ...)"
            )
        return None

    def trainable(self) -> dict[str, int]:
        """How many parameters require gradients: of the `glimpse`, of the `adapter`, and of the `base` itself."""
        return count_trainable(self.base, self.glimpse)

    @property
    def generation_config(self) -> Any:
        """The base's own."""
        return self.base.generation_config

    @generation_config.setter
    def generation_config(self, config: Any) -> None:
        self.backbone.model.generation_config = config  # the decoder asks the stock model, not a wrapper of peft's

    def can_generate(self) -> bool:
        return True

    def _apply(self, fn: Any, recurse: bool = True) -> GlimpseModel:
        """Moves or casts, as `to` does; a base that a device map has placed stays where it is and as it is."""
        placed = is_placed(self.backbone.model)
        if placed and self.glimpse is not None:
            self.glimpse._apply(fn, recurse)
        return self if placed else super()._apply(fn, recurse)

    def train(self, mode: bool = True) -> GlimpseModel:
        """Switches the trained parts; the base stays in eval mode."""
        super().train(mode)
        self.base.eval()
        return self

    @torch.no_grad()
    def forward(
        self,
        input_ids: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        logits_to_keep: int = 0,
        pruner: str | Pruner | None = None,
        options: Options | None = None,
        evidence_masks: Sequence[Tensor] | None = None,
        seed: int | Sequence[int] = 0,
        return_dict: bool | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> PrunedOutput | tuple:
        """Logits of all positions that are left, and with `labels` a loss: for log-likelihoods, not for training.

        Args:
            input_ids, kwargs: the processor's output, and pruning options by name, as for `generate`.
            labels: [B, S] int64, -100 where nothing is to be predicted. The answer of a row begins at its first label
                behind the images: the method prunes the prompt before it, as when the answer is generated.
            logits_to_keep: positions at the end whose logits are wanted, 0: all.
            pruner, options, evidence_masks, seed: as for `generate`.
            return_dict: False: a tuple, as in transformers.
            use_cache: False: without the cache.

        Returns:
            See `gp.engine.forward.PrunedOutput`.

        Raises:
            ValueError: what cannot work on a pruned prompt, and why; see `gp.engine.forward.forward`.
        """
        kwargs["input_ids"] = input_ids
        inputs = calls.take_inputs(self.backbone, kwargs, "forward")
        chosen = calls.take_options(self.options, options, kwargs, len(inputs["input_ids"]))
        method = self.find_pruner(pruner, calls.take_settings(pruner, kwargs))
        loss_options = {k: kwargs.pop(k) for k in ("num_items_in_batch",) if kwargs.get(k) is not None}
        calls.refuse_in_forward(self.backbone, kwargs, method)
        out = forward(
            self.backbone,
            inputs,
            method,
            chosen,
            evidence_masks,
            seed,
            labels,
            logits_to_keep,
            **loss_options,
        )
        if use_cache is False:
            out[CACHE] = None
        return out if return_dict is not False else out.to_tuple()

    # ---- answering ----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def generate(
        self,
        inputs: Tensor | None = None,
        generation_config: Any = None,
        *,
        pruner: str | Pruner | None = None,
        options: Options | None = None,
        evidence_masks: Sequence[Tensor] | None = None,
        seed: int | Sequence[int] = 0,
        images: ImageFeatures | None = None,
        originals: Sequence[Image] | None = None,
        compile_decode: bool | None = None,
        **kwargs: Any,
    ) -> Tensor | ModelOutput:
        """transformers' `generate` behind one pruned prefill.

        Args:
            inputs: the prompts' ids, which may also be given as `input_ids`.
            generation_config: transformers' own.
            pruner: `glimpse` (the default, if there is one), `none`, another method's name, `package.module:Class`, or
                a `Pruner`. Settings of a method that is named can be given by name, as options can:
                `pruner="zoom", glance=1/9`.
            options: pruning options of this call, or a list with one entry per prompt. Single ones can be given by
                name, for all prompts or as a list: `max_keep_ratio=0.1`, `num_keep=5`, `threshold=[0.5, 0.3]`; `budget`
                is evaluate.py's word for `fixed_keep_ratio`.
            evidence_masks: for `oracle`, one [h, w] mask per image.
            seed: for methods that draw; one for the batch, or one per prompt.
            images: of `see`, if the images were seen already.
            originals: the PIL images behind the prompts' pixels, in order: on a base that sees images at one size
                (LLaVA-1.5) `zoom` cuts its crops from them.
            compile_decode: whether new tokens come from a compiled step, which the first call waits for
                (`gp.engine.compiled`); None: the model's own `compile_decode`. What cannot be compiled goes on as ever,
                with one warning. The output then names no cache.
            kwargs: the processor's output, and anything that `generate` takes.

        Returns:
            Like transformers: ids [B, full prompt + new tokens], or with `return_dict_in_generate=True` its
            output object, which then also has `keep_masks` (one bool [h, w] per image), `num_kept` and `num_visual`
            (one number per prompt); of methods that change the images also `seen_masks` (on the grids of the images
            as they came, what lies behind a kept token) and `crops` (parts that `zoom` has seen again).

        Raises:
            ValueError: what cannot work on a pruned prompt, and why; an unknown option, with the nearest known one.
        """
        if inputs is not None:
            if kwargs.get("input_ids") is not None:
                raise ValueError("generate: inputs and input_ids are two words for one thing: give one of them")
            kwargs["input_ids"] = inputs
        if generation_config is not None:
            kwargs["generation_config"] = generation_config
        prompt = calls.take_inputs(self.backbone, kwargs, "generate")
        chosen = calls.take_options(self.options, options, kwargs, len(prompt["input_ids"]))
        method = self.find_pruner(pruner, calls.take_settings(pruner, kwargs))
        calls.refuse(self.backbone, kwargs, method)
        done = self.prefill(prompt, method, chosen, evidence_masks, seed, images, originals)
        out = self.decode(prompt["input_ids"], done, True, compile_decode, **kwargs)
        return add_masks(out, done) if isinstance(out, ModelOutput) else out

    @overload
    def ask(self, images: Any, question: str, *, allow_urls: bool = False, **kwargs: Any) -> Answer: ...

    @overload
    def ask(self, images: Any, question: Sequence[str], *, allow_urls: bool = False, **kwargs: Any) -> list[Answer]: ...

    def ask(
        self,
        images: Any,
        question: str | Sequence[str],
        *,
        allow_urls: bool = False,
        pruner: str | Pruner | None = None,
        **kwargs: Any,
    ) -> Answer | list[Answer]:
        """Asks about one image or several, through the processor's chat template.

        Args:
            images: a PIL image, a path or a uint8 array [height, width, 3], or a list of them in the order in which
                they stand before the question; [] for none.
            question: text; or several questions about these images, which are then seen once and answered as a batch.
            allow_urls: download images whose address is given.
            pruner, kwargs: as for `generate`; greedy unless they say otherwise.

        Returns:
            An `Answer`, or a list with one per question.

        Raises:
            TypeError: images or a question of another type.
            ValueError: a model without a processor; an image that cannot be read; a question with a text that stands
                for an image; and what `generate` raises.
        """
        questions = check_questions(question)
        pictures = read_images(images, allow_urls)
        if self.processor is None:
            raise ValueError("ask needs a processor: load the model with gp.from_pretrained, or set model.processor")
        if kwargs.get("num_return_sequences") not in (None, 1):
            raise ValueError("ask gives one answer to a question; for more of them call generate")
        if not questions:
            return []
        refuse_markers(questions, self.backbone.processor.markers(self.processor))
        inputs = chat_inputs(self.processor, pictures, questions)
        how = {"do_sample": False, "max_new_tokens": 64, **kwargs, "return_dict_in_generate": True}
        how.setdefault("originals", pictures * len(questions))
        if len(questions) > 1 and pictures:
            once = {name: value[: len(value) // len(questions)] for name, value in inputs.items()}
            how["images"] = self.see(once, [pruner]).repeat(len(questions))
        out = self.generate(**inputs, pruner=pruner, **how)
        frames = [self.backbone.processor.frame(self.processor, *picture.size) for picture in pictures]
        answers = read_answers(self.processor, out, inputs["input_ids"].shape[1], pictures, frames)
        return answers[0] if isinstance(question, str) else answers

    def chat(
        self,
        images: Any = (),
        system: str | None = None,
        *,
        pruner: str | Pruner | None = None,
        allow_urls: bool = False,
        **defaults: Any,
    ) -> Chat:
        """Begins a conversation: `chat.ask("...")` again and again.

        Images are encoded once, and the layers up to the method's first stage run once over images and earlier turns,
        because they do not depend on the question. Every turn prunes for its own question; earlier answers stay. An
        answer is what `generate` gives on the whole conversation.

        Args:
            images: before the first question, as for `ask`; more can come with later questions.
            system: the system message; None: the chat template's own.
            pruner: as for `generate`; a method that makes images of its own for each question (`zoom`) sees the whole
                conversation anew in every turn.
            allow_urls: download images whose address is given.
            defaults: of every turn: pruning options (with `budget_scope="prompt"` all images of the conversation share
                a budget, with `"image"` each has its own), settings of the method, and what `generate` takes.

        Raises:
            TypeError, ValueError: like `ask`.
        """
        return Chat(self, images, system, pruner, allow_urls, **defaults)

    @torch.no_grad()
    def prefill(
        self,
        inputs: Mapping[str, Tensor],
        pruner: str | Pruner | None = None,
        options: Options | None = None,
        evidence_masks: Sequence[Tensor] | None = None,
        seed: int | Sequence[int] = 0,
        images: ImageFeatures | None = None,
        originals: Sequence[Image] | None = None,
    ) -> Prefill:
        """Runs only the prefill: keep masks, importance logits, and the cache that `decode` starts from.

        Args:
            images: of `see`, when several methods prefill the same batch; the rest as for `generate`.
        """
        chosen = self.find_pruner(pruner)
        behind = Originals.given(self.processor, originals) if chosen.looks_closer else None
        about = (inputs, chosen, options or self.options, evidence_masks, seed)
        return prefill(self.backbone, *about, images=images, originals=behind)

    @torch.no_grad()
    def see(self, inputs: Mapping[str, Tensor], pruners: Sequence[str | Pruner | None]) -> ImageFeatures:
        """Runs the batch's images through the vision tower, once for all these methods."""
        found = [self.find_pruner(pruner) for pruner in pruners]
        taps = {layer for pruner in found for layer in pruner.taps}
        attended = {block for pruner in found for block in pruner.attended}
        return self.backbone.see(inputs, sorted(taps), sorted(attended))

    def decode(
        self,
        input_ids: Tensor,
        done: Prefill,
        consume: bool = False,
        compile_decode: bool | None = None,
        **kwargs: Any,
    ) -> Tensor | ModelOutput:
        """Runs only the decoding: `generate` on a finished prefill.

        Args:
            input_ids: [B, S], of the prompts as they came.
            done: of `prefill`; can be decoded any number of times.
            consume: this is the last time: the cache is moved, not kept, which halves the memory of decoding.
            compile_decode, kwargs: as for `generate`.

        Raises:
            ValueError: the prefill was consumed before, or its scores were no finite numbers.
        """
        wanted = self.compile_decode if compile_decode is None else compile_decode
        decoder = PrunedDecoder(self.backbone, compiled_decoding(self.backbone) if wanted else None)
        handover, out = Handover(done, consume), None
        try:
            out = decoder.generate(input_ids.to(self.backbone.device), handover=handover, **kwargs)
        finally:
            handover.finish(out)
        done.insist()  # the device has worked off everything
        return out

    def find_pruner(self, pruner: str | Pruner | None, settings: Mapping[str, Any] | None = None) -> Pruner:
        """The method that a call asked for.

        Args:
            pruner: its name (see `gp.pruners.registry.find_class`), or itself.
            settings: of the method, over those of `pruner_settings`.

        Raises:
            ValueError: no such method or setting, or `glimpse` without trained parts.
        """
        if isinstance(pruner, Pruner):
            return pruner
        if pruner in (None, GlimpsePruner.name):
            if self.glimpse is None and pruner is not None:
                raise ValueError("pruner 'glimpse': this model was loaded without trained parts; pass glimpse=...")
            return self.glimpse or NoPruner()
        method = find_class(pruner)
        chosen = {**self.pruner_settings.get(pruner, {}), **(settings or {})}
        if method is Zoom:
            looks, chosen = split_zoom(pruner, {**self.pruner_settings.get(Zoom.name, {}), **chosen})
            return Zoom(self.find_pruner(looks), **chosen)
        prune_layer = self.glimpse.prune_layer if self.glimpse is not None else BEFORE_FIRST_LAYER
        return make_baseline(pruner, self.backbone, prune_layer, chosen)

    def save_pretrained(self, folder: str | Path, **card: Any) -> Path:
        """Writes the trained parts, the base's adapter if it has one, and a model card.

        Args:
            folder: made if missing; `gp.from_pretrained(base, glimpse=folder)` reads it back.
            card: see `gp.formats.publish.save_pretrained`.

        Raises:
            ValueError: a model without trained parts.
        """
        return publish.save_pretrained(folder, *self._trained(), adapter=self.adapter, **card)

    def push_to_hub(self, repo_id: str, *, private: bool = False, **card: Any) -> str:
        """Uploads what `save_pretrained` writes and returns the commit's address; `private` for a new repository."""
        return publish.push_to_hub(repo_id, *self._trained(), adapter=self.adapter, private=private, **card)

    def _trained(self) -> tuple[GlimpsePruner, Backbone, PruneOptions]:
        if self.glimpse is None:
            raise ValueError("this model has no trained parts to save: it was loaded without glimpse=...")
        return self.glimpse, self.backbone, self.options
