"""A run that is stopped and goes on with other tokens computes what one pass over all of them computes."""

from __future__ import annotations

import pytest
import torch

from gp.engine.compaction import tail_of
from gp.engine.prefill import prefill
from gp.engine.run import Run
from gp.pruners import NoPruner
from gp.types import PruneOptions
from tests.support.glimpses import micro_glimpse
from tests.support.ragged import RAGGED
from tests.support.tiny_models import FAMILIES, Family

pytestmark = pytest.mark.core
DEPTH, BEHIND = 1, (3, 4, 1, 6)  # tokens of each row that come later
OPTIONS = PruneOptions(threshold=0.5)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request) -> Family:
    return FAMILIES[request.param]


@pytest.fixture(scope="module")
def model(family):
    return micro_glimpse(family.make(), DEPTH)


@pytest.fixture(scope="module")
def inputs(family):
    return family.inputs(family.fit(RAGGED))


def started(model, inputs, pruner) -> tuple[Run, torch.Tensor, list[int]]:
    """A run at depth 1 over all but the last tokens of each row; the whole prompt; the rows' first tokens."""
    prompt = model.backbone.embed(inputs, pruner.taps)
    starts = [length - count for length, count in zip(prompt.lengths, BEHIND)]
    plain = NoPruner()
    plain.taps = pruner.taps
    run = Run.start(model.backbone, plain, prompt, OPTIONS)
    run.cut(BEHIND)
    run.advance(DEPTH)
    return run, model.backbone.embed(inputs, pruner.taps), starts


@torch.no_grad()
def test_the_rest_appended_equals_one_pass(model, inputs):
    run, prompt, starts = started(model, inputs, NoPruner())
    run.append(tail_of(prompt, starts))
    run.advance(model.backbone.num_layers - 1)
    whole = prefill(model.backbone, inputs)
    torch.testing.assert_close(model.backbone.logits(run.prompt.hidden[:, -1:]), whole.logits, atol=1e-4, rtol=1e-4)
    assert torch.equal(run.prompt.attention_mask, whole.attention_mask)
    real = whole.attention_mask
    assert torch.equal(run.prompt.position_ids[:, real], whole.position_ids[:, real])
    for one, other in zip(run.cache.layers, whole.cache.layers, strict=True):
        keys, expected = (layer.keys.transpose(1, 2)[real] for layer in (one, other))
        torch.testing.assert_close(keys, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_glimpse_behind_what_was_appended_prunes_as_in_one_pass(model, inputs):
    run, prompt, starts = started(model, inputs, model.glimpse)
    run.take(model.glimpse)
    run.append(tail_of(prompt, starts))
    run.append_own()
    run.prune(DEPTH)
    run.advance(model.backbone.num_layers - 1)
    whole = prefill(model.backbone, inputs, model.glimpse, OPTIONS)
    assert 0 < int(whole.keep_mask.sum()) < len(whole.keep_mask)
    torch.testing.assert_close(run.scores, whole.importance_logits, atol=1e-4, rtol=1e-4)
    assert torch.equal(run.alive, whole.keep_mask)
    torch.testing.assert_close(model.backbone.logits(run.prompt.hidden[:, -1:]), whole.logits, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_copies_go_on_by_themselves(model, inputs):
    run, prompt, starts = started(model, inputs, NoPruner())
    block, before = tail_of(prompt, starts), run.prompt.hidden.clone()
    other = run.copy()
    other.append(tail_of(prompt, starts))
    assert torch.equal(run.prompt.hidden, before) and run.cache.layers[0].keys.shape[2] == before.shape[1]
    run.append(block)
    assert torch.equal(run.prompt.hidden, other.prompt.hidden)


@torch.no_grad()
def test_nothing_is_appended_where_layers_hold_different_tokens(model, inputs):
    run, prompt, starts = started(model, inputs, NoPruner())
    run.cache_masks.distinct.append(run.prompt.attention_mask)
    with pytest.raises(ValueError, match="different tokens"):
        run.append(tail_of(prompt, starts))
