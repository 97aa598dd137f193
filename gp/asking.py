"""From pictures and questions to a batch of prompts, and from generated ids to answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL.Image import Image

from gp.answer import Answer
from gp.boxes import Frame


def check_questions(question: Any) -> list[str]:
    """One question or several, as a list; TypeError for anything else."""
    several = [question] if isinstance(question, str) else question
    if not isinstance(several, list | tuple):
        raise TypeError(f"question must be text, or a list of texts; got {type(question).__name__}")
    if wrong := [one for one in several if not isinstance(one, str)]:
        raise TypeError(f"question must be text, or a list of texts; got a list with {type(wrong[0]).__name__}")
    return list(several)


def refuse_markers(questions: Sequence[str], markers: Sequence[str]) -> None:
    """Raises ValueError for a question with a text that stands for an image or a video in a prompt."""
    for text in questions:
        if found := [marker for marker in markers if marker in text]:
            raise ValueError(f"a question holds {found[0]!r}, which stands for an image or a video: leave it out")


def chat_inputs(processor: Any, pictures: Sequence[Image], questions: Sequence[str]) -> dict[str, Any]:
    """The processor's output for a batch of questions about the same pictures, padded on the left."""
    shown = [*map(picture_entry, pictures)]
    turns = [[{"role": "user", "content": [*shown, {"type": "text", "text": text}]}] for text in questions]
    return batch_inputs(processor, turns)


def conversation_inputs(processor: Any, messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The processor's output for one conversation up to its last question."""
    return batch_inputs(processor, [list(messages)])


def picture_entry(picture: Image) -> dict[str, Any]:
    """A picture as a message holds it."""
    return {"type": "image", "image": picture}


def batch_inputs(processor: Any, conversations: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """The processor's output for a batch of conversations, each up to its last question, padded on the left."""
    return dict(
        processor.apply_chat_template(
            conversations,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True, "padding_side": "left"},
        )
    )


def read_answers(
    processor: Any, out: Any, prompt_length: int, pictures: Sequence[Image], frames: Sequence[Frame]
) -> list[Answer]:
    """One answer per row of what `generate` returned for `chat_inputs`.

    Args:
        processor: whose tokenizer reads the ids.
        out: with `sequences`, `keep_masks`, `seen_masks`, `crops`, `num_kept` and `num_visual`.
        prompt_length: ids before the answers, padding included.
        pictures: of every row.
        frames: of each picture, see `Answer`.
    """
    texts = processor.tokenizer.batch_decode(out.sequences[:, prompt_length:], skip_special_tokens=True)
    count = len(pictures)
    answers = []
    for row, text in enumerate(texts):
        mine = slice(row * count, (row + 1) * count)
        again = [one for one in out.crops if mine.start <= one.crop.image < mine.stop]
        parts = [(one.crop.image - mine.start, one.part) for one in again]
        boxes = [(image, in_pixels(part, frames[image], pictures[image].size)) for image, part in parts]
        answers.append(
            Answer(
                text.strip(),
                out.keep_masks[mine],
                out.num_kept[row],
                out.num_visual[row],
                tuple(pictures),
                tuple(frames),
                tuple(boxes),
                out.seen_masks[mine],
            )
        )
    return answers


def in_pixels(part: Frame, frame: Frame, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """A part of what an image's grid lies over, in whole pixels of the image: left, top, right, bottom."""
    width, height = size
    left, top, right, bottom = frame
    xs = [(left + x * (right - left)) * width for x in (part[0], part[2])]
    ys = [(top + y * (bottom - top)) * height for y in (part[1], part[3])]
    return round(xs[0]), round(ys[0]), round(xs[1]), round(ys[1])
