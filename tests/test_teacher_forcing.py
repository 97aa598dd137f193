"""A prefix without gradients gives the loss and the gradients of the whole sequence under autograd."""

from __future__ import annotations

import pytest
import torch
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLRMSNorm

from gp.bench.whole_sequence import whole_sequence
from gp.config import LossConfig
from gp.model import GlimpseModel
from gp.prefill import prefill
from gp.teacher_forcing import TeacherForced, teacher_forced
from gp.training.objective import batch_sums, kept_counts, step_loss
from gp.types import PruneOptions
from tests.glimpses import micro_glimpse
from tests.tiny_models import random_masks, tiny_answers, tiny_inputs, tiny_qwen

RAGGED = [([(4, 6)], 9), ([(2, 2), (6, 4)], 7), ([(6, 6)], 14)]  # left padding in two of three rows
GRIDS = [grid for grids, _ in RAGGED for grid in grids]
ANSWERS = (3, 1, 5)


def loss_of(forced: TeacherForced) -> torch.Tensor:
    answers = tiny_answers(ANSWERS)
    sums = batch_sums(forced, random_masks(GRIDS), *answers, kept_counts(forced, PruneOptions()))
    return step_loss(sums, LossConfig())[0].backward


def loss_and_gradients(model: GlimpseModel, forward) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.train()
    model.zero_grad()
    inputs = {k: v.to(model.backbone.dtype) if v.is_floating_point() else v for k, v in tiny_inputs(RAGGED).items()}
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
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_equals_the_whole_sequence_in_float32(variant, attention):
    model = micro_glimpse(tiny_qwen(attn_implementation=attention), prune_layer=2, **VARIANTS[variant])
    loss, gradients = loss_and_gradients(model, teacher_forced)
    expected_loss, expected = loss_and_gradients(model, whole_sequence)
    assert torch.allclose(loss, expected_loss, rtol=1e-5)
    assert largest_difference(gradients, expected) < 1e-4
    assert all(float(g.abs().max()) > 0 for g in gradients.values())


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


def test_scores_are_those_of_inference():
    model = micro_glimpse(tiny_qwen(), prune_layer=2)
    inputs = tiny_inputs(RAGGED)
    forced = teacher_forced(model.backbone, model.glimpse, inputs)
    done = prefill(model.backbone, inputs, model.glimpse)
    assert forced.answer_logits is None
    assert torch.allclose(forced.importance_logits[-1], done.importance_logits, atol=1e-4)


def test_an_answer_changes_no_score():
    model = micro_glimpse(tiny_qwen(), prune_layer=2)
    inputs = tiny_inputs(RAGGED)
    alone = teacher_forced(model.backbone, model.glimpse, inputs)
    answered = teacher_forced(model.backbone, model.glimpse, inputs, *tiny_answers(ANSWERS))
    assert torch.allclose(alone.importance_logits[-1], answered.importance_logits[-1], atol=1e-5)


def test_a_batch_equals_its_rows():
    model = micro_glimpse(tiny_qwen(), prune_layer=2)
    ids, mask = tiny_answers(ANSWERS)
    whole = teacher_forced(model.backbone, model.glimpse, tiny_inputs(RAGGED), ids, mask)
    scores = whole.layout.split_by_prompt(whole.importance_logits[-1])
    inputs = tiny_inputs(RAGGED)
    patch = image = 0
    for row, (grids, _) in enumerate(RAGGED):
        real = inputs["attention_mask"][row].bool()
        count, num = sum(4 * h * w for h, w in grids), len(grids)
        single = {k: inputs[k][row : row + 1, real] for k in ("input_ids", "attention_mask", "mm_token_type_ids")}
        single["pixel_values"] = inputs["pixel_values"][patch : patch + count]
        single["image_grid_thw"] = inputs["image_grid_thw"][image : image + num]
        patch, image, length = patch + count, image + num, ANSWERS[row]
        alone = teacher_forced(
            model.backbone, model.glimpse, single, ids[row : row + 1, :length], mask[row : row + 1, :length]
        )
        assert torch.allclose(alone.importance_logits[-1], scores[row], atol=1e-4)
        assert torch.allclose(alone.answer_logits[0], whole.answer_logits[row, :length], atol=1e-4)


def test_gradients_reach_only_glimpse_token_and_vip():
    model = micro_glimpse(tiny_qwen(), prune_layer=2)
    loss_and_gradients(model, teacher_forced)
    assert all(p.grad is None and not p.requires_grad for p in model.base.parameters())
    assert all(p.grad is not None for p in model.glimpse.parameters())


def test_a_batch_without_images_is_refused():
    model = micro_glimpse(tiny_qwen())
    with pytest.raises(ValueError, match="no image"):
        teacher_forced(model.backbone, model.glimpse, tiny_inputs([([], 5)]))
