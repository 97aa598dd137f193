"""transformers' `generate` on a pruned prompt: the prefill is done already, what is left is an ordinary decoder."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, GenerationMixin
from transformers.cache_utils import Cache, DynamicLayer
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils import ModelOutput

from gp.backbones import CACHE, Backbone, LayerMasks
from gp.engine.compiled import CompiledDecoding
from gp.engine.prefill import Prefill
from gp.engine.static_cache import StaticCache

SAMPLING = ("temperature", "top_p", "top_k", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff")
# Options of a generation config that make greedy decoding choose another token than the most likely one, and the
# values under which they do not.
SWAYING: dict[str, tuple] = {
    "repetition_penalty": (1.0,),
    "encoder_repetition_penalty": (1.0,),
    "no_repeat_ngram_size": (0,),
    "encoder_no_repeat_ngram_size": (0,),
    "exponential_decay_length_penalty": (),
    "min_length": (0,),
    "min_new_tokens": (0,),
    "bad_words_ids": (),
    "sequence_bias": (),
    "suppress_tokens": (),
    "begin_suppress_tokens": (),
    "forced_bos_token_id": (),
    "forced_eos_token_id": (),
    "guidance_scale": (1.0,),
    "watermarking_config": (),
}
# Greedy whatever the base's generation config says: the most likely token, always.
GREEDY: dict[str, Any] = {
    "do_sample": False,
    "num_beams": 1,
    "num_return_sequences": 1,
    **dict.fromkeys((*SAMPLING, *SWAYING)),
}
SPARE_TOKENS = 128  # room that a mask is given for new tokens whenever it is full
ALIGNED = 8  # entries; where rows of a mask start elsewhere, CUDA's kernel copies it in every layer


def switched_off(generation_config: Any) -> dict[str, Any]:
    """What of a base's generation config would sway greedy decoding; `GREEDY` switches it off."""
    given = {name: getattr(generation_config, name, None) for name in SWAYING}
    return {name: value for name, value in given.items() if value is not None and value not in SWAYING[name]}


def notice_of_greedy(generation_config: Any) -> list[str]:
    """What to say, once, where answers are greedy whatever the base's generation config says; nothing if it agrees."""
    off = [f"{name}={value!r}" for name, value in switched_off(generation_config).items()]
    return [f"answers are greedy: {', '.join(off)} of the base's generation config is off"] if off else []


@dataclass
class Handover:
    """A prefill on its way into one call of `generate`, and what that call builds from it once.

    Args:
        prefill: the pruned prompt.
        consume: whether the cache is given away, layer by layer, so that it is never in memory twice; the prefill
            cannot be decoded again then.
        positions: [B * copies] int64, of the first new token.
        growing: the prefill's distinct masks, over copies and new tokens.
        static: the cache, where the step is compiled.
    """

    prefill: Prefill
    consume: bool = False
    positions: Tensor | None = None
    growing: list[GrowingMask] = field(default_factory=list)
    static: StaticCache | None = None

    def __post_init__(self) -> None:
        if not self.prefill.cache.layers:
            raise ValueError(
                "this prefill was decoded with consume=True, which gave its cache away: prefill again, "
                "or decode it without consume"
            )

    def start(self, copies: int, dtype: torch.dtype | None = None) -> None:
        """Repeats positions and masks as often as `generate` repeats the prompts; `dtype` as of `GrowingMask`."""
        self.positions = self.prefill.next_position.repeat_interleave(copies)
        repeated = [mask.repeat_interleave(copies, 0) for mask in self.prefill.cache_masks.distinct]
        self.growing = [GrowingMask(mask, dtype) for mask in repeated]

    def finish(self, out: Any = None) -> None:
        """Gives back what the call borrowed; an output of `generate` loses the cache that it would name."""
        if self.static is not None:
            self.static.release()
            self.static = None
            if isinstance(out, ModelOutput):
                out[CACHE] = None

    def masks(self, num_new: int) -> LayerMasks:
        """Masks over the pruned prompt and so many new tokens: [B * copies, R + num_new] for every layer."""
        if not self.prefill.cache_masks.has_padding:
            return self.prefill.cache_masks  # nobody looks into them
        return replace(self.prefill.cache_masks, distinct=[mask.longer(num_new) for mask in self.growing])


class GrowingMask:
    """Mask [B, R] with True for the new tokens behind it: built with room for many, sliced for each.

    Args:
        mask: [B, R] bool.
        dtype: of the logits, if the mask is to be added to them: 0 for what is seen and -inf for the rest. A kernel
            that is given it so, with rows that start where it wants them, has nothing left to build in any layer.
    """

    def __init__(self, mask: Tensor, dtype: torch.dtype | None = None) -> None:
        self._length, self._seen = mask.shape[1], True if dtype is None else 0.0
        self._mask = mask if dtype is None else torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, -torch.inf)

    def longer(self, num_new: int) -> Tensor:
        """Returns the mask over `num_new` tokens more, [B, R + num_new]."""
        end = self._length + num_new
        if end > self._mask.shape[1]:
            room = end + SPARE_TOKENS + -(end + SPARE_TOKENS) % ALIGNED
            old, self._mask = self._mask, self._mask.new_full((len(self._mask), room), self._seen)
            self._mask[:, : old.shape[1]] = old
        return self._mask[:, :end]


class PrunedDecoder(GenerationMixin):
    """Model that `generate` drives. Its first call hands over the prefill; later ones run single tokens on the cache.

    Whatever else `generate` asks of a model (config, device, generation config, ...) the stock model answers.
    All state of a call travels in `generate`'s own arguments (`handover` and the cache), none on the object, so
    one decoder serves many threads. Beams and `num_return_sequences` share one prefill, which is repeated afterwards.

    Args:
        backbone: adapter of the frozen model.
        compiled: the base's compiled step, if later calls are to take it.
    """

    def __init__(self, backbone: Backbone, compiled: CompiledDecoding | None = None) -> None:
        self.backbone, self.compiled = backbone, compiled

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["backbone"].model, name)

    def __call__(self, **kwargs: Any) -> CausalLMOutputWithPast:
        return self.forward(**kwargs)

    def _valid_auto_compile_criteria(self, *args: Any, **kwargs: Any) -> bool:
        """Refuses: `generate` would compile the stock model (on a GPU with a static cache), not this decoder."""
        return False

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, handover: Handover | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Keeps the newest token and the call's own state."""
        kept = {k: kwargs[k] for k in (CACHE, "output_attentions", "output_hidden_states") if k in kwargs}
        return {"input_ids": input_ids[:, -1:], "handover": handover, **kept}

    def forward(
        self,
        input_ids: Tensor,
        handover: Handover | None = None,
        return_dict: bool = True,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits of the next token.

        Args:
            input_ids: [B, 1]; the batch is the prefill's, times the beams or returned sequences of each prompt.
            handover: the pruned prompt, and this call's own state.
            kwargs: the cache that `generate` made, under the name that transformers gives it (empty on the first
                call), and outputs that the caller wants.
        """
        assert handover is not None  # `generate` passes it on
        prefill = handover.prefill
        cache: Any = kwargs.pop(CACHE)
        if cache.get_seq_length() == 0:
            copies = input_ids.shape[0] // prefill.logits.shape[0]
            cache = self._take_cache(handover, cache, copies, kwargs)
            return CausalLMOutputWithPast(logits=prefill.logits[:, -1:].repeat_interleave(copies, 0), **{CACHE: cache})
        prefill.insist()  # `generate` has waited for the first token
        if isinstance(cache, StaticCache):
            named: dict[str, Any] = {CACHE: cache}
            return CausalLMOutputWithPast(logits=self.compiled.logits(cache, input_ids), **named)
        num_new = cache.get_seq_length() + 1 - prefill.cache_masks[0].shape[1]
        position_ids, masks = (handover.positions + num_new - 1).unsqueeze(1), handover.masks(num_new)
        if masks.is_ragged:
            hidden = self.backbone.decode_ragged(input_ids, position_ids, masks, cache)
            logits = self.backbone.head(hidden)
            return CausalLMOutputWithPast(logits=logits, **{CACHE: cache})
        mask = masks[0] if masks.has_padding else None
        out = self.backbone.decode(input_ids, position_ids, mask, cache, **kwargs)
        return CausalLMOutputWithPast(
            logits=self.backbone.head(out.last_hidden_state),
            hidden_states=out.hidden_states,
            attentions=out.attentions,
            **{CACHE: cache},
        )

    def _take_cache(self, handover: Any, cache: Cache, copies: int, wanted: dict[str, Any]) -> Cache:
        """The pruned prompt's cache in the form in which it is decoded."""
        prefill = handover.prefill
        if self.compiled is not None:
            handover.static = self.compiled.take(prefill, cache, copies, handover.consume, wanted)
            if handover.static is not None:
                return handover.static
        cache = fill_cache(cache, prefill.cache, copies, handover.consume)
        handover.start(copies, self.backbone.dtype_of_mask(cache))
        return cache


def add_masks(out: ModelOutput, done: Prefill) -> ModelOutput:
    """Puts what was kept into an output of `generate`, and gives it back."""
    out["keep_masks"], out["num_kept"] = tuple(done.keep_masks), tuple(done.num_kept)
    out["num_visual"] = tuple(done.full_layout.prompt_sizes)
    out["seen_masks"], out["crops"] = tuple(done.seen_masks), tuple(done.seen_again)
    return out


def fill_cache(target: Cache, source: DynamicCache, copies: int, consume: bool = False) -> Cache:
    """Moves a pruned cache into the kind of cache that `generate` was asked for, each row `copies` times.

    The source stays usable for another call unless it is consumed: its tensors may be shared with the target, which is
    safe because a dynamic cache grows by concatenation, but keeps them alive beside what has grown.

    Args:
        consume: the source loses each layer as it is moved.
    """
    layers = source.layers if consume else list(source.layers)
    for index in range(len(layers)):
        layer: Any = layers.pop(0)
        keys, values = layer.keys, layer.values
        if copies > 1:
            keys, values = keys.repeat_interleave(copies, 0), values.repeat_interleave(copies, 0)
        plain = index < len(target.layers) and type(target.layers[index]) is DynamicLayer and not target.offloading
        if plain:
            target.layers[index].lazy_initialization(keys, values)
            target.layers[index].keys, target.layers[index].values = keys, values
        else:
            target.update(keys, values, index)
    return target
