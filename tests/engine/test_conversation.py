"""A conversation's turns equal prefills of their whole prompts, and run no more than is new."""

from __future__ import annotations

import pytest
import torch

from gp.engine.conversation import Conversation
from gp.engine.prefill import prefill
from gp.pruners import RankingPruner
from gp.types import PruneOptions
from tests.support.glimpses import micro_glimpse
from tests.support.tiny_models import FAMILIES, Family

pytestmark = pytest.mark.core
PRUNE_LAYER = 1


@pytest.fixture(scope="module", params=FAMILIES)
def family(request) -> Family:
    return FAMILIES[request.param]


@pytest.fixture(scope="module")
def model(family):
    return micro_glimpse(family.make(), PRUNE_LAYER)


@pytest.fixture(scope="module")
def turns(family) -> list[dict[str, torch.Tensor]]:
    """A prompt with an image; more text; other text from some token on; a second image behind; more text."""
    whole = family.inputs(family.fit([([(4, 6), (6, 4)], 21)]))
    ids = whole["input_ids"][0]
    visual = (ids == ids.mode().values).nonzero().flatten()
    after_first = int(visual[23 if "image_grid_thw" in whole else 24]) + 1
    one = {k: v for k, v in whole.items() if k in ("pixel_values", "image_grid_thw")}
    first = {
        k: v[:1] if k == "image_grid_thw" or "image_grid_thw" not in whole else v[: 4 * 24] for k, v in one.items()
    }
    between = torch.tensor([7, 8, 9, 10, 11, 12])
    head = torch.cat([ids[: int(visual[0])], ids[visual[:24] if "image_grid_thw" in whole else visual[:25]]])
    frame = torch.tensor([61]) if "image_grid_thw" in whole else torch.tensor([], dtype=torch.long)
    head, second = torch.cat([head, frame]), ids[after_first + len(frame) :]
    made = [
        (torch.cat([head, between[:3]]), first),
        (torch.cat([head, between]), first),
        (torch.cat([head, between[:4], between[:2]]), first),
        (torch.cat([head, between[:4], between[:2], second[:-8]]), one),
        (torch.cat([head, between[:4], between[:2], second]), one),
    ]
    return [{"input_ids": row[None], "attention_mask": torch.ones_like(row)[None], **images} for row, images in made]


def same(one, other) -> None:
    assert torch.equal(one.keep_mask, other.keep_mask)
    torch.testing.assert_close(one.logits, other.logits, atol=1e-4, rtol=1e-4)
    assert torch.equal(one.next_position, other.next_position)
    assert torch.equal(one.layers_run, other.layers_run) and torch.equal(one.layers_cached, other.layers_cached)
    for mine, theirs in zip(one.cache.layers, other.cache.layers, strict=True):
        torch.testing.assert_close(mine.keys, theirs.keys, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "name", ["glimpse", "none", "fastv", "pyramid_drop", "visionzip", "divprune", "vscan", "random"]
)
def test_every_turn_equals_a_prefill_of_its_prompt(model, turns, name):
    pruner = model.find_pruner(name)
    options = PruneOptions(fixed_keep_ratio=0.7) if isinstance(pruner, RankingPruner) else PruneOptions()
    talk = Conversation(model.backbone, pruner)
    for inputs in turns:
        same(talk.turn(inputs, options), prefill(model.backbone, inputs, pruner, options))


def test_only_what_is_new_runs(model, turns, monkeypatch):
    talk, seen, tokens = Conversation(model.backbone, model.glimpse), [], []
    encode, layer = model.backbone.encode_images, model.backbone.layer

    def count_images(inputs, *rest):
        seen.append(len(model.backbone.image_sizes(inputs)))
        return encode(inputs, *rest)

    def count_tokens(index, hidden, *rest):
        tokens.append((index, hidden.shape[1]))
        return layer(index, hidden, *rest)

    monkeypatch.setattr(model.backbone, "encode_images", count_images)
    monkeypatch.setattr(model.backbone, "layer", count_tokens)
    new = []
    for inputs in turns:
        tokens.clear()
        talk.turn(inputs)
        new.append(sum(count for index, count in tokens if index == 0))
    lengths = [inputs["input_ids"].shape[1] for inputs in turns]
    assert seen == [1, 1]  # each image once
    glimpse = 1
    assert new[0] == lengths[0] + glimpse
    assert new[1] == lengths[1] - lengths[0] + glimpse
    assert new[2] == 2 + glimpse  # the last two tokens differ from those of the turn before
    assert new[3] == lengths[3] - lengths[2] + glimpse
    assert new[4] == lengths[4] - lengths[3] + glimpse


def test_another_image_begins_anew(model, turns):
    talk = Conversation(model.backbone, model.glimpse)
    talk.turn(turns[1])
    other = {**turns[1], "pixel_values": turns[1]["pixel_values"].flip(0)}
    same(talk.turn(other), prefill(model.backbone, other, model.glimpse))
    text = {k: turns[0][k][:, :3] for k in ("input_ids", "attention_mask")}
    done = talk.turn(text)
    torch.testing.assert_close(done.logits, prefill(model.backbone, text, model.glimpse).logits, atol=1e-4, rtol=1e-4)
    same(talk.turn(turns[0]), prefill(model.backbone, turns[0], model.glimpse))


def test_refusals(model, turns):
    two = {k: torch.cat([v, v]) for k, v in turns[0].items()}
    with pytest.raises(ValueError, match="one prompt, got 2 rows"):
        Conversation(model.backbone, model.glimpse).turn(two)
    with pytest.raises(ValueError, match="only ranks tokens"):
        Conversation(model.backbone, model.find_pruner("fastv")).turn(turns[0])
