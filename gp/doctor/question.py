"""The embedded model's answer to a question, through the call that users make."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from gp.doctor.report import OK, PROBLEM, Line

if TYPE_CHECKING:
    from PIL.Image import Image

    from gp.answer import Answer
    from gp.embedded.cards.questions import Question
    from gp.model import GlimpseModel

SCENE = ("color", 16, 16, 1)  # kind, rows and columns of visual tokens, seed: of held-out scans and photographs


def check() -> Iterator[Line]:
    """Yields question, answer and what was kept; a problem if it is wrong or nothing was pruned."""
    image, question = ask_about()
    start = time.monotonic()
    model = load()
    loaded = time.monotonic()
    answer = model.ask(image, question.text)
    yield judge(question, answer, loaded - start, time.monotonic() - loaded)


def ask_about() -> tuple[Image, Question]:
    """A scene that is painted anew, and a question whose answer is known."""
    from gp.embedded.cards.samples import draw_sample
    from gp.embedded.cards.scene import SceneBuilder

    sample = draw_sample(SceneBuilder("test"), *SCENE)
    return sample.images[0], sample.question


def load(**options: Any) -> GlimpseModel:
    """The embedded model with its trained glimpse, without a progress bar.

    Args:
        options: of `gp.from_pretrained`.
    """
    from transformers.utils import logging

    import gp

    logging.disable_progress_bar()
    return gp.from_pretrained("tiny", glimpse="tiny", **options)


def judge(question: Question, answer: Answer, load_s: float, ask_s: float) -> Line:
    """Compares an answer with what stands on the card."""
    kept = f"kept {answer.num_kept} of {answer.num_visual} visual tokens"
    said = f'"{question.text}" -> "{answer.text}", {kept}, loaded in {load_s:.1f} s, answered in {ask_s:.1f} s'
    if answer.text != question.answer:
        return Line("tiny", f'WRONG, expected "{question.answer}": {said}', PROBLEM)
    if answer.num_kept >= answer.num_visual:
        return Line("tiny", f"nothing was pruned: {said}", PROBLEM)
    return Line("tiny", said, OK)
