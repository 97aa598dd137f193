"""The memory of a training step, entry by entry, from sizes alone.

A step has three moments at which memory peaks: while the vision tower runs, while the last decoder layer of the
forward pass runs, and when the backward pass starts with everything that it needs. The bill is what lies there all
the time, and the largest of the three.

Kept for the backward pass of a decoder layer with frozen matrices, per token: the inputs of both norms (float32), the
query, the attention's output, the keys and values as the kernel saw them, and three tensors of the MLP's inner width.
Not counted: what the allocator wastes, CUDA's own context, workspaces of kernels; 1 to 2 GiB on a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from gp.bench.presets import Preset, random_model
from gp.bench.sizes import DecoderSizes, VisionSizes
from gp.measure.peak_memory import MIB

TRAINED_ITEMSIZE = 4  # trained parts, their gradients and both of AdamW's moments are float32
ADAMW_MOMENTS = 2
KEPT = "prefix, kept"  # the suffix's layers do not run again
COMPILED = "prefix, compiled"  # nor do they, as one graph whose kernel copies no keys
PREFIXED = ("prefix", KEPT, COMPILED)
WAYS = ("prefix", KEPT, "whole", "whole, checkpointed")


@dataclass(frozen=True)
class Bill:
    """Bytes of one training step.

    Args:
        standing: what lies there all the time: frozen weights, trained parts, gradients, optimizer.
        moments: moment -> what lies there then, entry by entry.
    """

    standing: Mapping[str, int]
    moments: Mapping[str, Mapping[str, int]]

    @property
    def worst(self) -> str:
        """The moment that needs most."""
        return max(self.moments, key=lambda moment: sum(self.moments[moment].values()))

    @property
    def step_bytes(self) -> int:
        """The worst moment alone: what a step adds to weights and optimizer."""
        return sum(self.moments[self.worst].values())

    @property
    def total_bytes(self) -> int:
        return sum(self.standing.values()) + self.step_bytes


def bill_of(preset: Preset, itemsize: int, attn: str, way: str) -> Bill:
    """The bill of a step.

    Args:
        preset: model and batch.
        itemsize: bytes of an entry of the frozen model; the trained parts compute in the same type.
        attn: attention kernel; `sdpa` repeats grouped keys and values under a mask, `eager` also keeps its weights.
        way: one of `WAYS`, or `COMPILED`.
    """
    step = Step(preset, itemsize, attn)
    return Bill(
        standing=standing_bytes(preset, itemsize),
        moments={
            "vision tower": step.vision_moment(),
            "last layer forward": step.layer_moment(way),
            "backward": step.backward_moment(way),
        },
    )


def step_mib(preset: Preset, itemsize: int, attn: str, way: str) -> float:
    """Memory that a step needs beside the model, MiB: its worst moment and the gradients."""
    bill = bill_of(preset, itemsize, attn, way)
    return (bill.step_bytes + bill.standing["gradients"]) / MIB


def standing_bytes(preset: Preset, itemsize: int) -> dict[str, int]:
    """Frozen weights in the model's type, the rest in float32; parameters counted on the model itself."""
    model = random_model(preset, "meta")
    trained = _parameters(model.find_pruner("glimpse")) * TRAINED_ITEMSIZE
    return {
        "frozen weights": _parameters(model.base) * itemsize,
        "trained parts": trained,
        "gradients": trained,
        "optimizer (AdamW)": ADAMW_MOMENTS * trained,
    }


@dataclass(frozen=True)
class Step:
    """Sizes of what a step holds, in bytes, from which bills are made."""

    preset: Preset
    itemsize: int
    attn: str

    @property
    def decoder(self) -> DecoderSizes:
        return DecoderSizes.from_config(self.preset.config.text_config)

    @property
    def tower(self) -> VisionSizes:
        return VisionSizes.from_config(self.preset.config)

    @property
    def visual(self) -> int:
        return self.preset.batch * self.preset.visual

    @property
    def prompt(self) -> int:
        """Tokens of all prompts."""
        return self.visual + self.preset.batch * self.preset.text

    @property
    def suffix(self) -> int:
        """Glimpse and answer tokens of all prompts."""
        return self.preset.batch * (self.preset.glimpse.num_tokens + self.preset.answer)

    def vision_moment(self) -> dict[str, int]:
        """Behind the last block's MLP: its inner tensors, the stream around them, and the taps so far."""
        patches, tower = self.visual * self.tower.merge**2, self.tower
        stream = patches * tower.hidden * self.itemsize
        return {
            "taps": self._taps(),
            "vision tower, one block": 3 * stream + 3 * patches * tower.inner * self.itemsize,
        }

    def layer_moment(self, way: str) -> dict[str, int]:
        entries = {"embeddings and taps": self._taps() + self.stream(self.prompt)}
        if way in PREFIXED:
            entries["prefix cache"] = self._cache(self.prompt)
            return entries | {"decoder, one layer": self.transient(self.prompt)}
        kept = self._kept_layers(way, self.prompt + self.suffix)
        return entries | kept | {"decoder, one layer": self.transient(self.prompt + self.suffix)}

    def backward_moment(self, way: str) -> dict[str, int]:
        """The forward pass is over, the VIP's graph and the logits are there, the first layer runs backward."""
        entries = {"taps": self._taps(), "VIP": self._vip(), "logits": self._logits()}
        if way in PREFIXED:
            return entries | {"prefix cache": self._cache(self.prompt)} | self._kept_suffix(way)
        length = self.prompt + self.suffix
        entries |= self._kept_layers(way, length)
        if way == "whole, checkpointed":
            entries["one layer, again"] = self.kept_layer(length)
        return entries | {"gradients of one layer": self.transient(length)}

    def _kept_suffix(self, way: str) -> dict[str, int]:
        """Inputs of the suffix's layers, and of the one that runs again what its backward pass needs, or of all that.

        That is of the suffix's own tokens; and keys and values of all that they see, put together, repeated for all
        heads if the kernel wants that, and the gradients of these.
        """
        decoder, seen = self.decoder, self.prompt + self.suffix
        weights = self.suffix * (seen // self.preset.batch) * decoder.heads * (4 + self.itemsize)
        if way == COMPILED:  # keys and values lie in the cache
            return {"activations of the suffix": decoder.layers * (self.kept_layer(self.suffix) + weights)}
        widths = decoder.kv_size + (2 * decoder.attention_size if self.repeats else decoder.kv_size)
        again = self.kept_layer(self.suffix, keys=False) + 2 * seen * widths * self.itemsize
        if self.attn == "eager":
            again += weights
        if way == KEPT:
            return {"activations of the suffix": decoder.layers * again}
        return {"inputs of the suffix": decoder.layers * self.stream(self.suffix), "one layer, again": again}

    def _kept_layers(self, way: str, length: int) -> dict[str, int]:
        if way == "whole, checkpointed":
            return {"inputs of all layers": self.decoder.layers * self.stream(length)}
        return {"activations of all layers": self.decoder.layers * self.kept_layer(length)}

    def kept_layer(self, tokens: int, keys: bool = True) -> int:
        """Bytes that one decoder layer keeps for the backward pass."""
        decoder = self.decoder
        wide = 2 * decoder.attention_size + 3 * decoder.inner  # query, output, and the MLP's
        if keys:
            wide += 2 * (decoder.attention_size if self.repeats else decoder.kv_size)
        kept = tokens * (4 * 2 * decoder.hidden + self.itemsize * wide)
        if keys and self.attn == "eager":
            kept += tokens * (tokens // self.preset.batch) * decoder.heads * (4 + self.itemsize)
        return kept

    @property
    def repeats(self) -> bool:
        """transformers repeats grouped keys and values for all heads unless the kernel is FlashAttention."""
        return self.attn != "flash_attention_2" and self.decoder.kv_heads < self.decoder.heads

    def stream(self, tokens: int) -> int:
        return tokens * self.decoder.hidden * self.itemsize

    def transient(self, tokens: int) -> int:
        """Inside an MLP: residual, norm, and three tensors of the inner width."""
        return 2 * self.stream(tokens) + 3 * tokens * self.decoder.inner * self.itemsize

    def _cache(self, tokens: int) -> int:
        return 2 * tokens * self.decoder.layers * self.decoder.kv_size * self.itemsize

    def _taps(self) -> int:
        return len(self.preset.taps) * self.visual * self.tower.hidden * self.itemsize

    def _vip(self) -> int:
        """Bytes of all blocks: nine tensors of its width, the joint one with query and key, four of the MLP's width."""
        width, joint = self.preset.vip_hidden, self.preset.vip_hidden + self.preset.vip_cond
        return len(self.preset.taps) * self.visual * (9 * width + 3 * joint + 4 * 2 * width) * self.itemsize

    def _logits(self) -> int:
        """Bytes of the logits: once in the model's type, three times in float32 (copy, log-softmax and gradient)."""
        return self.preset.batch * self.preset.answer * self.decoder.vocabulary * (self.itemsize + 3 * 4)


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
