"""Compiled decoding: one graph without a break, the same ids as the plain way, and one warning where it cannot be.

The graph is captured by `torch.compile(fullgraph=True)` and run as it is; that the code which the default backend makes
of it gives the same ids is a slow test, for which a C++ compiler is needed.
"""

from __future__ import annotations

import functools
import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch._dynamo.exc import FailOnRecompileLimitHit
from torch._dynamo.testing import CompileCounterWithBackend
from transformers import LogitsProcessor

import gp
from gp.backbones import CACHE
from gp.backbones.one_token import NAME
from gp.engine import compiled, static_cache
from gp.engine.static_cache import BufferPool, Buffers, Shape, bucket
from gp.model import GlimpseModel
from gp.types import PruneOptions
from tests.support.tiny_models import FAMILIES

pytestmark = pytest.mark.core

ROOT = Path(__file__).resolve().parents[2]
PROMPTS = [([(4, 6)], 9), ([(2, 3), (6, 4)], 7), ([], 5)]
HALF = PruneOptions(fixed_keep_ratio=0.5)
GREEDY = {"max_new_tokens": 6, "do_sample": False}


class Compiled:
    """A model whose steps are captured and counted, and run without code of their own."""

    def __init__(self, name: str, backend="eager", layers: int = 2, spare: int = 4) -> None:
        self.family = FAMILIES[name]
        self.base = self.family.make(layers=layers)
        self.model = GlimpseModel(self.base)
        self.counter = CompileCounterWithBackend(backend) if backend == "eager" else backend
        self.steps = compiled.CompiledDecoding(self.model.backbone, self.counter)
        self.steps.pool = BufferPool(spare)
        compiled._OF_BASES[self.model.backbone] = self.steps
        self.inputs = self.family.inputs(self.family.fit(PROMPTS))

    def both(self, **how):
        """The same call plain and compiled."""
        how = {"pruner": "random", "options": HALF, **GREEDY, **how}
        outs = []
        for compile_decode in (False, True):
            torch.manual_seed(3)
            outs.append(self.model.generate(**self.inputs, **how, compile_decode=compile_decode))
        return outs


@pytest.fixture(scope="module")
def of_family():
    """One of each family for all tests: capturing a graph takes seconds."""
    return functools.cache(Compiled)


@pytest.fixture
def qwen(of_family) -> Compiled:
    return of_family("qwen2_5_vl")


@pytest.mark.parametrize("name", FAMILIES)
def test_one_graph_gives_the_same_ids_and_logits(name, of_family, monkeypatch):
    """Rows of different lengths, over a room that fills up twice, and then at another length: compiled once."""
    monkeypatch.setattr(static_cache, "ROOM", 2)
    one = of_family(name)
    full = {"return_dict_in_generate": True, "output_logits": True}
    plain, fast = one.both(**full)
    assert torch.equal(plain.sequences, fast.sequences) and fast[CACHE] is None
    torch.testing.assert_close(torch.stack(fast.logits), torch.stack(plain.logits), atol=1e-5, rtol=1e-5)
    monkeypatch.setattr(static_cache, "FINEST", 8)
    plain, fast = one.both(options=PruneOptions(fixed_keep_ratio=1.0))
    assert torch.equal(plain, fast)
    assert one.counter.frame_count == 1 and not one.steps.broken


@pytest.mark.parametrize(
    "how",
    [
        {"do_sample": True, "temperature": 0.7, "top_p": 0.9},
        {"num_beams": 3},
        {"num_beams": 4, "num_return_sequences": 2},
        {"num_return_sequences": 2, "do_sample": True},
        {"repetition_penalty": 1.3},
        {"max_new_tokens": 1},
    ],
    ids=str,
)
def test_every_mode_is_the_plain_one(qwen, how):
    plain, fast = qwen.both(**how)
    assert torch.equal(plain, fast)
    assert qwen.counter.frame_count == 1


def test_a_row_alone_over_layers_of_different_lengths():
    one, most = Compiled("qwen2_5_vl", layers=4), PruneOptions(fixed_keep_ratio=0.7)
    one.inputs = one.family.inputs(one.family.fit(PROMPTS[1:2]))
    assert one.model.prefill(one.inputs, "fastv", most).cache_masks.is_ragged
    assert torch.equal(*one.both(pruner="fastv", options=most)) and one.counter.frame_count == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_graph_for_each_layout_of_layers_and_for_single_rows(name):
    one, most = Compiled(name, layers=4), PruneOptions(fixed_keep_ratio=0.7)
    rows, alone = (one.family.inputs(one.family.fit(prompts)) for prompts in (PROMPTS, PROMPTS[1:2]))
    for number, (inputs, method) in enumerate([(rows, "fastv"), (rows, "random"), (alone, "fastv"), (alone, "random")]):
        one.inputs = inputs
        for options in (most, PruneOptions(fixed_keep_ratio=0.8)):
            assert torch.equal(*one.both(pruner=method, options=options))
        assert one.counter.frame_count == number + 1


def test_a_prefill_can_be_decoded_again_unless_it_is_consumed(qwen):
    done, ids = qwen.model.prefill(qwen.inputs, "random", HALF), qwen.inputs["input_ids"]
    first, again = (qwen.model.decode(ids, done, compile_decode=True, **GREEDY) for _ in range(2))
    assert torch.equal(first, again)
    qwen.model.decode(ids, done, consume=True, compile_decode=True, **GREEDY)
    with pytest.raises(ValueError, match="gave its cache away"):
        qwen.model.decode(ids, done, compile_decode=True, **GREEDY)


def test_buffers_are_used_again_in_and_out_of_inference_mode(qwen):
    with torch.inference_mode():
        plain, fast = qwen.both()
    free = list(qwen.steps.pool._free)
    assert torch.equal(plain, fast) and torch.equal(qwen.both()[1], plain)
    assert list(qwen.steps.pool._free) == free  # none was made anew


def test_threads_have_buffers_of_their_own(qwen):
    def ask(kept: float) -> torch.Tensor:
        how = {**GREEDY, "pruner": "random", "options": PruneOptions(fixed_keep_ratio=kept), "compile_decode": True}
        return qwen.model.generate(**qwen.inputs, **how)

    ratios = [0.5, 0.25, 0.5, 0.25]
    expected = [ask(kept) for kept in ratios]
    with ThreadPoolExecutor(4) as pool:
        assert all(map(torch.equal, pool.map(ask, ratios), expected))


def test_an_error_gives_the_buffers_back(qwen):
    class Stops(LogitsProcessor):
        def __call__(self, input_ids, scores):
            raise KeyError("stop")

    before = list(qwen.steps.pool._free)
    with pytest.raises(KeyError):
        qwen.model.generate(**qwen.inputs, **GREEDY, compile_decode=True, logits_processor=[Stops()])
    assert len(qwen.steps.pool._free) == min(4, len(before) + 1) or list(qwen.steps.pool._free) == before


def test_the_base_is_untouched(qwen):
    kernel = qwen.base.config.text_config._attn_implementation
    assert kernel == "sdpa" == qwen.base.model.language_model.layers[0].self_attn.config._attn_implementation
    seen = qwen.steps._one._backbone.text_model
    assert {layer.self_attn.config._attn_implementation for layer in seen.layers} == {NAME}
    assert all(p is q for p, q in zip(seen.parameters(), qwen.base.model.language_model.parameters(), strict=True))


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"output_hidden_states": True, "return_dict_in_generate": True}, "output_hidden_states is asked for"),
        ({"cache_implementation": "static"}, "cache_implementation asks for another cache"),
    ],
    ids=["outputs", "cache"],
)
def test_what_cannot_be_captured_goes_on_with_one_warning(how, reason):
    one = Compiled("qwen2_5_vl")
    with pytest.warns(UserWarning, match=reason) as told:
        plain, fast = one.both(**how)
        one.both(**how)
    assert sum(reason in str(one.message) for one in told) == 1
    assert torch.equal(*(out if isinstance(out, torch.Tensor) else out.sequences for out in (plain, fast)))
    assert one.counter.frame_count == 0


@pytest.mark.parametrize(
    "real", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["raised by the step", "by the backend"]
)
def test_a_compiler_that_fails_costs_one_warning(real, monkeypatch):
    def fails(*arguments, **kwargs):
        raise (RuntimeError if real else FailOnRecompileLimitHit)("no compiler here")

    one = Compiled("qwen2_5_vl", fails)
    if not real:
        monkeypatch.setattr(one.steps, "_compiled", lambda of_layer: fails)
    with pytest.warns(UserWarning, match="torch.compile failed: .*no compiler here") as told:
        for _ in range(2):
            assert torch.equal(*one.both())
    assert sum("compile_decode" in str(one.message) for one in told) == 1


def test_it_is_off_unless_asked_for_by_the_model_or_the_call(qwen, monkeypatch):
    taken, take = [], qwen.steps.take
    monkeypatch.setattr(qwen.steps, "take", lambda *arguments: taken.append(1) or take(*arguments))
    how = {**qwen.inputs, **GREEDY, "pruner": "random", "options": HALF}
    qwen.model.generate(**how)
    monkeypatch.setattr(qwen.model, "compile_decode", True)
    qwen.model.generate(**how, compile_decode=False)
    assert not taken
    qwen.model.generate(**how)
    assert taken


def test_asking_and_talking_take_it_too(monkeypatch):
    model = gp.from_pretrained("tiny", glimpse="tiny", compile_decode=True)
    taken, steps = [], compiled.CompiledDecoding(model.backbone)
    monkeypatch.setattr(steps, "take", lambda *arguments: taken.append(len(arguments)))  # None: goes on the plain way
    monkeypatch.setitem(compiled._OF_BASES, model.backbone, steps)
    picture, question = ROOT / "docs" / "images" / "scene.png", "what number is on the green card ?"
    assert model.ask(picture, question).text == "5 3" and len(taken) == 1
    assert model.ask(picture, question, compile_decode=False).text == "5 3" and len(taken) == 1
    model.compile_decode = False
    chat = model.chat(picture)
    assert chat.ask(question, compile_decode=True).text == "5 3" and len(taken) == 2
    assert chat.ask(question).text and len(taken) == 2


def test_buckets_are_few_and_close():
    lengths = range(1, 8193)
    buckets = [bucket(length) for length in lengths]
    assert all(length <= found < max(length + 64, length * 1.126) for length, found in zip(lengths, buckets))
    assert buckets == sorted(buckets) and all(found % 8 == 0 for found in buckets)
    assert len(set(buckets)) == 8 + 4 * 8  # up to 512 each 64, then eight to the double, four times
    assert [bucket(n) for n in (1, 64, 65, 512, 513, 1024, 1025, 4096, 4097)] == [
        64, 64, 128, 512, 576, 1024, 1152, 4096, 4608,
    ]  # fmt: skip


def test_a_pool_keeps_the_latest_and_hands_them_out_empty():
    pool, device, dtype = BufferPool(2), torch.device("cpu"), torch.float32
    shapes = [Shape(1, 2, (length,), (0, 0), (2, 2), ((4, 4), (4, 4))) for length in (3, 5, 7)]
    made = [pool.take(shape, device, dtype) for shape in shapes]
    made[1].keys[1].fill_(torch.nan)
    made[1].slot.add_(2)
    for buffers in made:
        pool.give_back(buffers)
    assert pool.take(shapes[0], device, dtype) is not made[0]  # two others came later
    again = pool.take(shapes[1], device, dtype)
    assert again is made[1] and not again.keys[1].any() and not again.slot.any() and again.masks[0].isinf().all()
    assert pool.take(shapes[2], device, torch.bfloat16) is not made[2]


def test_fuller_buffers_hold_what_was_in_the_smaller_ones():
    small, large = (
        Buffers(Shape(2, room, (3, 4), (0, 1), (2, 2), ((5, 6),) * 2), torch.device("cpu"), torch.float32)
        for room in (2, 4)
    )
    for tensor in (*small.keys, *small.values, *small.masks):
        tensor.uniform_()
    small.slot.fill_(2)
    large.take_over(small)
    for old, new in zip((*small.keys, *small.values), (*large.keys, *large.values), strict=True):
        assert torch.equal(old[:, :, :2], new[:, :, :2]) and torch.equal(old[:, :, 2:], new[:, :, 4:])
        assert not new[:, :, 2:4].any()
    for old, new in zip(small.masks, large.masks, strict=True):
        assert torch.equal(old[..., :2], new[..., :2]) and torch.equal(old[..., 2:], new[..., 4:])
        assert new[..., 2:4].isinf().all()
    assert int(large.slot) == 2


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_default_backend_gives_the_same_ids(dtype):
    one = Compiled("qwen2_5_vl", "inductor")  # two layers
    one.base.to(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert torch.equal(*one.both())
    assert not one.steps.broken
