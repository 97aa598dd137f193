"""The analytic cost of the forward pass: floating-point operations and bytes, from sizes alone.

Counted: matrix products (a multiplication and an addition are two operations), as `torch.utils.flop_counter` counts
them; the bytes of weights and of the KV cache, each read or written once. Not counted: norms, activations, rotary
embeddings, and the bytes of hidden states. So a ratio of two costs is what pruning can reach at best on a device that
does nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PretrainedConfig

from gp.backbones import FAMILIES
from gp.bench.sizes import DecoderSizes, Grid, VisionSizes
from gp.config import GlimpseConfig, VIPConfig


@dataclass(frozen=True)
class Work:
    """Floating-point operations, and bytes of weights and cache."""

    flops: int = 0
    bytes: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.bytes + other.bytes)


@dataclass(frozen=True)
class CostModel:
    """Costs of a frozen model with a glimpse.

    Args:
        config: of the whole model.
        glimpse, vip: of the trained parts.
        itemsize: bytes of a weight or cache entry.
        causal_half: the attention kernel skips what a causal mask forbids; False for `eager`, which computes it.
    """

    config: PretrainedConfig
    glimpse: GlimpseConfig
    vip: VIPConfig
    itemsize: int = 4
    causal_half: bool = True

    @property
    def decoder(self) -> DecoderSizes:
        return DecoderSizes.from_config(self.config.text_config)

    @property
    def tower(self) -> VisionSizes:
        return VisionSizes.from_config(self.config)

    @property
    def image_frame(self) -> tuple[int, int]:
        """Text tokens before and behind an image's that belong to it."""
        return FAMILIES[self.config.model_type].image_frame

    # ---- stages of a prefill, in the order in which they run --------------------------------------------------

    def vision(self, grids: Sequence[Grid]) -> Work:
        """Patch embedding, blocks, and merger or projector, of all images."""
        tower = self.tower
        patches = sum(tower.patches(grid) for grid in grids)
        tokens = patches + tower.class_tokens * len(grids)
        block = tower.hidden * (4 * tower.hidden + tower.mlp_matrices * tower.inner)
        embedding, projector = tower.patch_inputs * tower.hidden, sum(a * b for a, b in tower.projector)
        linear = patches * embedding + tokens * tower.blocks * block + patches // tower.merge**2 * projector
        pairs = tower.full_blocks * sum(map(tower.full_pairs, grids))
        if tower.window:
            pairs += (tower.blocks - tower.full_blocks) * sum(map(tower.window_pairs, grids))
        weights = embedding + tower.blocks * block + projector
        return Work(2 * linear + 4 * tower.hidden * pairs, self.itemsize * weights)

    def layers(self, count: int, rows: int, queries: int, keys: int | None = None) -> Work:
        """Decoder layers on `rows` sequences of `queries` tokens behind a cache.

        Args:
            keys: tokens that the last query sees, itself included; None: as many as there are queries.
        """
        keys = keys or queries
        decoder = self.decoder
        linear = rows * queries * decoder.layer_weights
        pairs = rows * self._pairs(queries, keys)
        cache = 2 * rows * keys * decoder.kv_size
        flops = 2 * linear + 4 * decoder.attention_size * pairs
        return Work(count * flops, count * self.itemsize * (decoder.layer_weights + cache))

    def prune_layer(self, rows: int, seen: int, left: int) -> Work:
        """A layer that gives keys and values of all tokens, and runs for those that stay, under an explicit mask.

        Args:
            seen: tokens of each row before; left: those that run, whose keys and values are made once more.
        """
        decoder = self.decoder
        keys = decoder.hidden * 2 * decoder.kv_size
        linear = rows * (seen * keys + left * decoder.layer_weights)
        attention = 4 * decoder.attention_size * rows * left * seen
        cache = 2 * rows * seen * decoder.kv_size
        return Work(2 * linear + attention, self.itemsize * (decoder.layer_weights + keys + cache))

    def glimpse_vectors(self) -> Work:
        """The vectors of all layers, made once per prompt."""
        layers = self.decoder.layers if self.glimpse.layers is None else len(self.glimpse.layers)
        return Work(2 * layers * self.glimpse.num_tokens * self.decoder.hidden**2)

    def twig(self, rows: int, queries: int) -> Work:
        """Copies of layers that prompt and glimpse run through before the glimpse is read; the last makes keys alone
        (its query: `read`).
        """
        if not self.glimpse.twig:
            return Work()
        keys = self.decoder.hidden * self.decoder.kv_size
        last = Work(2 * rows * queries * keys, self.itemsize * keys)
        return self.layers(self.glimpse.twig - 1, rows, queries) + last

    def read(self, rows: int, keys: int) -> Work:
        """One query and its products with all keys, in every read layer."""
        decoder = self.decoder
        once = rows * decoder.attention_size * (decoder.hidden + keys)
        return Work(2 * once * len(self.glimpse.read_layers or [0]))

    def importance(self, grids: Sequence[Grid]) -> Work:
        """The VIP over all visual tokens."""
        vip, tokens = self.vip, sum(h * w for h, w in grids)
        width, joint = vip.hidden_size, vip.hidden_size + vip.cond_size
        block = 2 * joint**2 + 2 * width**2 + 3 * width * 2 * width
        cond = self.tower.hidden * vip.cond_size
        features = self.decoder.heads * len(self.glimpse.read_layers or [0])
        pairs = sum(self.vip_pairs(grid) for grid in grids)
        linear = tokens * (features * width + len(vip.taps) * (cond + block) + width)
        return Work(2 * linear + 2 * len(vip.taps) * pairs * (joint + width))

    def head(self, rows: int) -> Work:
        """The language-model head on `rows` positions."""
        weights = self.decoder.head_weights
        return Work(2 * rows * weights, self.itemsize * weights)

    # ---- whole runs -------------------------------------------------------------------------------------------

    def prefill(
        self,
        grids: Sequence[Grid],
        text: int,
        kept: Sequence[int] | None = None,
        prune_layer: int | None = None,
        splits: bool = True,
    ) -> dict[str, Work]:
        """Stage -> cost of a batch of prompts with one image each; rows are padded to the longest.

        Args:
            grids: one per prompt.
            text: other tokens of each prompt.
            kept: visual tokens that survive in each prompt; None: nothing is pruned and no glimpse appended.
            prune_layer: the last layer that sees all tokens, of the dropped ones their keys and values; None: the
                glimpse's.
            splits: whether of that layer only what stays runs whole; never with a twig, which needs what comes out of
                it, of all tokens.
        """
        rows, length = len(grids), text + max(h * w for h, w in grids)
        stages = {"vision": self.vision(grids)}
        if kept is None:
            return stages | {"layers": self.layers(self.decoder.layers, rows, length), "head": self.head(rows)}
        stage = self.glimpse.prune_layer if prune_layer is None else prune_layer
        seen, left = length + self.glimpse.num_tokens, text + max(kept)
        splits = splits and not self.glimpse.twig
        return stages | {
            "glimpse vectors": self.glimpse_vectors(),
            "layers before": self.layers(stage if splits else stage + 1, rows, seen),
            **({"prune layer": self.prune_layer(rows, seen, left)} if splits else self._twig(rows, seen)),
            "glimpse read": self.read(rows, seen),
            "VIP": self.importance(grids),
            "layers after": self.layers(self.decoder.layers - stage - 1, rows, left),
            "head": self.head(rows),
        }

    def _twig(self, rows: int, queries: int) -> dict[str, Work]:
        return {"twig": self.twig(rows, queries)} if self.glimpse.twig else {}

    def next_turn(self, grid: Grid, text: int, new: int, kept: int) -> dict[str, Work]:
        """Stage -> cost of a further question about an image that a conversation has seen.

        Args:
            grid: of the image.
            text: other tokens of the conversation, with those of the question.
            new: tokens of the question and of the answer before it.
            kept: visual tokens that survive.
        """
        first, length = self.glimpse.prune_layer + 1, text + grid[0] * grid[1]
        seen = length + self.glimpse.num_tokens
        return {
            "glimpse vectors": self.glimpse_vectors(),
            "layers before": self.layers(first, 1, new, length) + self.layers(first, 1, self.glimpse.num_tokens, seen),
            **self._twig(1, seen),
            "glimpse read": self.read(1, seen),
            "VIP": self.importance([grid]),
            "layers after": self.layers(self.decoder.layers - first, 1, text + kept),
            "head": self.head(1),
        }

    def zoom(
        self, glances: Sequence[Grid], crops: Sequence[Grid], before: int, behind: int, kept: int, wanted: int
    ) -> dict[str, Work]:
        """Stage -> cost of a batch of prompts with one image and one crop each, alike in all numbers.

        Args:
            glances, crops: one per prompt.
            before, behind: text tokens up to the image's last one with its frame, and behind it.
            kept: tokens of the glance that survive in each prompt.
            wanted: tokens of each crop that go to the decoder.
        """
        rows, (height, width) = len(glances), glances[0]
        seen = before + height * width + behind + self.glimpse.num_tokens
        new = sum(self.image_frame) + wanted + behind
        left = before + kept + new
        first = self.glimpse.prune_layer + 1
        return {
            "vision of the glance": self.vision(glances),
            "glimpse vectors": self.glimpse_vectors(),
            "layers before, glance": self.layers(first, rows, seen),
            **self._twig(rows, seen),
            "glimpse read": self.read(rows, seen),
            "VIP": self.importance(glances),
            "vision of the crops": self.vision(crops),
            "layers before, crops": self.layers(first, rows, new, left),
            "layers after": self.layers(self.decoder.layers - first, rows, left),
            "head": self.head(rows),
        }

    def decode(self, rows: int, length: int) -> Work:
        """One token for every row behind `length` cached ones (the new one included)."""
        return self.layers(self.decoder.layers, rows, 1, length) + self.head(rows)

    def cache_bytes(self, rows: int, length: int) -> int:
        return 2 * self.itemsize * self.decoder.layers * rows * length * self.decoder.kv_size

    # ---- training steps ---------------------------------------------------------------------------------------

    def prefix_step(self, grids: Sequence[Grid], text: int, answer: int, recompute: bool = True) -> int:
        """Operations of a step with a prefix without gradients (`gp.engine.teacher_forcing`), and without a twig.

        Of the prefix the last layer only makes keys and values. With `recompute` the suffix runs forward again but for
        each layer's last product, whose result nobody needs.
        """
        decoder, rows, prefix = self.decoder, len(grids), text + max(h * w for h, w in grids)
        suffix = self.glimpse.num_tokens + answer
        forward = self.vision(grids).flops + self.layers(decoder.layers - 1, rows, prefix).flops
        forward += 2 * rows * prefix * decoder.hidden * 2 * decoder.kv_size
        linear, attention = self._dense_layers(rows, suffix, prefix + suffix)
        again = linear + attention - 2 * rows * suffix * decoder.layers * decoder.inner * decoder.hidden
        return (
            forward
            + (again if recompute else 0)
            + self._graded_layers(rows, suffix, prefix + suffix)
            + self._graded_ends(grids, answer, self._prefix_read(rows, prefix))
        )

    def whole_step(self, grids: Sequence[Grid], text: int, answer: int, checkpointed: bool = False) -> int:
        """Operations of a step with everything under autograd; `checkpointed`: the layers run forward twice."""
        rows, length = len(grids), text + max(h * w for h, w in grids) + self.glimpse.num_tokens + answer
        total = self.vision(grids).flops + self._graded_layers(rows, length, length)
        if checkpointed:
            total += self._dense_layers(rows, length, length)[0] + self._dense_layers(rows, length, length)[1]
        projection = self.read(rows, 0).flops
        row = self.read(rows, length - answer).flops - projection
        return total + self._graded_ends(grids, answer, 2 * projection + 3 * row)

    def _graded_ends(self, grids: Sequence[Grid], answer: int, read: int) -> int:
        """Head, read and trained parts, forward and backward.

        A frozen matrix costs as much backward as forward (the input's gradient), a trained one and a product of two
        activations twice as much. The taps need no gradient, so their projection costs as a frozen one.
        """
        tokens = sum(h * w for h, w in grids)
        taps = 2 * tokens * len(self.vip.taps) * self.tower.hidden * self.vip.cond_size
        trained = self.glimpse_vectors().flops + self.importance(grids).flops - taps
        return 2 * (self.head(len(grids) * answer).flops + taps) + 3 * trained + read

    def _prefix_read(self, rows: int, prefix: int) -> int:
        """The read forward and backward: keys of the prefix need no gradient, the suffix's own ones are projected."""
        projection, count = self.read(rows, 0).flops, self.glimpse.num_tokens
        if self.glimpse.attention_logits:
            return 2 * self.read(rows, prefix).flops
        own = 2 * rows * count * self.decoder.hidden * self.decoder.kv_size * len(self.glimpse.read_layers or [0])
        return 2 * projection + 3 * (self.read(rows, prefix + count).flops - projection) + 2 * own

    def _graded_layers(self, rows: int, queries: int, keys: int) -> int:
        linear, attention = self._dense_layers(rows, queries, keys)
        return 2 * linear + 3 * attention

    def _dense_layers(self, rows: int, queries: int, keys: int) -> tuple[int, int]:
        """Forward operations of all layers' matrices, and of attention under an explicit mask."""
        decoder = self.decoder
        linear = 2 * rows * queries * decoder.layer_weights
        return decoder.layers * linear, decoder.layers * 4 * decoder.attention_size * rows * queries * keys

    def _pairs(self, queries: int, keys: int) -> int:
        """(query, key) pairs that the kernel computes for one sequence."""
        if not self.causal_half:
            return queries * keys
        return queries * (keys - queries) + queries * (queries + 1) // 2

    def vip_pairs(self, grid: Grid) -> int:
        """(query, key) pairs of an image in a block of the VIP."""
        if self.vip.attention == "global":
            return (grid[0] * grid[1]) ** 2
        return self.tower.window_pairs(grid) // self.tower.merge**4


def total(stages: dict[str, Work]) -> Work:
    return sum(stages.values(), Work())
