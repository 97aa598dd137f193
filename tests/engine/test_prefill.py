"""The engine: keeping everything changes nothing, pruning equals masking, a batch equals its singles."""

from __future__ import annotations

import pytest
import torch

from gp.engine.prefill import prefill
from gp.pruners import Pruner, RandomPruner
from gp.types import PruneOptions
from tests.support.glimpses import micro_glimpse
from tests.support.ragged import RAGGED, rows_alone
from tests.support.stock import embedded
from tests.support.tiny_models import FAMILIES, Family, random_masks, tiny_inputs, tiny_qwen

pytestmark = pytest.mark.core
KEEP_ALL = PruneOptions(threshold=0.0)
TEXT_KEYS = ("input_ids", "attention_mask", "mm_token_type_ids")
GREEDY = {"max_new_tokens": 6, "do_sample": False}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request) -> Family:
    return FAMILIES[request.param]


@pytest.fixture(scope="module")
def base(family):
    return family.make()


@pytest.fixture(scope="module")
def model(base):
    return micro_glimpse(base)


@pytest.fixture(scope="module")
def ragged(family):
    return family.fit(RAGGED)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_keeping_everything_equals_stock_generate(family, ragged, attention):
    base = family.make(attn_implementation=attention)
    model, inputs = micro_glimpse(base), family.inputs(ragged)
    out = model.generate(**inputs, options=KEEP_ALL, **GREEDY)
    assert torch.equal(out, base.generate(**inputs, **GREEDY))
    assert torch.equal(out, model.generate(**inputs, pruner="none", **GREEDY))


def test_every_attention_kernel_gives_the_same_masks(family, ragged):
    inputs = family.inputs(ragged)
    eager, sdpa = (micro_glimpse(family.make(attn_implementation=name)).prefill(inputs) for name in ("eager", "sdpa"))
    assert torch.equal(eager.keep_mask, sdpa.keep_mask)
    torch.testing.assert_close(eager.importance_logits, sdpa.importance_logits, atol=1e-4, rtol=1e-4)


def reference_logits(base, inputs, keep_mask, prune_layer, new_ids) -> torch.Tensor:
    """The whole sequence (prompt and new tokens) at once, nothing dropped: dropped keys are masked instead.

    Prompt queries see them up to the prune layer, new tokens never do. Returns the logits that predict each new token.
    """
    text, ids = base.model.language_model, torch.cat([inputs["input_ids"], new_ids], 1)
    mask = torch.cat([inputs["attention_mask"], torch.ones_like(new_ids)], 1).bool()
    length, prompt = ids.shape[1], inputs["input_ids"].shape[1]
    # a random model may answer with the image token: that one is text
    visual = (ids == base.config.image_token_id) & (torch.arange(length) < prompt)
    hidden, positions, deepstack = embedded(base, ids, mask, visual, inputs)
    dropped = torch.zeros_like(visual).masked_scatter(visual, ~keep_mask)
    causal = torch.ones(length, length, dtype=torch.bool).tril() & mask[:, None, None, :]
    causal = causal | torch.eye(length, dtype=torch.bool)  # padded rows need something to look at
    without = causal & ~dropped[:, None, None, :]
    early = torch.where((torch.arange(length) < prompt)[:, None], causal, without)
    rotary = text.rotary_emb(hidden, positions)
    for index, layer in enumerate(text.layers):
        allowed = early if index <= prune_layer else without
        bias = torch.zeros_like(allowed, dtype=hidden.dtype).masked_fill(~allowed, torch.finfo(hidden.dtype).min)
        hidden = layer(hidden, attention_mask=bias, position_embeddings=rotary)
        if index < len(deepstack):
            hidden = text._deepstack_process(hidden, visual, deepstack[index])
    return base.lm_head(text.norm(hidden))[:, prompt - 1 : -1]


@pytest.mark.parametrize("prune_layer", [0, 1, 3])
@pytest.mark.parametrize("rows", [slice(0, 4), slice(0, 1), slice(1, 2)], ids=["ragged", "single", "two images"])
def test_pruning_equals_masking_the_dropped_keys(family, base, ragged, prune_layer, rows):
    model, inputs = micro_glimpse(base, prune_layer), family.inputs(ragged[rows])
    out = model.generate(**inputs, **GREEDY, return_dict_in_generate=True, output_logits=True)
    keep_mask = torch.cat([m.flatten() for m in out.keep_masks])
    assert 0 < keep_mask.sum() < len(keep_mask)
    new_ids = out.sequences[:, inputs["input_ids"].shape[1] :]
    expected = reference_logits(base, inputs, keep_mask, prune_layer, new_ids)
    torch.testing.assert_close(torch.stack(out.logits, 1), expected, atol=2e-4, rtol=1e-4)


def test_images_in_several_turns(family, base, model):
    """Image, text, image, text in one prompt: each image is pruned where it stands."""
    turns = [family.inputs(family.fit([([(4, 6)], length)]), seed=length) for length in (7, 9)]
    inputs = {k: torch.cat([t[k] for t in turns], 1 if k in TEXT_KEYS else 0) for k in turns[0]}
    out = model.generate(**inputs, **GREEDY, return_dict_in_generate=True, output_logits=True)
    assert len(out.keep_masks) == 2 and all(0 < mask.sum() < mask.numel() for mask in out.keep_masks)
    keep_mask = torch.cat([m.flatten() for m in out.keep_masks])
    new_ids = out.sequences[:, inputs["input_ids"].shape[1] :]
    expected = reference_logits(base, inputs, keep_mask, 1, new_ids)
    torch.testing.assert_close(torch.stack(out.logits, 1), expected, atol=2e-4, rtol=1e-4)


def test_pruning_before_the_first_layer_equals_never_having_had_the_tokens(family, base, ragged):
    inputs = family.inputs(ragged)
    done = prefill(
        micro_glimpse(base).backbone, inputs, RandomPruner(-1), PruneOptions(fixed_keep_ratio=0.4), logits_to_keep=1
    )
    expected = reference_logits(base, inputs, done.keep_mask, -1, done.logits[:, -1].argmax(-1, keepdim=True))
    torch.testing.assert_close(done.logits, expected, atol=2e-4, rtol=1e-4)


def test_a_batch_equals_its_singles(family, model, ragged):
    inputs = family.inputs(ragged)
    together = model.generate(**inputs, **GREEDY, return_dict_in_generate=True)
    masks = list(together.keep_masks)
    for row, single in enumerate(rows_alone(inputs, ragged)):
        alone = model.generate(**single, **GREEDY, return_dict_in_generate=True)
        assert torch.equal(alone.sequences[0, -6:], together.sequences[row, -6:])
        assert alone.num_kept[0] == together.num_kept[row]
        for mask in alone.keep_masks:
            assert torch.equal(mask, masks.pop(0))


def test_kept_tokens_keep_their_positions_and_all_layers_have_one_length(family, model, ragged):
    inputs = family.inputs(ragged)
    full, done = model.prefill(inputs, "none"), model.prefill(inputs)
    assert {layer.keys.shape[2] for layer in done.cache.layers} == {done.attention_mask.shape[1]}
    for row in range(len(ragged)):
        kept_ids = done.visual_id[row][done.visual_id[row] >= 0]
        place = {int(v): i for i, v in enumerate(full.visual_id[row].tolist()) if v >= 0}
        for token in kept_ids.tolist():
            now = done.position_ids[:, row, done.visual_id[row] == token]
            assert torch.equal(now, full.position_ids[:, row, place[token]][:, None])
    assert torch.equal(done.next_position, full.next_position)
    # every text token of every prompt is still there
    num_text = (full.attention_mask & (full.visual_id < 0)).sum(1)
    assert torch.equal((done.attention_mask & (done.visual_id < 0)).sum(1), num_text)


def test_text_only_prompts_are_left_alone(family, base, model):
    inputs = family.inputs([([], 6), ([], 11)])
    out = model.generate(**inputs, **GREEDY, return_dict_in_generate=True)
    assert torch.equal(out.sequences, base.generate(**inputs, **GREEDY))
    assert out.num_kept == (0, 0) and out.keep_masks == ()


def test_oracle_keeps_exactly_the_given_masks(family, model, ragged):
    inputs = family.inputs(ragged)
    masks = random_masks([grid for grids, _ in ragged for grid in grids])
    out = model.generate(**inputs, pruner="oracle", evidence_masks=masks, **GREEDY, return_dict_in_generate=True)
    assert all(torch.equal(a, b) for a, b in zip(out.keep_masks, masks))


def test_random_is_seeded_and_exact(family, model, ragged):
    inputs = family.inputs(ragged)
    options = PruneOptions(num_keep=(3, 10, 0, 25))
    first, again, other = (model.prefill(inputs, "random", options, seed=s) for s in (1, 1, 2))
    assert first.num_kept == again.num_kept == other.num_kept == [3, 10, 0, 25]
    assert torch.equal(first.keep_mask, again.keep_mask) and not torch.equal(first.keep_mask, other.keep_mask)


class TwoStages(Pruner):
    """Drops the lower half of what is left, by number, after layers 0 and 2, reading attention at both."""

    name = "two_stages"
    stages = (0, 2)
    read_layers = (0, 2)
    decides_itself = True

    def scores(self, view):
        self.seen = {**getattr(self, "seen", {}), view.stage: view.attention[view.stage]}
        return torch.arange(view.layout.num_tokens).float()

    def keep(self, scores, view):
        return view.alive & (scores >= view.layout.num_tokens * (0.5 if view.stage == 0 else 0.75))


def test_several_stages_drop_one_after_the_other(family, base):
    model, pruner = micro_glimpse(base), TwoStages()
    prompts = family.fit([([(4, 4)], 6)])
    done = model.prefill(family.inputs(prompts), pruner)
    total = done.layout.num_tokens
    left = [n for n in range(total) if n >= 0.75 * total]
    assert done.keep_mask.nonzero().flatten().tolist() == left
    assert {layer.keys.shape[2] for layer in done.cache.layers} == {6 + 2 + len(left)}
    assert torch.isfinite(pruner.seen[0]).all()
    gone = torch.isinf(pruner.seen[2]).all(1)
    assert gone.nonzero().flatten().tolist() == [n for n in range(total) if n < 0.5 * total]


def test_nothing_stays_attached_to_the_base(family, base, model, ragged):
    before = {name: len(m._forward_hooks) + len(m._forward_pre_hooks) for name, m in base.named_modules()}
    model.generate(**family.inputs(ragged), **GREEDY)
    assert before == {name: len(m._forward_hooks) + len(m._forward_pre_hooks) for name, m in base.named_modules()}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_runs_and_scores_stay_close(family, ragged, dtype):
    inputs = family.inputs(ragged[:2])
    exact = micro_glimpse(family.make()).prefill(inputs)
    model = micro_glimpse(family.make(dtype=dtype))
    model.glimpse.to(dtype)
    done = model.prefill(inputs)
    assert done.importance_logits.dtype == torch.float32 and done.logits.dtype == dtype
    correlation = torch.corrcoef(torch.stack([done.importance_logits, exact.importance_logits]))[0, 1]
    assert correlation > 0.98


def test_bad_prompts_are_refused():
    model, inputs = micro_glimpse(tiny_qwen()), tiny_inputs(RAGGED[:2])
    with pytest.raises(ValueError, match="padded on the left"):
        model.prefill({**inputs, "attention_mask": inputs["attention_mask"].flip(1)})
    with pytest.raises(ValueError, match=r"52 image tokens, .*\b1 images .*\b24 features"):
        model.prefill({**inputs, "image_grid_thw": inputs["image_grid_thw"][:1]})
    with pytest.raises(ValueError, match="one \\[h, w\\] mask per image"):
        model.prefill(inputs, "oracle")
    with pytest.raises(ValueError, match="evidence_masks have shapes"):
        model.prefill(inputs, "oracle", evidence_masks=[torch.ones(2, 2)])
    with pytest.raises(ValueError, match="only ranks tokens"):
        model.prefill(inputs, "random")
    with pytest.raises(ValueError, match="no pruner 'fastest'"):
        model.prefill(inputs, "fastest")
