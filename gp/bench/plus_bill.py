"""The memory and the work of a training step of task `grpo`, from sizes alone.

Answers are drawn behind one pruned prefix, `group` to a question, and trained on in one micro-batch. Memory peaks while
the vision tower runs, while answers are drawn, or when the backward pass starts. Of each layer only its input is kept
(`gp.engine.again`), and the keys and values that others see. Like `gp.bench.bill`, it leaves out CUDA's context and
what the allocator wastes, and also the adapter's own activations, which are of its rank's width.
"""

from __future__ import annotations

from dataclasses import dataclass

from gp.bench.bill import ADAMW_MOMENTS, TRAINED_ITEMSIZE, Bill, Step, standing_bytes
from gp.bench.cost import CostModel
from gp.bench.presets import Preset
from gp.bench.sizes import DecoderSizes

WAYS = ("whole prompt", "last token")  # what gradients flow through: grpo.prefix_gradients true, false
LOGITS = 5  # float32 tensors of the logits' size at once: scaled, log-softmax, and three of the entropy


@dataclass(frozen=True)
class Draw:
    """What a micro-batch draws.

    Args:
        group: answers to each question.
        kept: visual tokens kept of each prompt.
        rank: of the adapter.
    """

    group: int
    kept: int
    rank: int


def adapter_size(decoder: DecoderSizes, rank: int) -> int:
    """Parameters of an adapter on the seven matrices of every layer."""
    attention = 2 * (decoder.hidden + decoder.attention_size) + 2 * (decoder.hidden + decoder.kv_size)
    return decoder.layers * rank * (attention + 3 * (decoder.hidden + decoder.inner))


def plus_bill(preset: Preset, draw: Draw, itemsize: int, attn: str, way: str) -> Bill:
    """The bill of a step; no glimpse is on the device (`grpo.mask=boxes`).

    Args:
        preset: model, prompts, and tokens of an answer.
        draw: the rest of the work.
        itemsize: bytes of an entry of the frozen model.
        attn: attention kernel.
        way: one of `WAYS`.
    """
    sizes = _Sizes(Step(preset, itemsize, attn), draw, itemsize)
    trained = adapter_size(sizes.decoder, draw.rank) * TRAINED_ITEMSIZE
    tower = {key: size for key, size in sizes.step.vision_moment().items() if key != "taps"}
    return Bill(
        standing={
            "frozen weights": standing_bytes(preset, itemsize)["frozen weights"],
            "adapter": trained,
            "gradients": trained,
            "optimizer (AdamW)": ADAMW_MOMENTS * trained,
        },
        moments={"vision tower": tower, "drawing": sizes.drawing(), "backward": sizes.backward(way)},
    )


@dataclass(frozen=True)
class _Sizes:
    step: Step
    draw: Draw
    itemsize: int

    @property
    def preset(self) -> Preset:
        return self.step.preset

    @property
    def decoder(self) -> DecoderSizes:
        return self.step.decoder

    @property
    def early(self) -> int:
        """Layers that see all tokens."""
        return self.preset.prune_layer + 1

    @property
    def pruned(self) -> int:
        """Tokens of all prompts after pruning."""
        return self.preset.batch * (self.draw.kept + self.preset.text)

    @property
    def answers(self) -> int:
        """Tokens of all answers."""
        return self.preset.batch * self.draw.group * self.preset.answer

    def cache(self, tokens: int, layers: int) -> int:
        return 2 * tokens * layers * self.decoder.kv_size * self.itemsize

    def logits(self, positions: int) -> int:
        return positions * self.decoder.vocabulary * (self.itemsize + LOGITS * 4)

    def drawing(self) -> dict[str, int]:
        """At an answer's last token: a cache of every row, which has its own copy of the pruned prompt."""
        rows = self.preset.batch * self.draw.group
        return {
            "image features": self.step.stream(self.step.visual),
            "cache of all rows": self.cache(self.draw.group * self.pruned + self.answers, self.decoder.layers),
            "logits of a token": self.logits(rows),
        }

    def backward(self, way: str) -> dict[str, int]:
        """The forward pass is over, and the layers of the answers run backward; those of the prompt follow."""
        layers, late = self.decoder.layers, self.decoder.layers - self.early
        entries = {
            "image features": self.step.stream(self.step.visual),
            "logits": self.logits(self.answers),
            "cache of all tokens, early layers": self.cache(self.step.prompt, self.early),
            "cache of kept tokens": self.cache(self.pruned, layers),
            "inputs of the answers": layers * self.step.stream(self.answers),
        }
        again = self.step.kept_layer(self.answers) + self.step.transient(self.answers)
        again += 2 * self.cache(self.draw.group * self.pruned, 1)  # repeated for the rows, and their gradients
        if way == WAYS[0]:
            prompt = self.early * self.step.stream(self.step.prompt) + late * self.step.stream(self.pruned)
            entries["inputs of the prompt"] = prompt
            entries["gradients of the cache"] = self.cache(self.pruned, layers)
            again = max(again, self.step.kept_layer(self.step.prompt) + self.step.transient(self.step.prompt))
        return entries | {"one layer, again": again}


@dataclass(frozen=True)
class PlusWork:
    """Work of a micro-batch.

    Args:
        flops: stage -> floating-point operations.
        decode_bytes: weights and cache that drawing reads, token by token.
    """

    flops: dict[str, int]
    decode_bytes: int

    def bound_s(self, peak_flops: float, bandwidth: float) -> float:
        """Seconds below which no device of so many operations and bytes a second can come."""
        others = sum(count for stage, count in self.flops.items() if stage != "drawing, token by token")
        return others / peak_flops + self.decode_bytes / bandwidth


def plus_work(preset: Preset, draw: Draw, itemsize: int, attn: str, way: str) -> PlusWork:
    """The work of a micro-batch, every layer that has gradients counted three times: forward, again, backward.

    Frozen matrices have no gradients of their own, so a backward pass costs what a forward pass does.
    """
    cost = CostModel(preset.config, preset.glimpse, preset.vip, itemsize, attn != "eager")
    batch, rows = preset.batch, preset.batch * draw.group
    early, late = preset.prune_layer + 1, preset.layers - preset.prune_layer - 1
    full, short = preset.visual + preset.text, draw.kept + preset.text
    prompt = (cost.layers(early, batch, full) + cost.layers(late, batch, short)).flops
    head = cost.head(rows * preset.answer).flops
    answers = cost.layers(preset.layers, rows, preset.answer, short + preset.answer).flops + head
    tokens = [
        cost.layers(preset.layers, rows, 1, short + number) + cost.head(rows) for number in range(1, preset.answer)
    ]
    return PlusWork(
        {
            "vision tower": cost.vision([preset.grid] * batch).flops,
            "drawing, prefill": prompt + cost.head(batch).flops,
            "drawing, token by token": sum(token.flops for token in tokens),
            "training, prompt": prompt * (3 if way == WAYS[0] else 1),
            "training, answers": 3 * answers,
            "reference": prompt + answers,
        },
        sum(token.bytes for token in tokens),
    )
