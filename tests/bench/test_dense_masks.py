"""Nothing on our path builds a square of all patches or all tokens."""

from __future__ import annotations

from dataclasses import replace

from torch.utils._python_dispatch import TorchDispatchMode

from gp.bench.presets import PRESETS, random_inputs, random_model
from gp.types import PruneOptions

PRESET = replace(PRESETS["tiny"], visual=144, text=20)  # 576 patches, 36 of whose windows are full


class Shapes(TorchDispatchMode):
    """Remembers the shape of everything that is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.seen |= {tuple(x.shape) for x in (out if isinstance(out, (tuple, list)) else [out]) if hasattr(x, "shape")}
        return out


def squares(seen: set[tuple[int, ...]], at_least: int) -> list[tuple[int, ...]]:
    return [shape for shape in seen if len(shape) > 1 and min(shape[-2:]) >= at_least]


def test_a_pruned_prefill_builds_no_square_of_tokens_or_patches():
    model, inputs = random_model(PRESET).eval(), random_inputs(PRESET)
    with Shapes() as shapes:
        model.prefill(inputs, options=PruneOptions(fixed_keep_ratio=0.5))
    wide = PRESET.vision_hidden * 4  # of the merger's matrices
    assert not squares(shapes.seen, at_least=max(wide, PRESET.visual) + 1)
    assert (1, 2, 576, 16) in shapes.seen  # a block without windows ran, on all patches at once


def test_the_same_check_finds_eager_attention():
    model, inputs = random_model(PRESET, attn="eager").eval(), random_inputs(PRESET)
    with Shapes() as shapes:
        model.prefill(inputs, options=PruneOptions(fixed_keep_ratio=0.5))
    assert (1, 2, 576, 576) in squares(shapes.seen, at_least=576)
