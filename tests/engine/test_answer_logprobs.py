"""Log-probabilities of answers behind pruned prompts: those of the draw, and the gradients of the whole sequence."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache

from gp.backbones import backbone_of
from gp.engine.answer_logprobs import answer_logprobs, pruned_prefix
from gp.model import GlimpseModel
from gp.pruners import OraclePruner
from gp.types import PruneOptions
from tests.support.tiny_models import FAMILIES, random_masks, tiny_answers

PRUNE_LAYER, COPIES = 1, 3
RAGGED = [([(4, 6)], 9), ([(2, 4), (4, 4)], 5), ([(4, 4)], 14)]
ALL = pytest.mark.parametrize("family", FAMILIES)


def case(family, seed=0):
    """A micro model and a ragged batch with masks that keep a part of each image."""
    kind = FAMILIES[family]
    prompts = kind.fit(RAGGED)
    backbone = backbone_of(kind.make(seed=seed))
    grids = [grid for grids, _ in prompts for grid in grids]
    return backbone, kind.inputs(prompts, seed=seed), random_masks(grids, seed)


@ALL
@pytest.mark.core
def test_equal_to_those_of_the_draw(family):
    """What transformers' `generate` drew from, against the training forward, for answers of different lengths."""
    backbone, inputs, masks = case(family)
    model = GlimpseModel(backbone.model)
    done = model.prefill(inputs, OraclePruner(PRUNE_LAYER), PruneOptions(min_kept=0), masks)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        drawn = model.decode(
            inputs["input_ids"],
            done,
            do_sample=True,
            num_return_sequences=COPIES,
            max_new_tokens=7,
            output_logits=True,
            return_dict_in_generate=True,
        )
    ids = drawn.sequences[:, inputs["input_ids"].shape[1] :]
    lengths = torch.tensor([7, 3, 1] * len(RAGGED))  # as if a turn had ended there
    mask = torch.arange(7) < lengths[:, None]
    expected = torch.stack(drawn.logits, 1).log_softmax(-1)
    prefix = pruned_prefix(backbone, inputs, masks, PRUNE_LAYER)
    found = answer_logprobs(backbone, prefix, ids.masked_fill(~mask, 0), mask)
    chosen = expected.gather(2, ids[:, :, None])[:, :, 0] * mask
    assert float((found.log_probs - chosen).abs().max()) < 1e-4
    entropy = -(expected.exp() * expected).sum(-1) * mask
    assert float((found.entropy - entropy).abs().max()) < 1e-4


@ALL
def test_temperature_and_single_tokens(family):
    backbone, inputs, masks = case(family)
    ids, mask = torch.tensor([[3], [5], [7]]), torch.ones(3, 1, dtype=torch.bool)
    prefix = pruned_prefix(backbone, inputs, masks, PRUNE_LAYER)
    done = GlimpseModel(backbone.model).prefill(inputs, OraclePruner(PRUNE_LAYER), PruneOptions(min_kept=0), masks)
    expected = (done.logits[:, -1] / 2).log_softmax(-1).gather(1, ids)
    found = answer_logprobs(backbone, prefix, ids, mask, temperature=2.0).log_probs
    assert torch.allclose(found, expected, atol=1e-5)


@ALL
@pytest.mark.parametrize("through_prompt", [True, False])
def test_gradients_equal_those_of_the_whole_sequence(family, through_prompt):
    """Of one row, against all layers over prompt and answer with the dropped keys masked, nothing taken out."""
    backbone, inputs, masks = single(family)
    ids, mask = tiny_answers([4])
    weights = [layer.self_attn.q_proj.weight.requires_grad_(True) for layer in backbone.text_model.layers]
    prefix = pruned_prefix(backbone, inputs, masks, PRUNE_LAYER, gradients=through_prompt)
    found = answer_logprobs(backbone, prefix, ids, mask).log_probs
    gradients = torch.autograd.grad((found * torch.tensor([1.0, -2.0, 0.5, 3.0])).sum(), weights)
    wanted = whole_sequence(backbone, inputs, masks[0], ids, through_prompt)
    expected = torch.autograd.grad((wanted * torch.tensor([1.0, -2.0, 0.5, 3.0])).sum(), weights)
    assert torch.allclose(found, wanted, atol=1e-4)
    for one, other in zip(gradients, expected, strict=True):
        assert float(other.abs().max()) > 0
        assert float((one - other).abs().max()) < 1e-4 * float(other.abs().max()) + 1e-6


def single(family):
    kind = FAMILIES[family]
    prompts = kind.fit([([(4, 6)], 9)])
    return backbone_of(kind.make()), kind.inputs(prompts), random_masks([prompts[0][0][0]])


def whole_sequence(backbone, inputs, keep, ids, through_prompt):
    """Log-probabilities of an answer by plain layers under masks: the reference."""
    prompt = backbone.embed(inputs)
    size, count = prompt.hidden.shape[1], ids.shape[1]
    answer = backbone.text_model.embed_tokens(ids)
    hidden = torch.cat([prompt.hidden, answer], 1)
    positions = torch.cat([prompt.position_ids, prompt.next_positions(count)], 2)
    rotary = backbone.rotary(hidden, positions)
    dropped = torch.zeros(size + count, dtype=torch.bool)
    dropped[:size][prompt.visual_id[0] >= 0] = ~keep.flatten()
    causal = torch.ones(size + count, size + count, dtype=torch.bool).tril()
    early = causal.clone()
    early[size:, dropped] = False  # caches have forgotten them when the answer comes
    late = causal & (~dropped | torch.eye(size + count, dtype=torch.bool))
    for index in range(backbone.num_layers):
        allowed = early if index <= PRUNE_LAYER else late
        mask = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)[None, None]
        hidden = backbone.layer(index, hidden, mask, rotary, DynamicCache())
        if index in prompt.deepstack:
            seen = prompt.spread_visual(prompt.deepstack[index]) * prompt.is_visual.unsqueeze(-1)
            hidden = torch.cat([hidden[:, :size] + seen, hidden[:, size:]], 1)
        if not through_prompt:
            hidden = torch.cat([hidden[:, : size - 1].detach(), hidden[:, size - 1 :]], 1)
    logits = backbone.logits(hidden[:, size - 1 : -1])
    return logits.log_softmax(-1).gather(2, ids[:, :, None])[:, :, 0]


def test_refuses_what_it_cannot_do():
    backbone, inputs, _ = case("qwen2_5_vl")
    text = FAMILIES["qwen2_5_vl"].inputs([([], 5)])
    with pytest.raises(ValueError, match="hold no image"):
        pruned_prefix(backbone, text, [], PRUNE_LAYER)
    with pytest.raises(ValueError, match="evidence_masks have shapes"):
        pruned_prefix(backbone, inputs, [torch.ones(1, 1, dtype=torch.bool)], PRUNE_LAYER)
    at_the_end = {name: value[:, :-14] if value.ndim == 2 and name != "pixel_values" else value
                  for name, value in single_inputs().items()}  # fmt: skip
    with pytest.raises(ValueError, match="ends with an image"):
        pruned_prefix(backbone, {**at_the_end, "image_grid_thw": torch.tensor([[1, 8, 8]])}, [torch.ones(4, 4)], 1)


def single_inputs():
    return FAMILIES["qwen2_5_vl"].inputs([([(4, 4)], 19)])
