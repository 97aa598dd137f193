"""What the extra terms of the joint stage pull to, against values made by hand; and what the stream gives them."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gp.embedded.cards.scene import SceneBuilder
from gp.embedded.making.growing.joint_forward import joint_forward
from gp.embedded.making.growing.joint_stream import JointStream
from gp.embedded.making.growing.plans import Size, tasks_of
from gp.embedded.making.growing.terms import (
    COUNT_MIDDLE,
    NUM_LINKS,
    PLACE_MIDDLE,
    PLACE_SCALE,
    carried_loss,
    chain_loss,
    words_loss,
)

IGNORE = -100
NAN = math.nan


def batch_of(kind, tokenizer):
    """The first batch that asks questions of a kind."""
    kinds = [task.scenes[0][1] for task in tasks_of("single")]
    stream = JointStream(SceneBuilder("val"), tokenizer, range(1), 3, ("single", Size(1, ((9, 12),), 3, 6)), 0)
    return stream.batch(kinds.index(kind))


def test_cards_of_a_colour_are_counted_in_reading_order(tokenizer):
    """The last link of the chain of the colour asked for has the answer, and is where half of the heads are to look."""
    batch = batch_of("count", tokenizer)
    answers = [int(tokenizer.decode(labels[labels != IGNORE][:1])) for labels in batch["labels"].flatten(0, 1)]
    assert batch["counts"].flatten().tolist() == answers and len(set(answers)) > 2
    for row, chain in enumerate(batch["chains"].tolist()):
        links = {mark: (color, ordinal) for mark, color, ordinal in chain if mark != IGNORE}
        assert list(links) == batch["marks"][row].nonzero().flatten().tolist()  # in reading order
        colors = [color for color, _ in links.values()]
        expected = [colors[: index + 1].count(color) for index, color in enumerate(colors)]
        assert [ordinal for _, ordinal in links.values()] == expected
        for question, answer in enumerate(batch["counts"][row].tolist()):
            (last,) = batch["parts"][row, question, 1].nonzero().flatten().tolist()
            assert links[last][1] == answer
            assert bool(batch["evidence"][row, question, last])


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


def test_a_chain_pulls_attention_to_the_card_before(grown, tokenizer):
    """A step down the gradient makes tokens that stand for cards look there, and tell their number."""
    batch = batch_of("count", tokenizer)
    model = copy.deepcopy(grown).requires_grad_(True)
    before = joint_forward(model, tokenizer, batch, 5).chain_loss
    before.backward()
    with torch.no_grad():
        norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= 0.05 * parameter.grad / norm
        assert joint_forward(model, tokenizer, batch, 5).chain_loss < before - 0.05


def test_a_chain_is_followed_link_by_link(grown):
    """With layers that do nothing, what a token tells is what it holds: the loss of the numbers is known by hand."""
    chains = torch.tensor([[[0, 5, 1], [1, 5, 2], [2, 7, 1], [3, 5, 3], [IGNORE] * 3]])
    is_visual = torch.tensor([False, True, True, True, True])
    hidden = torch.randn(1, 5, 192, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(1, 1, 5, 5, dtype=torch.bool).tril()
    cos, sin = torch.ones(1, 5, 32), torch.zeros(1, 5, 32)
    with torch.no_grad():
        loss = chain_loss(grown, 2, [hidden] * (NUM_LINKS + 1), (cos, sin), mask, is_visual, chains)
    directions = torch.randn(192, 4, generator=torch.Generator().manual_seed(6)) / 192**0.5
    logits = F.rms_norm(hidden[0, 1:], (192,)) @ directions
    # What each of the four cards is to look at in each link: columns of the sequence, whose first token is no card.
    looks = [[[0], [1], [0], [1, 2]], [[0], [0], [0], [2]], [[0], [0], [0], [0]]]
    expected = []
    for link in range(NUM_LINKS):
        numbers = F.cross_entropy(logits, torch.tensor([1, 2, 1, 3]).clamp(max=link + 2) - 1, reduction="none")
        attention = grown.model.language_model.layers[2 + link]
        queries, keys = (
            projection(attention.input_layernorm(hidden)).unflatten(-1, (-1, 32)).transpose(1, 2)
            for projection in (attention.self_attn.q_proj, attention.self_attn.k_proj)
        )
        scores = queries @ keys.repeat_interleave(3, dim=1).transpose(2, 3) / 32**0.5
        weights = scores.masked_fill(~mask, -math.inf).softmax(-1)[0, 3:, 1:]
        mass = torch.stack([weights[:, card, columns].sum(-1) for card, columns in enumerate(looks[link])], dim=1)
        looked = -mass.log().mean(0)
        finds = torch.tensor([columns != [0] for columns in looks[link]])
        groups = [looked[group].mean() for group in (finds, ~finds) if group.any()]
        expected.append(torch.stack(groups).mean())
        is_first, is_second, is_further = torch.tensor([True, False, True, False]), 1, 3
        if link == 0:  # the third one is told as "second or further" there
            groups = [numbers[is_first].mean(), numbers[~is_first].mean()]
        else:
            groups = [numbers[is_first].mean(), numbers[is_second], numbers[is_further]]
        expected.append(torch.stack(groups).mean())
    torch.testing.assert_close(loss, 2 * torch.stack(expected).mean(), rtol=1e-4, atol=1e-5)


def test_half_of_the_heads_look_at_either_word():
    words, starts = torch.tensor([[[1, 2]]]), torch.tensor([4])
    weights = torch.full((1, 4, 1, 9), 0.01)
    weights[:, :2, :, 5], weights[:, 2:, :, 6] = 0.5, 0.25
    assert words_loss(weights, words, starts).item() == pytest.approx(-(math.log(0.5) + math.log(0.25)) / 2)


def test_values_tell_columns_and_numbers():
    heads = nn.Linear(2, 2)
    nn.init.eye_(heads.weight)
    nn.init.zeros_(heads.bias)
    columns = torch.tensor([[[3.0, 11.0], [NAN, NAN]]])
    counts = torch.tensor([[IGNORE, 2]])
    values = torch.zeros(1, 2, 2, 3, 2)  # a question for a side and one for how many; two halves of three heads
    values[0, 0, :, :, 0] = ((columns[0, 0] - PLACE_MIDDLE) / PLACE_SCALE)[:, None]
    values[0, 1, 1, :, 1] = 2 - COUNT_MIDDLE
    right = carried_loss(values.flatten(2), heads, 6, columns, counts)
    assert right.item() == pytest.approx(0, abs=1e-9)
    swapped = carried_loss(values.flip(2).flatten(2), heads, 6, columns, counts)
    assert swapped.item() > 0.5
