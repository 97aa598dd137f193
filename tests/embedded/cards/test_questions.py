"""Answers and evidence, worked out anew from the words of each question and the cards of its scene."""

import numpy as np
import pytest

from gp.embedded.cards.looks import COLORS_RGB, SHAPES
from gp.embedded.cards.questions import KINDS, LAYOUTS_OF_KIND, PLACES, ask, ask_in_picture, readable
from gp.embedded.cards.scene import SceneBuilder

SEEDS = range(40)


def middle(card):
    return (card.box_xyxy_px[0] + card.box_xyxy_px[2]) / 2


def named(text, words):
    """Those of some words that are in a text, in its order."""
    return [word for word in text.split() if word in words]


def found(text, cards):
    """Cards with the colour and, if the text names one, the shape of a question."""
    (color,), shapes = named(text, COLORS_RGB), named(text, SHAPES)
    return [card for card in cards if card.color == color and (not shapes or card.shape == shapes[0])]


def expected(kind, text, cards):
    """Answer and evidence of a question about cards."""
    if kind in ("color", "conjunction", "turns", *PLACES):
        (card,) = found(text, cards)
        return card.number, {card}
    if kind == "color_of":
        (card,) = [card for card in cards if card.number in text]
        return card.color, {card}
    if kind == "side":
        names = named(text, COLORS_RGB)
        one, other = names if not text.startswith("on which") else reversed(names)
        (first,), (second,) = found(one, cards), found(other, cards)
        return ("left" if middle(first) < middle(second) else "right"), {first, second}
    (color,) = named(text, COLORS_RGB)
    of_color = {card for card in cards if card.color == color}
    return (str(len(of_color)) if kind == "count" else "yes" if found(text, cards) else "no"), of_color


@pytest.mark.parametrize("kind", KINDS)
def test_answers_and_evidence_follow_from_the_scene(kind):
    builder = SceneBuilder("val")
    texts, answers = set(), set()
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        scenes = [builder.build(seed + offset, LAYOUTS_OF_KIND[kind], 9, 12) for offset in (0, 1000)]
        if kind in PLACES:
            question = ask_in_picture(rng, tuple(scenes), PLACES.index(kind))
        else:
            question = ask(rng, scenes[0], kind)
        answer, evidence = expected(kind, question.text, scenes[question.picture].cards)
        assert question.kind == kind
        assert question.answer == answer, question.text
        assert set(question.evidence) == evidence and evidence
        texts.add(question.text)
        answers.add(question.answer)
    assert len(texts) > 15
    closed = {"side": {"left", "right"}, "exists": {"yes", "no"}}
    assert answers == closed.get(kind, answers) and len(answers) >= 2


def test_a_second_turn_follows_a_question_about_another_card():
    builder = SceneBuilder("val")
    for seed in SEEDS:
        scene = builder.build(seed, "color", 8, 8)
        question = ask(np.random.default_rng(seed), scene, "turns")
        ((text, answer),) = question.history
        (before,) = found(text, scene.cards)
        assert answer == before.number and before not in question.evidence


def test_no_attribute_alone_finds_a_card_of_a_conjunction():
    for seed in SEEDS:
        scene = SceneBuilder("val").build(seed, "conjunction", 8, 8)
        assert readable(scene)
        for card in readable(scene):
            others = [other for other in scene.cards if other is not card]
            assert any(other.color == card.color for other in others)
            assert any(other.shape == card.shape for other in others)
            assert not any((other.color, other.shape) == (card.color, card.shape) for other in others)


def test_no_two_cards_show_one_number():
    for seed in SEEDS:
        cards = SceneBuilder("val").build(seed, "mixed", 8, 8).cards
        assert len({card.number for card in cards}) == len(cards)
