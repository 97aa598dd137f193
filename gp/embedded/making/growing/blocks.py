"""Blocks of a packed sequence: the tokens of one question, its labels, positions, and what may stand before the answer.

A later method puts a token of its own between prompt and answer (a glimpse), which predicts the answer's first token.
So that the base does not count positions, a vector that means nothing stands there in some blocks (it is to predict
the first answer token, too), and in others the answer's positions jump.
"""

from dataclasses import dataclass

import numpy as np

from gp.embedded.cards.questions import Question
from gp.embedded.making.growing.packing import Grid, image_positions, image_text

IGNORE = -100
NOTHING, INSERTED = -1, -2
INSERT_SHARE, GAP_SHARE, MAX_GAP = 0.3, 0.2, 2


@dataclass(frozen=True)
class Block:
    """One question behind a prefix.

    Args:
        ids: int64 [T], INSERTED where a vector is put in.
        labels: int64 [T], the token that each row is to predict, or IGNORE.
        positions: int64 [3, T], counted from the end of the prefix.
        last: index of the last prompt token.
        has_crop: whether it begins with an image of its own.
    """

    ids: np.ndarray
    labels: np.ndarray
    positions: np.ndarray
    last: int
    has_crop: bool = False


def question_ids(tokenizer, question: Question) -> tuple[list[int], list[int]]:
    """Token ids of what follows the images up to the answer, and of answer and end token."""
    turns = [*question.history, (question.text, question.answer)]
    text = "".join(f"{asked}<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>" + "\n<|im_start|>user\n"
                   for asked, answer in turns[:-1])  # fmt: skip
    text += f"{question.text}<|im_end|>\n<|im_start|>assistant\n"
    answer = tokenizer(f"{question.answer}<|im_end|>", add_special_tokens=False).input_ids
    return tokenizer(text, add_special_tokens=False).input_ids, answer


def build_block(
    tokenizer, question: Question, crop: Grid | None, is_asked: bool = True, rng: np.random.Generator | None = None
) -> Block:
    """The block of a question.

    Args:
        crop: size of an image of its own before the question.
        is_asked: whether the answer is a label.
        rng: of vectors and jumps before the answer; None: none.
    """
    prompt, answer = question_ids(tokenizer, question)
    image_ids, positions = [], np.zeros((3, 0), dtype=np.int64)
    if crop is not None:
        image_ids = tokenizer(image_text(crop), add_special_tokens=False).input_ids
        positions = image_positions(0, crop).numpy()
    draw = 1.0 if rng is None else float(rng.random())
    is_inserted, gap = draw < INSERT_SHARE, 0
    if rng is not None and INSERT_SHARE <= draw < INSERT_SHARE + GAP_SHARE:
        gap = int(rng.integers(1, MAX_GAP + 1))
    ids = [*image_ids, *prompt, *([INSERTED] if is_inserted else []), *answer]
    last = len(image_ids) + len(prompt) - 1
    labels = np.full(len(ids), IGNORE, dtype=np.int64)
    if is_asked:
        labels[last] = answer[0]
        labels[-len(answer) - 1 : -1] = answer
    start = int(positions.max(initial=-1)) + 1
    text = start + np.arange(len(ids) - len(image_ids))
    text[len(prompt) + int(is_inserted) :] += gap
    positions = np.concatenate([positions, np.broadcast_to(text, (3, len(text)))], axis=1)
    return Block(np.array(ids, dtype=np.int64), labels, positions, last, crop is not None)
