"""What one request of lmms-eval asks: its conversation, how to generate, and where an answer ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gp.asking import picture_entry, refuse_markers
from gp.images import read_image

MAX_NEW_TOKENS = 128  # of a task that names none, as in lmms-eval's own adapters
PASSED_ON = (
    "max_new_tokens",
    "min_new_tokens",
    "num_beams",
    "repetition_penalty",
    "no_repeat_ngram_size",
    "length_penalty",
    "early_stopping",
)
SAMPLING = ("temperature", "top_p", "top_k", "min_p")
# What lmms-eval writes into every task that names no end. Its own adapters of Qwen do not stop there: an answer may
# have paragraphs, and often the last one counts.
PARAGRAPH = "\n\n"


@dataclass(frozen=True)
class Generation:
    """How one request is answered.

    Args:
        options: of `generate`.
        until: texts that end an answer and are no part of it.
        ignored: names of what the task asks for and `generate` has not, e.g. options of other adapters.
    """

    options: dict[str, Any]
    until: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


def read_generation(given: Mapping[str, Any]) -> Generation:
    """How to generate, from a task's `generation_kwargs`: greedy unless a temperature above 0 is given.

    Raises:
        ValueError: an `until` that is neither text nor a list of texts.
    """
    asked = {name: value for name, value in given.items() if value is not None}
    if "max_gen_toks" in asked:  # another word of the harness for it
        asked.setdefault("max_new_tokens", asked.pop("max_gen_toks"))
    until = asked.pop("until", ())
    listed = [until] if isinstance(until, str) else list(until) if isinstance(until, Sequence) else [until]
    if not all(isinstance(text, str) for text in listed):
        raise ValueError(f"generation_kwargs: until must be text or a list of texts, got {until!r}")
    samples = bool(asked.pop("do_sample", True)) and asked.get("temperature", 0) > 0
    options: dict[str, Any] = {"do_sample": samples, "max_new_tokens": MAX_NEW_TOKENS, "num_beams": 1}
    options |= {name: asked[name] for name in PASSED_ON if name in asked}
    options |= {name: asked.get(name) if samples else None for name in SAMPLING}
    ignored = tuple(name for name in asked if name not in (*PASSED_ON, *SAMPLING))
    return Generation(options, tuple(text for text in listed if text and text != PARAGRAPH), ignored)


def cut(answer: str, until: Sequence[str]) -> str:
    """The answer up to the first of the texts that end it.

    >>> cut("4 7\\nthe card", ["card", "\\n"])
    '4 7'
    """
    ends = [answer.index(text) for text in until if text in answer]
    return answer[: min(ends)] if ends else answer


def read_conversation(
    messages: Sequence[Mapping[str, Any]], markers: Sequence[str], allow_urls: bool = False
) -> list[dict[str, Any]]:
    """A conversation as the processor's chat template takes it, its pictures read.

    Args:
        messages: in transformers' chat format, each content a list of entries; several images, anywhere, are fine.
        markers: texts that stand for an image in a prompt.
        allow_urls: download pictures whose address is given.

    Raises:
        TypeError: an image of an unknown type.
        ValueError: a video or a sound, a text with a marker, an image that cannot be read.
    """
    return [
        {**message, "content": [_entry(entry, markers, allow_urls) for entry in message["content"]]}
        for message in messages
    ]


def _entry(entry: Mapping[str, Any], markers: Sequence[str], allow_urls: bool) -> dict[str, Any]:
    if entry["type"] == "text":
        refuse_markers([entry["text"]], markers)
        return {"type": "text", "text": entry["text"]}
    if entry["type"] == "image":
        return picture_entry(read_image(entry["image"], allow_urls))
    raise ValueError(f"gp prunes the tokens of images only, got {entry['type']}")
