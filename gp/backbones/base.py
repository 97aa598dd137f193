"""Embedding and decoding shared by decoder-only families: the engine's view of a model.

A backbone adapts one *unmodified* transformers model. It holds no state of a request.

A base may compute on several devices (`device_map`). Hidden states are then on the device of the layer that made them,
keys and values on that of theirs. Everything else of a request (masks, positions, visual ids, layout, taps, scores,
logits) stays at home, on the device of the embeddings, and a copy follows the layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import Cache, DynamicLayer
from transformers.masking_utils import create_causal_mask

from gp.backbones.attention import Rotary, rotate
from gp.backbones.compat import CACHE
from gp.backbones.contract import Family
from gp.backbones.host import execution_devices, hooked_device, is_placed, on_host
from gp.backbones.layer_masks import LayerMasks
from gp.backbones.layout import deal_images, refuse_right_padding, refuse_videos
from gp.backbones.sharded import run_part
from gp.types import ImageFeatures, Prompt, VisionAttention, VisualLayout


class Backbone(Family):
    """Runs the decoder of a stock model piece by piece, on what the family states about it."""

    _own_layers: Mapping[int, nn.Module] = MappingProxyType({})  # see `with_layers`

    def check_base(self) -> None:
        """Raises ValueError if the engine would not compute what the stock model computes."""
        config = self.text_config
        kinds = getattr(config, "layer_types", None)
        if kinds is None:
            kinds = ["sliding_attention"] if getattr(config, "sliding_window", None) else []
        if other := sorted(set(kinds) - {"full_attention"}):
            raise ValueError(
                f"{config.name_or_path or config.model_type}: decoder layers with {', '.join(other)}; only full "
                "attention works (without use_sliding_window, if its window is never full)"
            )
        devices = sorted({str(device) for device in execution_devices(self.model)})
        if len(devices) > 1 and not is_placed(self.model):
            raise ValueError(
                f"this base is on {', '.join(devices)}, and nothing moves what its layers take: load it with "
                "device_map=..., or move all of it to one device"
            )

    @property
    def text_config(self):
        return self.text_model.config

    @property
    def num_layers(self) -> int:
        return self.text_config.num_hidden_layers

    @property
    def hidden_size(self) -> int:
        return self.text_config.hidden_size

    @property
    def num_heads(self) -> int:
        return self.text_config.num_attention_heads

    @property
    def head_size(self) -> int:
        """Width of a query, a key or a value of one head."""
        return getattr(self.text_config, "head_dim", None) or self.hidden_size // self.num_heads

    @property
    def norm_eps(self) -> float:
        return self.text_config.rms_norm_eps

    @property
    def image_token_id(self) -> int:
        return self.model.config.image_token_id

    @property
    def device(self) -> torch.device:
        """Where embeddings are computed, and with them everything but the layers that are elsewhere."""
        return next(execution_devices(self.text_model.embed_tokens))

    @property
    def dtype(self) -> torch.dtype:
        return self.text_model.embed_tokens.weight.dtype

    def send(self, tensor: Tensor) -> Tensor:
        """Sends a tensor from the host to the device, without waiting for what the device is still doing."""
        return tensor.to(self.device, non_blocking=True)

    def see(
        self, inputs: Mapping[str, Tensor], taps: Sequence[int] = (), attended: Sequence[int] = ()
    ) -> ImageFeatures:
        """Runs the images of a batch through the vision tower, once; `embed` takes the result."""
        refuse_videos(inputs)
        inputs = on_host(inputs)
        if self.image_sizes(inputs):
            return self.encode_images(inputs, taps, attended).to(self.device)
        empty = torch.empty(0, self.hidden_size, device=self.device, dtype=self.dtype)
        nothing = VisionAttention(empty[:, 0].float(), empty[:, :0].float())
        return ImageFeatures(empty, {k: empty[:, :0] for k in taps}, dict.fromkeys(attended, nothing))

    def embed(
        self,
        inputs: Mapping[str, Tensor],
        taps: Sequence[int] = (),
        images: ImageFeatures | None = None,
        attended: Sequence[int] = (),
        sizes: Sequence[tuple[int, int]] | None = None,
    ) -> Prompt:
        """Text and image embeddings of a left-padded batch of prompts, ready for the first decoder layer.

        Args:
            inputs: what the processor returned: `input_ids` [B, S], optional `attention_mask` [B, S], image tensors.
            taps: vision layers whose features are wanted.
            images: of `see`, if the images were seen already.
            attended: vision blocks whose attention is wanted.
            sizes: (height, width) in merged tokens of all images, where `images` are given and `inputs` have no pixels.

        Raises:
            ValueError: right padding, videos, or image tokens and image features that do not match.
        """
        inputs = on_host(inputs)
        input_ids = inputs["input_ids"]
        layout, mask = self.layout(inputs, sizes)
        is_visual = (input_ids == self.image_token_id) & mask
        number = is_visual.flatten().long().cumsum(0).view_as(input_ids) - 1
        visual_id = self.send(torch.where(is_visual, number, -1))
        # the image token may lie outside the vocabulary, so token 0 stands in; its embedding is overwritten below
        hidden = self.text_model.embed_tokens(self.send(input_ids.masked_fill(is_visual, 0)))
        images = images or self.see(inputs, taps, attended)
        if len(images.embeds) != layout.num_tokens:
            raise ValueError(
                f"the prompts hold {layout.num_tokens} image tokens, but the vision tower yields {len(images.embeds)} "
                "features for their images"
            )
        hidden = hidden.masked_scatter((visual_id >= 0).unsqueeze(-1), images.embeds.to(hidden.dtype))
        return Prompt(
            hidden=hidden,
            attention_mask=self.send(mask),
            position_ids=self.send(self.positions(inputs, mask)),
            visual_id=visual_id,
            layout=layout,
            taps=images.tapped(taps),
            vision_attention=images.attended(attended),
            deepstack=images.deepstack,
            lengths=mask.sum(1).tolist(),
        )

    def layout(
        self, inputs: Mapping[str, Tensor], sizes: Sequence[tuple[int, int]] | None = None
    ) -> tuple[VisualLayout, Tensor]:
        """Finds the prompts' visual tokens; also returns the mask [B, S] as bool on the host. Raises like `embed`."""
        refuse_videos(inputs)
        inputs = on_host(inputs)
        input_ids = inputs["input_ids"]
        mask = inputs.get("attention_mask")
        mask = (torch.ones_like(input_ids) if mask is None else mask).bool()
        refuse_right_padding(mask)
        per_row = ((input_ids == self.image_token_id) & mask).sum(1).tolist()
        return deal_images(self.image_sizes(inputs) if sizes is None else sizes, per_row, self.device), mask

    def rotary(self, hidden: Tensor, position_ids: Tensor) -> Rotary:
        """Cosine and sine for positions [P, B, S]."""
        position_ids = position_ids.to(hidden.device)
        return self.text_model.rotary_emb(hidden, position_ids if position_ids.shape[0] > 1 else position_ids[0])

    def causal_mask(self, hidden: Tensor, padding_mask: Tensor | None, cache: DynamicCache | None) -> Tensor | None:
        """The mask that the model's own attention kernel wants, for `hidden` [B, Q, D] behind what the cache holds.

        Args:
            padding_mask: [B, cached + Q] bool; None without padding: the kernel's plain causal path is used.
        """
        if padding_mask is not None:
            padding_mask = padding_mask.to(hidden.device)
        # transformers is told whether there is padding: looking for it would make the host wait for the device
        return create_causal_mask(
            self.text_config, hidden, padding_mask, cache, allow_is_causal_skip=padding_mask is None
        )

    def reach(
        self, index: int, hidden: Tensor, mask: Tensor | None, rotary: Rotary
    ) -> tuple[Tensor, Tensor | None, Rotary]:
        """The arguments of decoder layer `index`, on its device: themselves, unless the base has several devices."""
        where = hooked_device(self.decoder_layer(index))
        if where is None:
            return hidden, mask, rotary
        return hidden.to(where), None if mask is None else mask.to(where), (rotary[0].to(where), rotary[1].to(where))

    def decoder_layer(self, index: int) -> Any:
        """The stock decoder layer of that number, or what stands for it; see `with_layers`."""
        return self._own_layers[index] if index in self._own_layers else self.text_model.layers[index]

    def with_layers(self, layers: Mapping[int, nn.Module]) -> Backbone:
        """The same base with other decoder layers of those numbers; everything else is shared."""
        other = copy(self)
        other._own_layers = layers
        return other

    def layer(self, index: int, hidden: Tensor, mask: Tensor | None, rotary: Rotary, cache: Cache) -> Tensor:
        """Runs one stock decoder layer; appends keys and values to the cache."""
        return self.decoder_layer(index)(
            hidden, attention_mask=mask, position_embeddings=rotary, use_cache=True, **{CACHE: cache}
        )

    def query(self, index: int, hidden: Tensor, rotary: Rotary | None) -> Tensor:
        """Queries of the rows `hidden` [B, Q, D], the input of layer `index`: [B, H, Q, d].

        Args:
            rotary: of these rows; None: not rotated.
        """
        decoder_layer = self.decoder_layer(index)
        projected = run_part(decoder_layer.self_attn.q_proj, run_part(decoder_layer.input_layernorm, hidden))
        return rotate(projected.unflatten(-1, (self.num_heads, -1)).transpose(1, 2), rotary)

    def key(self, index: int, hidden: Tensor, rotary: Rotary | None) -> Tensor:
        """Keys of the rows `hidden`, [B, H_kv, Q, d]; arguments like those of `query`."""
        decoder_layer = self.decoder_layer(index)
        projected = run_part(decoder_layer.self_attn.k_proj, run_part(decoder_layer.input_layernorm, hidden))
        heads = self.text_config.num_key_value_heads
        return rotate(projected.unflatten(-1, (heads, -1)).transpose(1, 2), rotary)

    def remember(self, index: int, hidden: Tensor, rotary: Rotary, cache: DynamicCache) -> None:
        """Appends keys and values of the rows `hidden`, the input of layer `index`, without running the layer."""
        decoder_layer = self.decoder_layer(index)
        key = self.key(index, hidden, rotary)
        projected = run_part(decoder_layer.self_attn.v_proj, run_part(decoder_layer.input_layernorm, hidden))
        cache.update(key, projected.unflatten(-1, (key.shape[1], -1)).transpose(1, 2), index)

    def logits(self, hidden: Tensor) -> Tensor:
        """Final norm and language-model head: [B, Q, D] -> [B, Q, vocabulary]."""
        return self.head(self.text_model.norm(hidden))

    def head(self, hidden: Tensor) -> Tensor:
        """Language-model head behind the final norm: [B, Q, D] -> [B, Q, vocabulary]."""
        return self.model.lm_head(hidden).to(self.device)

    def decode(
        self, input_ids: Tensor, position_ids: Tensor, attention_mask: Tensor | None, cache: DynamicCache, **kwargs
    ):
        """Stock decoder forward on new tokens behind a cache.

        Args:
            input_ids: [B, Q].
            position_ids: [B, Q], equal on all rotary axes.
            attention_mask: [B, cached + Q] bool or, if `dtype_of_mask` says so, 0 and -inf; None without padding.
            kwargs: e.g. `output_hidden_states`.

        Returns:
            The decoder's own output; `last_hidden_state` is behind the final norm.
        """
        if attention_mask is not None and self._takes_plain_mask(input_ids.shape[1], cache.layers):
            attention_mask = attention_mask[:, None, None]
        return self.text_model(
            input_ids=input_ids,
            position_ids=position_ids,
            attention_mask=attention_mask,
            use_cache=True,
            **{CACHE: cache},
            **kwargs,
        )

    def decode_ragged(self, input_ids: Tensor, position_ids: Tensor, masks: LayerMasks, cache: Cache) -> Tensor:
        """Runs the stock layers on new tokens behind a cache whose layers hold different numbers of tokens.

        Args:
            input_ids: [B, Q].
            position_ids: [B, Q], equal on all rotary axes.
            masks: of each layer, [B, cached in that layer + Q], like the mask of `decode`.
            cache: keys and values.

        Returns:
            Hidden states behind the final norm, [B, Q, D].
        """
        hidden = self.text_model.embed_tokens(input_ids)
        rotary = self.rotary(hidden, position_ids.expand(self.num_position_axes, -1, -1))
        kernel_masks = self._kernel_masks(hidden, masks, cache)
        for index, number in enumerate(masks.of_layer):
            hidden, mask, rotary = self.reach(index, hidden, kernel_masks[number], rotary)
            hidden = self.layer(index, hidden, mask, rotary, cache)
        return self.text_model.norm(hidden)

    def _kernel_masks(self, hidden: Tensor, masks: LayerMasks, cache: Cache) -> list[Tensor | None]:
        """Masks in the attention kernel's form for the new tokens, one per distinct padding mask."""
        padding_masks = masks.distinct if masks.has_padding else [None] * len(masks.distinct)
        if self._takes_plain_mask(hidden.shape[1], cache.layers):
            return [mask if mask is None else mask[:, None, None] for mask in padding_masks]
        built = []
        for number, mask in enumerate(padding_masks):
            one_layer = DynamicCache()
            one_layer.layers = [cache.layers[masks.of_layer.index(number)]]  # transformers looks at the first layer
            built.append(create_causal_mask(self.text_config, hidden, mask, one_layer))
        return built

    def dtype_of_mask(self, cache: Cache) -> torch.dtype | None:
        """Type of masks of single new tokens that the kernel adds to its logits as they are; None: it wants bool."""
        layers: Sequence[Any] = cache.layers
        return layers[0].keys.dtype if self._takes_plain_mask(1, layers) else None

    def _takes_plain_mask(self, num_new: int, layers: Sequence[object]) -> bool:
        """Tells if the kernel's mask for a single new token is the padding mask itself, so that none has to be built.

        It is under `sdpa`; other kernels want another form, and a static cache has room that must be masked, too.
        """
        dynamic = all(type(layer) is DynamicLayer for layer in layers)
        return dynamic and num_new == 1 and self.text_config._attn_implementation == "sdpa"

    def run_layer(self, index: int, prompt: Prompt, mask: Tensor | None, rotary: Rotary, cache: DynamicCache) -> Tensor:
        """Runs one stock decoder layer on a prompt, and adds what the family has for its visual tokens behind it."""
        hidden = self.layer(index, prompt.hidden, mask, rotary, cache)
        if index not in prompt.deepstack:
            return hidden
        added = prompt.spread_visual(prompt.deepstack[index].to(hidden))
        return hidden + added * prompt.is_visual.unsqueeze(-1).to(hidden.device)
