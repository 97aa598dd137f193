"""What the extra terms of the joint stage pull to, against values made by hand; and what the stream gives them."""

import math

import pytest
import torch
from torch import nn

from gp.embedded.cards.scene import SceneBuilder
from gp.embedded.making.growing.joint_stage import (
    PLACE_MIDDLE,
    PLACE_SCALE,
    SHARE_MIDDLE,
    SHARE_SCALE,
    carried_loss,
    tally_loss,
    words_loss,
)
from gp.embedded.making.growing.joint_stream import SINK, JointStream
from gp.embedded.making.growing.plans import Size, tasks_of

IGNORE = -100
NAN = math.nan


def batch_of(kind, tokenizer):
    """The first batch that asks questions of a kind."""
    kinds = [task.scenes[0][1] for task in tasks_of("single")]
    stream = JointStream(SceneBuilder("val"), tokenizer, range(1), 3, ("single", Size(1, ((9, 12),), 3, 6)), 0)
    return stream.batch(kinds.index(kind))


def test_every_counted_card_has_one_token(tokenizer):
    batch = batch_of("count", tokenizer)
    answers = [int(tokenizer.decode(labels[labels != IGNORE][:1])) for labels in batch["labels"].flatten(0, 1)]
    assert batch["counts"].flatten().tolist() == answers
    tallies = batch["tallies"].flatten(0, 1)
    assert (tallies > 0).sum(-1).tolist() == answers
    torch.testing.assert_close(tallies.sum(-1), torch.tensor([n / (n + SINK) for n in answers]))
    is_marked = batch["marks"].repeat_interleave(batch["ids"].shape[1], dim=0)
    is_evidence = batch["evidence"].flatten(0, 1)
    assert bool((is_marked & is_evidence)[tallies > 0].all())


@pytest.mark.parametrize("kind", ["color_of", "side"])
def test_words_are_where_they_stand(kind, tokenizer):
    batch = batch_of(kind, tokenizer)
    seen = set()
    for ids, words, labels in zip(*(batch[key].flatten(0, 1) for key in ("ids", "words", "labels")), strict=True):
        first, other = tokenizer.convert_ids_to_tokens(ids[words].tolist())
        text = tokenizer.decode(ids[ids >= 0])
        if kind == "color_of":
            assert words[1] == words[0] + 1 and f"{first} {other}" in text
        else:
            about, than = text.partition(" of the ")[::2]
            asked = than.split()[4] if about.endswith("side") else about.split()[2]
            assert first == asked != other and f"{other} card" in text
        assert int(words.max()) < int((labels != IGNORE).nonzero()[0])
        seen.add((first, other))
    assert len(seen) > 3


def test_other_kinds_name_no_two_words(tokenizer):
    batch = batch_of("exists", tokenizer)
    assert bool((batch["words"] == IGNORE).all()) and bool((batch["counts"] == IGNORE).all())
    weights = torch.full((3, 6, 6, 40), 1 / 40)
    assert words_loss(weights, batch["words"], torch.zeros(6, dtype=torch.long)) == 0


def test_attention_that_counts_is_split_by_the_tally_in_every_head():
    is_visual = torch.tensor([False, True, True, True])
    tallies = torch.tensor([[[0.25, 0.25, 0.0]]])  # two cards of three tokens
    split = torch.tensor([0.5, 0.25, 0.25, 0.0]).expand(1, 2, 1, 4)
    entropy = -(0.5 * math.log(0.5) + 2 * 0.25 * math.log(0.25))
    assert tally_loss(split, tallies, is_visual).item() == pytest.approx(entropy)
    apart = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 0.5, 0.5, 0.0]])[None, :, None]  # the same mean
    assert tally_loss(apart, tallies, is_visual).item() > 2 * entropy


def test_half_of_the_heads_look_at_either_word():
    words, starts = torch.tensor([[[1, 2]]]), torch.tensor([4])
    weights = torch.full((1, 4, 1, 9), 0.01)
    weights[:, :2, :, 5], weights[:, 2:, :, 6] = 0.5, 0.25
    assert words_loss(weights, words, starts).item() == pytest.approx(-(math.log(0.5) + math.log(0.25)) / 2)


def test_values_tell_columns_and_the_share_of_the_sink():
    heads = nn.Linear(2, 2)
    nn.init.eye_(heads.weight)
    nn.init.zeros_(heads.bias)
    columns = torch.tensor([[[3.0, 11.0], [NAN, NAN]]])
    counts = torch.tensor([[IGNORE, 2]])
    values = torch.zeros(1, 2, 2, 3, 2)  # a question for a side and one for how many; two halves of three heads
    values[0, 0, :, :, 0] = ((columns[0, 0] - PLACE_MIDDLE) / PLACE_SCALE)[:, None]
    values[0, 1, 1, :, 1] = SHARE_SCALE * (SINK / (SINK + 2) - SHARE_MIDDLE)
    right = carried_loss(values.flatten(2), heads, 6, columns, counts)
    assert right.item() == pytest.approx(0, abs=1e-9)
    swapped = carried_loss(values.flip(2).flatten(2), heads, 6, columns, counts)
    assert swapped.item() > 0.5
