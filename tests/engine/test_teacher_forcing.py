"""A prefix without gradients gives the loss and the gradients of the whole sequence under autograd."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLRMSNorm

from gp.backbones import backbone_of
from gp.bench.whole_sequence import whole_sequence
from gp.engine.prefill import prefill
from gp.engine.teacher_forcing import teacher_forced
from gp.model import GlimpseModel
from tests.support.glimpses import micro_glimpse
from tests.support.losses import ANSWERS, loss_of
from tests.support.ragged import rows_alone
from tests.support.tiny_models import FAMILIES, Family, tiny_answers, tiny_qwen

pytestmark = pytest.mark.core

RAGGED = [([(4, 6)], 9), ([(2, 2), (6, 4)], 7), ([(6, 6)], 14)]  # left padding in two of three rows


@pytest.fixture(scope="module", params=FAMILIES)
def family(request) -> Family:
    return FAMILIES[request.param]


def ragged_inputs(model: GlimpseModel) -> dict[str, torch.Tensor]:
    family = FAMILIES[model.backbone.model_type]
    return family.inputs(family.fit(RAGGED))


def loss_and_gradients(model: GlimpseModel, forward) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.train()
    model.zero_grad()
    inputs = ragged_inputs(model)
    inputs = {k: v.to(model.backbone.dtype) if v.is_floating_point() else v for k, v in inputs.items()}
    loss = loss_of(forward(model.backbone, model.glimpse, inputs, *tiny_answers(ANSWERS)))
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.glimpse.named_parameters()}


def largest_difference(got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """Relative to each tensor's own largest entry."""
    assert got.keys() == expected.keys()
    return max(float((got[k] - v).abs().max() / v.abs().max()) for k, v in expected.items())


VARIANTS = {
    "published": {},
    "log_softmax": {"attention_logits": False},
    "two_tokens": {"num_tokens": 2, "norm": "layernorm"},
    "some_layers": {"layers": [0, 2], "read_layers": [0, 1]},
    "windows": {"attention": "window", "deep_supervision": True},
    "twig": {"prune_layer": 0, "twig": 2, "read_layers": [0, 1, 2]},
    "twig of one": {"prune_layer": 1, "twig": 1, "attention_logits": False, "num_tokens": 2},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_equals_the_whole_sequence_in_float32(family, variant, attention):
    base = family.make(attn_implementation=attention)
    changes = dict(VARIANTS[variant])
    if backbone_of(base).window is None:
        changes.pop("attention", None)
    model = micro_glimpse(base, **{"prune_layer": 2, **changes})
    loss, gradients = loss_and_gradients(model, teacher_forced)
    expected_loss, expected = loss_and_gradients(model, whole_sequence)
    assert torch.allclose(loss, expected_loss, rtol=1e-5)
    assert largest_difference(gradients, expected) < 1e-4
    assert all(float(g.abs().max()) > 0 for g in gradients.values())


def test_layers_that_do_not_run_again_give_the_same(family):
    model = micro_glimpse(family.make(), prune_layer=2)
    loss, gradients = loss_and_gradients(model, partial(teacher_forced, recompute=False))
    expected_loss, expected = loss_and_gradients(model, teacher_forced)
    assert torch.allclose(loss, expected_loss, rtol=1e-6)
    assert largest_difference(gradients, expected) < 1e-5


def test_equals_the_whole_sequence_in_true_float64(monkeypatch):
    # Both transformers' RMSNorm and our losses compute in float32 whatever comes in: here they must not, or the
    # comparison would end at float32's precision.
    monkeypatch.setattr(Qwen2_5_VLRMSNorm, "forward", norm_in_any_precision)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    model = micro_glimpse(tiny_qwen(dtype=torch.float64), prune_layer=2)
    model.glimpse.double()
    loss, gradients = loss_and_gradients(model, teacher_forced)
    expected_loss, expected = loss_and_gradients(model, whole_sequence)
    assert all(g.dtype == torch.float64 for g in [loss, *gradients.values()])
    assert abs(loss - expected_loss) < 1e-12
    difference = largest_difference(gradients, expected)
    assert 0 < difference < 1e-9  # an exact zero would mean that one way was compared with itself


def norm_in_any_precision(self, hidden: torch.Tensor) -> torch.Tensor:
    return self.weight * hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)


@pytest.mark.parametrize("parts", [{"prune_layer": 2}, {"prune_layer": 0, "twig": 2}], ids=["plain", "twig"])
def test_scores_are_those_of_inference(family, parts):
    model = micro_glimpse(family.make(), **parts)
    inputs = ragged_inputs(model)
    forced = teacher_forced(model.backbone, model.glimpse, inputs)
    done = prefill(model.backbone, inputs, model.glimpse)
    assert forced.answer_logits is None
    assert torch.allclose(forced.importance_logits[-1], done.importance_logits, atol=1e-4)


def test_an_answer_changes_no_score(family):
    model = micro_glimpse(family.make(), prune_layer=2)
    inputs = ragged_inputs(model)
    alone = teacher_forced(model.backbone, model.glimpse, inputs)
    answered = teacher_forced(model.backbone, model.glimpse, inputs, *tiny_answers(ANSWERS))
    assert torch.allclose(alone.importance_logits[-1], answered.importance_logits[-1], atol=1e-5)


def test_a_batch_equals_its_rows(family):
    model = micro_glimpse(family.make(), prune_layer=2)
    ids, mask = tiny_answers(ANSWERS)
    inputs = ragged_inputs(model)
    whole = teacher_forced(model.backbone, model.glimpse, inputs, ids, mask)
    scores = whole.layout.split_by_prompt(whole.importance_logits[-1])
    for row, single in enumerate(rows_alone(inputs, family.fit(RAGGED))):
        length = ANSWERS[row]
        alone = teacher_forced(
            model.backbone, model.glimpse, single, ids[row : row + 1, :length], mask[row : row + 1, :length]
        )
        assert torch.allclose(alone.importance_logits[-1], scores[row], atol=1e-4)
        assert torch.allclose(alone.answer_logits[0], whole.answer_logits[row, :length], atol=1e-4)


def test_gradients_reach_only_glimpse_token_and_vip(family):
    model = micro_glimpse(family.make(), prune_layer=2)
    loss_and_gradients(model, teacher_forced)
    assert all(p.grad is None and not p.requires_grad for p in model.base.parameters())
    assert all(p.grad is not None for p in model.glimpse.parameters())


def test_a_batch_without_images_is_refused(family):
    model = micro_glimpse(family.make())
    with pytest.raises(ValueError, match="no image"):
        teacher_forced(model.backbone, model.glimpse, family.inputs([([], 5)]))
