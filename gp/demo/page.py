"""The page: pictures and a question on the left, the same conversation pruned and un-pruned on the right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr

from gp.cli import one_line
from gp.demo.examples import Example
from gp.demo.turns import DECIDES, DECIDING, EXACTLY, Exchanges, Request, conversation, method_choices, pictures_of
from gp.model import GlimpseModel

TITLE = "gp: which parts of a picture a question needs"
INTRO = """# Which parts of a picture does a question need?

A vision-language model cuts a picture into *visual tokens*. **gp** keeps those that the question needs and drops the
others before the answer is written. Ask, and see the answer with and without pruning, what was kept, and both prices.
"""
KEPT = "The pictures; visual tokens that were dropped are dark, crops that were seen again are framed"
HEAT = "Heat map of how important the method found each visual token, over the grey pictures"
THEME = gr.themes.Default(
    primary_hue="teal",
    font=["system-ui", "sans-serif"],  # the default ones would be fetched from elsewhere
    font_mono=["ui-monospace", "monospace"],
).set(  # dark enough below white letters
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_hover="*primary_800",
    button_primary_background_fill_dark="*primary_700",
    button_primary_background_fill_hover_dark="*primary_800",
    body_text_color_subdued="*neutral_600",  # dark enough on white, and bright enough on black
    body_text_color_subdued_dark="*neutral_300",
)
CSS = """
.or, .built-with, .min_value, .max_value { color: var(--body-text-color-subdued) !important; opacity: 1 !important; }
.figures table { width: 100%; }
#kept .image-frame, #heat .image-frame { width: 100%; }  /* else 0 in a narrow window */
.figures td, .figures th { padding: 6px 8px !important; word-break: normal !important; }
.figures td:not(:first-child), .figures th {
  text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums;
}
"""
# What readers of screens need, wherever gradio draws something anew: the place for pictures is called as it says there;
# an empty one is an image; of a button inside a button only the inner one is a button.
NAMES = """() => {
  const each = (selector, change) => document.querySelectorAll(selector).forEach(change);
  const name = () => {
    each(".upload-container[aria-label]:not(.icon-mode)", one => one.removeAttribute("aria-label"));
    each(".empty[aria-label]:not([role])", one => one.setAttribute("role", "img"));
    each("button button.upload-container", inner => {
      const outer = inner.parentElement.closest("button");
      inner.setAttribute("aria-label", outer.title);
      outer.setAttribute("role", "group");
      outer.tabIndex = -1;
    });
  };
  new MutationObserver(name).observe(document.body, {childList: true, subtree: true});
  name();
}"""
LOOK: dict[str, Any] = {"theme": THEME, "css": CSS, "js": NAMES}  # of `Blocks.launch`
_CHAT: dict[str, Any] = {"height": 260, "feedback_options": None, "buttons": []}
_SHOWN: dict[str, Any] = {"interactive": False, "height": 360, "format": "png", "buttons": ["download", "fullscreen"]}


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
                    label="Pictures",
                    elem_id="pictures",
                    interactive=True,
                    sources=["upload", "clipboard"],
                    file_types=["image"],
                    columns=2,
                    fit_columns=False,
                    object_fit="contain",
                    height=300,
                )
                question = gr.Textbox(label="Question", elem_id="question", lines=2, max_lines=5, submit_btn=False)
                with gr.Row():
                    ask = gr.Button("Ask", variant="primary", elem_id="ask")
                    anew = gr.Button("New conversation", elem_id="anew")
                method = gr.Radio(methods, value=methods[0], label="Method", elem_id="method")
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
                gr.Examples(
                    [[[*one.pictures], one.question] for one in examples],
                    inputs=[gallery, question],
                    label="Examples, from the test split of the embedded models",
                    elem_id="examples",
                )
            with gr.Column(scale=3, min_width=320):
                with gr.Row():
                    pruned = gr.Chatbot(label="Pruned", elem_id="pruned", **_CHAT)
                    unpruned = gr.Chatbot(label="Un-pruned", elem_id="unpruned", **_CHAT)
                table = gr.Markdown(elem_id="figures", elem_classes="figures")
                with gr.Row():
                    kept = gr.Image(
                        label="Kept: dropped tokens are dark, crops framed", elem_id="kept", alt_text=KEPT, **_SHOWN
                    )
                    heat = gr.Image(
                        label="Importance: dark is low, bright is high", elem_id="heat", alt_text=HEAT, **_SHOWN
                    )
        shown = [pruned, unpruned, table, kept, heat, exchanges]
        inputs = [gallery, question, exchanges, method, how_much, threshold, budget]
        asked = {"fn": answer, "inputs": inputs, "outputs": shown, "concurrency_limit": 1, "concurrency_id": "model"}
        gr.on([ask.click, question.submit], **asked, show_progress="minimal", scroll_to_output=True, api_name="ask")
        gr.on(
            [anew.click, gallery.change, pruned.clear, unpruned.clear],
            _nothing,
            None,
            shown,
            api_visibility="private",
            show_progress="hidden",
        )
        gr.on(
            [method.change, how_much.change],
            _visible,
            [method, how_much],
            [how_much, threshold, budget],
            api_visibility="private",
            show_progress="hidden",
        )
    return page


def _nothing() -> tuple:
    return [], [], "", None, None, []


def _visible(method: str, how_much: str) -> tuple:
    """Which controls are of use: the choice, the threshold, the budget."""
    can_decide = method in DECIDING
    decides = can_decide and how_much == DECIDES
    return gr.update(visible=can_decide), gr.update(visible=decides), gr.update(visible=not decides)
