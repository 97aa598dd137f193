"""Questions about scenes, each with its answer and the cards that an answer needs.

color        "what number is on the red card ?"                              4 2
conjunction  "what number is on the red oval ?"                              4 2
turns        the same about a second card, after a first question and its answer
first        "what number is on the red card in the first picture ?"         of two pictures
second       "what number is on the red card in the second picture ?"
color_of     "which color is the card that shows 4 2 ?"                      red
side         "is the red card left or right of the blue card ?"              left
count        "how many red cards are there ?"                                1 to 4; evidence: all of them
exists       "is there a red oval ?"                                         yes, no; evidence: the red cards
"""

from dataclasses import dataclass

import numpy as np

from gp.embedded.cards.looks import SHAPES
from gp.embedded.cards.scene import Card, Scene

READ = (
    "what number is on the {look} ?",
    "read the number on the {look} .",
    "which two digits are on the {look} ?",
    "the {look} shows which number ?",
)
READ_NEXT = (*READ, "and on the {look} ?", "and which number is on the {look} ?")
READ_IN_PICTURE = (
    "what number is on the {look} in the {place} picture ?",
    "read the number on the {look} in the {place} picture .",
    "in the {place} picture , which two digits are on the {look} ?",
    "the {look} in the {place} picture shows which number ?",
)
COLOR_OF = (
    "which color is the card that shows {number} ?",
    "what color is the card with the number {number} ?",
    "the number {number} is on a card of which color ?",
)
SIDE = (
    "is the {one} card left or right of the {other} card ?",
    "is the {one} card to the left or to the right of the {other} card ?",
    "on which side of the {other} card is the {one} card , left or right ?",
)
COUNT = ("how many {color} cards are there ?", "count the {color} cards .", "how many cards are {color} ?")
EXISTS = ("is there {look} ?", "do you see {look} ?", "does the picture show {look} ?")
PLACES = ("first", "second")
SIDES = ("left", "right")
YES_NO = ("yes", "no")
MAX_COUNT = 4
MIN_APART_PX = 42  # between the middles of two cards, for left and right

LAYOUTS_OF_KIND = {
    "color": "color",
    "conjunction": "conjunction",
    "turns": "color",
    "first": "color",
    "second": "color",
    "color_of": "color",
    "side": "color",
    "count": "mixed",
    "exists": "mixed",
}
KINDS = tuple(LAYOUTS_OF_KIND)


@dataclass(frozen=True)
class Question:
    """A question.

    Args:
        kind: of KINDS.
        answer: words apart by spaces.
        evidence: cards that the answer needs, one at least.
        asked: colours, shapes and digits that it names, by their roles: colour before shape, left before right digit,
            and the card whose side is asked for before the other one.
        picture: which image they are in, from 0.
        history: questions before it and their answers.
    """

    kind: str
    text: str
    answer: str
    evidence: tuple[Card, ...]
    asked: tuple[str, ...]
    picture: int = 0
    history: tuple[tuple[str, str], ...] = ()


def ask(rng: np.random.Generator, scene: Scene, kind: str) -> Question:
    """A random question about one picture; `kind` is neither first nor second, and the scene has its layout."""
    if kind in ("color", "conjunction"):
        return ask_to_read(rng, _pick(rng, readable(scene)), scene)
    return _ASK[kind](rng, scene)


def readable(scene: Scene) -> list[Card]:
    """Cards whose number can be asked for: the look that the question names is on no other card."""
    if scene.layout == "conjunction":  # and the shape is on another card: neither colour nor shape alone finds it
        shapes = [card.shape for card in scene.cards]
        return [card for card in scene.cards if shapes.count(card.shape) > 1]
    colors = [card.color for card in scene.cards]
    return [card for card in scene.cards if colors.count(card.color) == 1]


def ask_to_read(rng: np.random.Generator, card: Card, scene: Scene) -> Question:
    """A question for the number of a card of `readable(scene)`."""
    kind = "conjunction" if scene.layout == "conjunction" else "color"
    return Question(kind, _pick(rng, READ).format(look=_look(card, scene)), card.number, (card,), _named(card, scene))


def ask_in_picture(rng: np.random.Generator, scenes: tuple[Scene, Scene], picture: int) -> Question:
    """A question for a number in the first (0) or second (1) of two pictures."""
    scene = scenes[picture]
    card = _pick(rng, readable(scene))
    text = _pick(rng, READ_IN_PICTURE).format(look=_look(card, scene), place=PLACES[picture])
    return Question(PLACES[picture], text, card.number, (card,), _named(card, scene), picture)


def _ask_turns(rng: np.random.Generator, scene: Scene) -> Question:
    cards = readable(scene)
    before, card = (cards[i] for i in rng.permutation(len(cards))[:2])
    first = ask_to_read(rng, before, scene)
    text = _pick(rng, READ_NEXT).format(look=_look(card, scene))
    return Question("turns", text, card.number, (card,), _named(card, scene), history=((first.text, first.answer),))


def _ask_color_of(rng: np.random.Generator, scene: Scene) -> Question:
    card = _pick(rng, scene.cards)
    return Question(
        "color_of", _pick(rng, COLOR_OF).format(number=card.number), card.color, (card,), tuple(card.number.split())
    )


def _ask_side(rng: np.random.Generator, scene: Scene) -> Question:
    pairs = [(a, b) for a in scene.cards for b in scene.cards if abs(_middle(a) - _middle(b)) >= MIN_APART_PX]
    if not pairs:  # all cards in one column: the pair that is farthest apart
        ordered = sorted(scene.cards, key=_middle)
        pairs = [(ordered[0], ordered[-1])]
    one, other = _pick(rng, pairs)
    answer = SIDES[int(_middle(one) > _middle(other))]
    return Question(
        "side",
        _pick(rng, SIDE).format(one=one.color, other=other.color),
        answer,
        (one, other),
        (one.color, other.color),
    )


def _ask_count(rng: np.random.Generator, scene: Scene) -> Question:
    by_color = _cards_by_color(scene)
    count = _pick(rng, sorted({len(cards) for cards in by_color.values()}))  # each number is as likely as the others
    color = _pick(rng, [color for color, cards in by_color.items() if len(cards) == count])
    return Question("count", _pick(rng, COUNT).format(color=color), str(count), by_color[color], (color,))


def _ask_exists(rng: np.random.Generator, scene: Scene) -> Question:
    by_color = _cards_by_color(scene)
    color = _pick(rng, list(by_color))
    there = {card.shape for card in by_color[color]}
    is_yes = rng.random() < 0.5
    shape = _pick(rng, [shape for shape in SHAPES if (shape in there) == is_yes] or list(SHAPES))
    article = "an" if color[0] in "aeiou" else "a"
    text = _pick(rng, EXISTS).format(look=f"{article} {color} {shape}")
    return Question("exists", text, YES_NO[int(shape not in there)], by_color[color], (color, shape))


def _cards_by_color(scene: Scene) -> dict[str, tuple[Card, ...]]:
    colors = sorted({card.color for card in scene.cards})
    return {color: tuple(card for card in scene.cards if card.color == color) for color in colors}


def _named(card: Card, scene: Scene) -> tuple[str, ...]:
    return (card.color, card.shape) if scene.layout == "conjunction" else (card.color,)


def _look(card: Card, scene: Scene) -> str:
    return f"{card.color} {card.shape if scene.layout == 'conjunction' else 'card'}"


def _middle(card: Card) -> float:
    return (card.box_xyxy_px[0] + card.box_xyxy_px[2]) / 2


def _pick(rng: np.random.Generator, options):
    return options[int(rng.integers(len(options)))]


_ASK = {
    "turns": _ask_turns,
    "color_of": _ask_color_of,
    "side": _ask_side,
    "count": _ask_count,
    "exists": _ask_exists,
}
