"""The page: pictures and a question on the left, the same conversation pruned and un-pruned on the right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from PIL.Image import Image

from gp.answer import Answer
from gp.cli import one_line
from gp.demo.answering import Reply, reply_to
from gp.demo.examples import Example
from gp.demo.figures import figures_table
from gp.images import read_images
from gp.model import GlimpseModel
from gp.painting import paint_heat, side_by_side
from gp.pruners import GlimpsePruner, NoPruner, OraclePruner, Zoom, method_names
from gp.types import PruneOptions

TITLE = "gp: which parts of a picture a question needs"
INTRO = """# Which parts of a picture does a question need?

A vision-language model cuts a picture into *visual tokens*. **gp** keeps those that the question needs and drops the others before
the answer is written. Ask, and see the answer with and without pruning, what was kept, and what both cost."""
DECIDES, EXACTLY = "the method decides", "an exact share"
THEME = gr.themes.Default(
    primary_hue="teal",
    font=["system-ui", "sans-serif"],  # the default ones would be fetched from elsewhere
    font_mono=["ui-monospace", "monospace"],
)
CSS = """
.figures table { width: 100%; }
.figures td:not(:first-child), .figures th:not(:first-child) { text-align: right; font-variant-numeric: tabular-nums; }
.examples img { object-fit: cover; }
"""
DECIDING = (GlimpsePruner.name, Zoom.name)

Exchanges = list[tuple[str, str, str]]  # question, answer pruned, answer un-pruned


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


def build(model: GlimpseModel, examples: Sequence[Example], max_new_tokens: int, machine: str) -> gr.Blocks:
    """Builds the page.

    Args:
        model: with a processor.
        examples: to begin with.
        max_new_tokens: longest answer.
        machine: where the model runs, in words.
    """
    methods = method_choices(model)

    def answer(
        gallery: Any, question: str, exchanges: Exchanges, method: str, how_much: str, threshold: float, budget: float
    ) -> Iterator[tuple]:
        try:
            request = Request(method, how_much, threshold, budget)
            yield from conversation(model, pictures_of(gallery), question, exchanges, request, max_new_tokens, machine)
        except (ValueError, OSError) as error:
            raise gr.Error(one_line(error), title="This cannot be asked", print_exception=False) from error

    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as page:
        gr.Markdown(INTRO)
        exchanges = gr.State([])
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                gallery = gr.Gallery(
                    label="Pictures", elem_id="pictures", interactive=True, sources=["upload", "clipboard"], height=300
                )
                question = gr.Textbox(label="Question", elem_id="question", lines=2, max_lines=5, submit_btn=False)
                with gr.Row():
                    ask = gr.Button("Ask", variant="primary", elem_id="ask")
                    anew = gr.Button("New conversation", elem_id="anew")
                method = gr.Dropdown(methods, value=methods[0], label="Method", elem_id="method")
                decides = methods[0] in DECIDING
                how_much = gr.Radio(
                    [DECIDES, EXACTLY], value=DECIDES, label="How much is kept", elem_id="how-much", visible=decides
                )
                threshold = gr.Slider(
                    0.05,
                    0.95,
                    value=model.options.threshold,
                    step=0.05,
                    label="Threshold: more important tokens are kept",
                    elem_id="threshold",
                    visible=decides,
                )
                budget = gr.Slider(
                    0.01, 1, value=0.1, step=0.01, label="Budget: share kept", elem_id="budget", visible=not decides
                )
            with gr.Column(scale=3, min_width=320):
                with gr.Row():
                    pruned = gr.Chatbot(label="Pruned", elem_id="pruned", height=260, feedback_options=None)
                    unpruned = gr.Chatbot(label="Un-pruned", elem_id="unpruned", height=260, feedback_options=None)
                table = gr.Markdown(elem_id="figures", elem_classes="figures")
                with gr.Row():
                    kept = gr.Image(
                        label="Kept: dropped tokens are dark, crops framed", elem_id="kept", **_SHOWN
                    )
                    heat = gr.Image(label="Importance: dark is low, bright is high", elem_id="heat", **_SHOWN)
        gr.Examples(
            [[[*one.pictures], one.question] for one in examples],
            inputs=[gallery, question],
            label="Examples: scenes that the embedded model was not trained on",
            elem_id="examples",
        )

        shown = [pruned, unpruned, table, kept, heat, exchanges]
        inputs = [gallery, question, exchanges, method, how_much, threshold, budget]
        asked = {"fn": answer, "inputs": inputs, "outputs": shown, "concurrency_limit": 1, "concurrency_id": "model"}
        gr.on([ask.click, question.submit], **asked, show_progress="minimal", api_name="ask")
        gr.on([anew.click, gallery.change], _nothing, None, shown, api_visibility="private", show_progress="hidden")
        gr.on(
            [method.change, how_much.change],
            _visible,
            [method, how_much],
            [how_much, threshold, budget],
            api_visibility="private",
            show_progress="hidden",
        )
    return page


def conversation(
    model: GlimpseModel,
    pictures: Sequence[Image],
    question: str,
    exchanges: Exchanges,
    request: Request,
    max_new_tokens: int,
    machine: str,
) -> Iterator[tuple]:
    """Answers pruned, then un-pruned, one after the other so that each is timed alone; yields what is shown.

    Raises:
        ValueError: no picture, no question, or what the method refuses.
    """
    if not pictures:
        raise ValueError("there is no picture: add one, or take an example")
    if not question.strip():
        raise ValueError("there is no question")
    pruner = model.find_pruner(request.method)
    asked, left, right = [one[0] for one in exchanges], [one[1] for one in exchanges], [one[2] for one in exchanges]
    common = (question.strip(), max_new_tokens)
    first = second = Reply("")
    for first in _replies(model, pictures, asked, left, common, pruner, request.options(model.options)):
        yield _shown(exchanges, common[0], first, second, machine)
    for second in _replies(model, pictures, asked, right, common, NoPruner(), model.options):
        yield _shown(exchanges, common[0], first, second, machine)
    yield (*_shown(exchanges, common[0], first, second, machine)[:-1], [*exchanges, (common[0], first.text, second.text)])


def pictures_of(gallery: Sequence[tuple[str, str | None]] | None) -> list[Image]:
    """The gallery's pictures, upright and RGB.

    Raises:
        ValueError: a file that is no picture.
    """
    return read_images([path for path, _ in gallery or ()])


def _replies(model, pictures, asked, answered, common, pruner, options) -> Iterator[Reply]:
    question, max_new_tokens = common
    history = list(zip(asked, answered, strict=True))
    return reply_to(model, pictures, history, question, pruner, options, max_new_tokens)


def _shown(exchanges: Exchanges, question: str, first: Reply, second: Reply, machine: str) -> tuple:
    """Values of all outputs."""
    table = figures_table(first.figures, second.figures, machine) if first.figures else ""
    kept = first.answer.overlay() if first.answer else None
    sides = [(one[0], one[1]) for one in exchanges], [(one[0], one[2]) for one in exchanges]
    chats = [_messages([*side, (question, reply.text)]) for side, reply in zip(sides, (first, second), strict=True)]
    return (*chats, table, kept, _heat_map(first.answer, first), exchanges)


def _heat_map(answer: Answer | None, reply: Reply) -> Image | None:
    if answer is None or not reply.heat:
        return None
    return side_by_side([paint_heat(*one) for one in zip(answer.images, reply.heat, answer.frames, strict=True)])


def _messages(exchanges: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    return [
        {"role": role, "content": text}
        for exchange in exchanges
        for role, text in zip(("user", "assistant"), exchange, strict=True)
        if text or role == "user"
    ]


def _nothing() -> tuple:
    return [], [], "", None, None, []


def _visible(method: str, how_much: str) -> tuple:
    """Which controls are of use: the choice, the threshold, the budget."""
    can_decide = method in DECIDING
    decides = can_decide and how_much == DECIDES
    return gr.update(visible=can_decide), gr.update(visible=decides), gr.update(visible=not decides)


_SHOWN: dict[str, Any] = {"interactive": False, "format": "png", "buttons": ["download", "fullscreen"]}
