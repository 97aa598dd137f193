"""A turn of the conversation: what was chosen, both answers one after the other, and what is shown of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from PIL.Image import Image

from gp.demo.answering import Reply, reply_to
from gp.demo.figures import figures_table
from gp.images import read_images
from gp.model import GlimpseModel
from gp.painting import paint_heat, side_by_side
from gp.pruners import GlimpsePruner, NoPruner, OraclePruner, Pruner, Zoom, method_names
from gp.types import PruneOptions

DECIDES, EXACTLY = "the method decides", "an exact share"
DECIDING = (GlimpsePruner.name, Zoom.name)

Exchanges = list[tuple[str, str, str]]  # question, answer pruned, answer un-pruned
# conversation pruned and un-pruned, table, what was kept, importance, and the conversation so far
Shown = tuple[list[dict[str, str]], list[dict[str, str]], str, Image | None, Image | None, Exchanges]


@dataclass(frozen=True)
class Request:
    """What was chosen on the page: method, how much is kept (`DECIDES` or `EXACTLY`), and the two sliders."""

    method: str
    how_much: str
    threshold: float
    budget: float

    def options(self, defaults: PruneOptions) -> PruneOptions:
        """The method's options; a method that only ranks always has a budget."""
        if self.method in DECIDING and self.how_much == DECIDES:
            return defaults.but(threshold=self.threshold)
        return defaults.but(fixed_keep_ratio=self.budget)


def method_choices(model: GlimpseModel) -> list[str]:
    """Methods that the page offers: without evidence boxes there is no oracle, un-pruned is beside them anyway."""
    left_out = {NoPruner.name, OraclePruner.name} | (set() if model.glimpse is not None else set(DECIDING))
    return [name for name in method_names() if name not in left_out]


def conversation(
    model: GlimpseModel,
    pictures: Sequence[Image],
    question: str,
    exchanges: Exchanges,
    request: Request,
    max_new_tokens: int,
    machine: str,
) -> Iterator[Shown]:
    """Answers pruned, then un-pruned, one after the other so that each is timed alone; yields what is shown.

    Raises:
        ValueError: no picture, no question, or what the method refuses.
    """
    if not pictures:
        raise ValueError("there is no picture: add one, or take an example")
    if not question.strip():
        raise ValueError("there is no question")
    pruner, options = model.find_pruner(request.method), request.options(model.options)
    question = question.strip()

    def ask(column: int, pruner: Pruner, options: PruneOptions) -> Iterator[Reply]:
        history = [(one[0], one[column]) for one in exchanges]
        return reply_to(model, pictures, history, question, pruner, options, max_new_tokens)

    first = second = Reply("")
    for first in ask(1, pruner, options):
        yield _shown(exchanges, question, first, second, machine)
    for second in ask(2, NoPruner(), model.options):
        yield _shown(exchanges, question, first, second, machine)
    left, right, table, kept, heat, _ = _shown(exchanges, question, first, second, machine)
    yield left, right, table, kept, heat, [*exchanges, (question, first.text, second.text)]


def pictures_of(gallery: Sequence[tuple[str, str | None]] | None) -> list[Image]:
    """The gallery's pictures, upright and RGB.

    Raises:
        ValueError: a file that is no picture.
    """
    return read_images([path for path, _ in gallery or ()])


def _shown(exchanges: Exchanges, question: str, first: Reply, second: Reply, machine: str) -> Shown:
    """Values of all outputs."""
    table = figures_table(first.figures, second.figures, machine) if first.figures else ""
    kept = first.answer.overlay() if first.answer else None
    left, right = ([(one[0], one[k]) for one in exchanges] for k in (1, 2))
    chats = _messages([*left, (question, first.text)]), _messages([*right, (question, second.text)])
    return (*chats, table, kept, _heat_map(first), exchanges)


def _heat_map(reply: Reply) -> Image | None:
    if reply.answer is None or not reply.heat:
        return None
    parts = zip(reply.answer.images, reply.heat, reply.answer.frames, strict=True)
    return side_by_side([paint_heat(*part) for part in parts])


def _messages(exchanges: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    return [
        {"role": role, "content": text}
        for exchange in exchanges
        for role, text in zip(("user", "assistant"), exchange, strict=True)
        if text or role == "user"
    ]
