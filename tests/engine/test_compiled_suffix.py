"""The compiled suffix: one graph without a break, loss and gradients of the plain way, one warning where it cannot be.

The graph is captured by `torch.compile(fullgraph=True)` and run as it is; that the code which the default backend makes
of it, forward and backward, gives the same is a slow test, for which a C++ compiler is needed.
"""

from __future__ import annotations

import shutil
import warnings

import pytest
import torch
from torch._dynamo.exc import FailOnRecompileLimitHit
from torch._dynamo.testing import CompileCounter

from gp.engine.compiled_suffix import CompiledSuffix
from gp.engine.teacher_forcing import teacher_forced
from gp.model import GlimpseModel
from tests.support.glimpses import micro_glimpse
from tests.support.losses import ANSWERS, loss_of
from tests.support.tiny_models import FAMILIES, tiny_answers

pytestmark = pytest.mark.core

RAGGED = [([(4, 6)], 9), ([(2, 2), (6, 4)], 7), ([(6, 6)], 14)]  # left padding in two of three rows
LAYERS = 2  # tracing one takes half a second
PUBLISHED = {"prune_layer": 1}
LOG_SOFTMAX = {"prune_layer": 1, "attention_logits": False, "num_tokens": 2, "read_layers": [0, 1]}
TWIG = {"prune_layer": 0, "twig": 1, "read_layers": [0, 1], "layers": [0]}
MOST = ("qwen2_5_vl", "log_softmax", True)  # of the default run
PARTS = {"published": PUBLISHED, "log_softmax": LOG_SOFTMAX, "twig": TWIG}
CASES = [(name, parts, buckets) for name in FAMILIES for parts in PARTS for buckets in (False, True)]


def loss_and_gradients(model: GlimpseModel, prompts=RAGGED, answers=ANSWERS, **how):
    model.train()
    model.zero_grad()
    family = FAMILIES[model.backbone.model_type]
    inputs, given = family.inputs(family.fit(prompts)), () if answers is None else tiny_answers(answers)
    forced = teacher_forced(model.backbone, model.glimpse, inputs, *given, **how)
    loss = loss_of(forced, answers) if answers is not None else forced.importance_logits[-1].square().sum()
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.glimpse.named_parameters() if p.grad is not None}


def assert_same(found, expected, tolerance: float = 1e-5) -> None:
    """Losses, and gradients relative to each tensor's own largest entry."""
    torch.testing.assert_close(found[0], expected[0], rtol=tolerance, atol=0)
    assert found[1].keys() == expected[1].keys() and found[1]
    assert max(float((found[1][k] - v).abs().max() / v.abs().max()) for k, v in expected[1].items()) < tolerance


def micro(name: str = "qwen2_5_vl", **parts) -> GlimpseModel:
    return micro_glimpse(FAMILIES[name].make(layers=LAYERS), **(parts or PUBLISHED))


@pytest.mark.parametrize(
    ("name", "parts", "buckets"),
    [pytest.param(*case, marks=() if case == MOST else pytest.mark.slow) for case in CASES],
)
def test_one_graph_gives_the_same_loss_and_gradients(name, parts, buckets):
    model, counter = micro(name, **PARTS[parts]), CompileCounter()
    compiled = CompiledSuffix(model.backbone, counter, buckets)
    assert_same(loss_and_gradients(model, compiled=compiled), loss_and_gradients(model))
    assert counter.frame_count == 1 and not compiled.broken
    assert all(p.grad is None for p in model.base.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("first", [(3, 1, 5), (1, 2, 1), (1, 1)], ids=["rotary_axes", "new_tokens", "key_heads"])
def test_batches_of_other_sizes_need_no_other_graph(first):
    """Although the rows of the first are as many as something else that is no variable, or varies by itself."""
    model, counter = micro(), CompileCounter()
    compiled = CompiledSuffix(model.backbone, counter, buckets=False)
    for answer in (first, (2, 4), (6, 1, 2, 3), (7, 7, 7), (1, 2, 9, 1, 3)):
        prompts = (RAGGED[::-1] * 2)[: len(answer)]
        assert_same(*(loss_and_gradients(model, prompts, answer, compiled=way) for way in (compiled, None)))
    assert counter.frame_count == 1 and not compiled.broken
    loss_and_gradients(model, RAGGED[:1], (3,), compiled=compiled)
    assert counter.frame_count == 2 and not compiled.broken


def test_a_compiler_that_fails_costs_one_warning():
    def fails(*arguments, **kwargs):
        raise FailOnRecompileLimitHit("no compiler here")

    model = micro()
    compiled = CompiledSuffix(model.backbone, CompileCounter())
    compiled._compiled = fails
    with pytest.warns(UserWarning, match="trainer.compile: .*no compiler here") as told:
        for _ in range(2):
            assert_same(loss_and_gradients(model, compiled=compiled), loss_and_gradients(model), 1e-7)
    assert sum("trainer.compile" in str(one.message) for one in told) == 1


def test_a_base_on_several_devices_is_told_at_once(monkeypatch):
    monkeypatch.setattr("gp.engine.compiled_suffix.is_placed", lambda model: True)
    with pytest.warns(UserWarning, match="trainer.compile: .*several devices"):
        assert CompiledSuffix(micro().backbone).broken


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_the_default_backend_gives_the_same_loss_and_gradients():
    model = micro()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "trainer.compile", UserWarning)
        compiled = CompiledSuffix(model.backbone)
        assert_same(loss_and_gradients(model, compiled=compiled), loss_and_gradients(model))
    assert not compiled.broken
