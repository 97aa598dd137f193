"""transformers' `generate` on a pruned prompt: the prefill is done already, what is left is an ordinary decoder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, GenerationMixin
from transformers.cache_utils import Cache, DynamicLayer
from transformers.modeling_outputs import CausalLMOutputWithPast

from gp.backbones import Backbone
from gp.prefill import Prefill


class PrunedDecoder(GenerationMixin):
    """What `generate` drives. Its first forward hands over the prefill; later ones run single tokens on the cache.

    Whatever else `generate` asks of a model (config, device, generation config, ...) the stock model answers.
    All state of a call travels in `generate`'s own arguments (`prefill`, `past_key_values`), none on the object, so
    one decoder serves many threads. Beams and `num_return_sequences` share one prefill, which is repeated afterwards.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["backbone"].model, name)

    def __call__(self, **kwargs: Any) -> CausalLMOutputWithPast:
        return self.forward(**kwargs)

    def _valid_auto_compile_criteria(self, *args: Any, **kwargs: Any) -> bool:
        """Never: what `generate` would compile (on a GPU with a static cache) is the stock model, not this decoder."""
        return False

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, past_key_values: Cache | None = None, prefill: Prefill | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Keeps the newest token and the call's own state."""
        wanted = {k: kwargs[k] for k in ("output_attentions", "output_hidden_states") if k in kwargs}
        return {"input_ids": input_ids[:, -1:], "past_key_values": past_key_values, "prefill": prefill, **wanted}

    def forward(
        self,
        input_ids: Tensor,
        past_key_values: Cache | None = None,
        prefill: Prefill | None = None,
        return_dict: bool = True,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits of the next token.

        Args:
            input_ids: [B, 1]; the batch is the prefill's, times the beams or returned sequences of each prompt.
            past_key_values: what `generate` made; empty on the first call.
            prefill: the pruned prompt.
        """
        copies = input_ids.shape[0] // prefill.logits.shape[0]
        if past_key_values.get_seq_length() == 0:
            cache = fill_cache(past_key_values, prefill.cache, copies)
            return CausalLMOutputWithPast(
                logits=prefill.logits[:, -1:].repeat_interleave(copies, 0), past_key_values=cache
            )
        num_new = past_key_values.get_seq_length() + 1 - prefill.cache_masks[0].shape[1]
        position_ids = (prefill.next_position + num_new - 1).repeat_interleave(copies).unsqueeze(1)
        if prefill.is_ragged:
            masks = ragged_masks(prefill, copies, num_new)
            hidden = self.backbone.decode_ragged(input_ids, position_ids, masks, past_key_values)
            logits = self.backbone.model.lm_head(hidden)
            return CausalLMOutputWithPast(logits=logits, past_key_values=past_key_values)
        mask = longer_mask(prefill.attention_mask, copies, num_new) if prefill.has_padding else None
        out = self.backbone.decode(input_ids, position_ids, mask, past_key_values, **kwargs)
        return CausalLMOutputWithPast(
            logits=self.backbone.model.lm_head(out.last_hidden_state),
            past_key_values=past_key_values,
            hidden_states=out.hidden_states,
            attentions=out.attentions,
        )


def longer_mask(mask: Tensor, copies: int, num_new: int) -> Tensor:
    """Mask [B, R] of the pruned prompt over prompt and new tokens, [B * copies, R + num_new]."""
    mask = mask.repeat_interleave(copies, 0).long()
    return torch.cat([mask, mask.new_ones(mask.shape[0], num_new)], dim=1)


def ragged_masks(prefill: Prefill, copies: int, num_new: int) -> list[Tensor]:
    """`longer_mask` of every layer; layers of one length share it."""
    distinct = {id(mask): mask for mask in prefill.cache_masks}
    longer = {key: longer_mask(mask, copies, num_new) for key, mask in distinct.items()}
    return [longer[id(mask)] for mask in prefill.cache_masks]


def fill_cache(target: Cache, source: DynamicCache, copies: int) -> Cache:
    """Moves a pruned cache into the kind of cache that `generate` was asked for, each row `copies` times.

    The source stays usable for a second call unless the target is the same plain kind and nothing is repeated;
    then its tensors are shared, which is safe because a dynamic cache grows by concatenation.
    """
    for index, layer in enumerate(source.layers):
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
