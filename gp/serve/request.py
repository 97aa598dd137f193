"""From the JSON of a chat completion to what the server knows how to answer; everything else is refused by name."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gp.serve.options import ServeConfig
from gp.serve.pictures import read_address
from gp.serve.refusing import Refused, bad

Part = str | int  # of a message: text, or the number of a picture
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
MAX_STOPS = 4
SEEDS = 2**32
# Keys of OpenAI's that are taken where they ask for nothing; -> whether a value does
NOTHING: dict[str, Callable[[Any], bool]] = {
    "n": lambda value: value == 1,
    "presence_penalty": lambda value: value == 0,
    "frequency_penalty": lambda value: value == 0,
    "logit_bias": lambda value: not value,
    "logprobs": lambda value: value is False,
    "top_logprobs": lambda value: value == 0,
    "tools": lambda value: not value,
    "functions": lambda value: not value,
    "tool_choice": lambda value: value in ("none", "auto"),
    "function_call": lambda value: value in ("none", "auto"),
    "parallel_tool_calls": lambda value: True,
    "response_format": lambda value: value == {"type": "text"},
    "modalities": lambda value: value == ["text"],
    "audio": lambda value: False,
    "reasoning_effort": lambda value: value == "none",
    "user": lambda value: True,
    "metadata": lambda value: True,
    "store": lambda value: value is False,
    "service_tier": lambda value: value in ("auto", "default"),
    "safety_identifier": lambda value: True,
    "prompt_cache_key": lambda value: True,
}
OWN = ("model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed", "stop", "stream")


@dataclass(frozen=True)
class Message:
    """A turn: `system`, `user` or `assistant`, and its texts and pictures in order."""

    role: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class ChatRequest:
    """What a client asks for.

    Args:
        messages: the conversation; the last one is the user's.
        pictures: of all messages, in order: bytes of image files, or addresses where they are allowed.
        max_tokens: of the answer.
        temperature: 0: the most likely token, always.
        top_p: for sampling, in (0, 1].
        seed: of sampling, and of methods that draw; None: any, and 0 for methods.
        stop: texts before which the answer ends.
        stream: send the answer in pieces.
        usage_at_end: of a stream, whether its last chunk counts tokens.
        pruner: method; None: the server's own.
        pruning: options and settings of the method, as the client has named them.
    """

    messages: tuple[Message, ...]
    pictures: tuple[bytes | str, ...] = field(repr=False)
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stream: bool = False
    usage_at_end: bool = False
    pruner: str | None = None
    pruning: Mapping[str, Any] = field(default_factory=dict)


def parse(body: bytes, config: ServeConfig) -> ChatRequest:
    """Reads a request; pictures are unpacked, and of each the header is read.

    Raises:
        Refused: what is wrong with it, and under which key.
    """
    given = read_json(body)
    check_model(given.get("model"), config.model_name)
    for name, asks_nothing in NOTHING.items():
        value = given.pop(name, None)
        if value is not None and not asks_nothing(value):
            raise bad(name, f"{_short(value)} is not something that this server does: leave it out")
    options = given.pop("stream_options", None) or {}
    if not isinstance(options, dict):
        raise bad("stream_options", f"expected an object, got {_short(options)}")
    messages, pictures = read_messages(given.get("messages"), config)
    pruner = _read(given.pop("pruner", None), "pruner", str, "the name of a method", None)
    if pruner is not None and ":" in pruner:
        raise bad("pruner", f"{pruner!r}: a request may not name code to import, the server's own options may")
    request = ChatRequest(
        messages,
        pictures,
        max_tokens=_tokens(given, config.limits.new_tokens),
        temperature=_number(given, "temperature", 0.0, 0.0, 2.0),
        top_p=_number(given, "top_p", 1.0, 1e-6, 1.0),
        seed=_whole(given, "seed", 0, SEEDS - 1),
        stop=_stops(given.get("stop")),
        stream=_read(given.get("stream"), "stream", bool, "true or false", False),
        usage_at_end=options.get("include_usage") is True,
        pruner=pruner,
        pruning={name: value for name, value in given.items() if name not in OWN and value is not None},
    )
    return request


def read_json(body: bytes) -> dict[str, Any]:
    """A JSON object; Refused for anything else, NaN and infinity included."""
    try:
        given = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise bad(None, f"the body is not JSON: {str(error) or type(error).__name__}") from error
    if not isinstance(given, dict):
        raise bad(None, f"the body must be a JSON object, got {_short(given)}")
    return given


def check_model(model: Any, name: str) -> None:
    """Refused if a request asks for another model than the one that there is."""
    if model not in (None, "", name):
        raise Refused(404, f"model: there is {name!r}, got {_short(model)}", "model", "model_not_found")


def read_messages(given: Any, config: ServeConfig) -> tuple[tuple[Message, ...], tuple[bytes | str, ...]]:
    """The conversation, with pictures apart; Refused with the key of what is wrong."""
    if not isinstance(given, list) or not given:
        raise bad("messages", f"expected a list with one message or more, got {_short(given)}")
    pictures: list[bytes | str] = []
    messages = [read_message(one, f"messages[{k}]", pictures, config) for k, one in enumerate(given)]
    if messages[-1].role != "user":
        raise bad(f"messages[{len(messages) - 1}].role", "the last message must be the user's")
    return tuple(messages), tuple(pictures)


def read_message(given: Any, where: str, pictures: list[bytes | str], config: ServeConfig) -> Message:
    """One message; its pictures are put behind those that there are."""
    if not isinstance(given, dict):
        raise bad(where, f"expected an object with role and content, got {_short(given)}")
    role = given.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise bad(f"{where}.role", f"expected one of {', '.join(ROLES)}, got {_short(role)}")
    for name in ("tool_calls", "function_call", "audio"):
        if given.get(name):
            raise bad(f"{where}.{name}", "is not something that this server does")
    content = given.get("content")
    if isinstance(content, str):
        return Message(ROLES[role], (content,))
    if not isinstance(content, list) or not content:
        raise bad(f"{where}.content", f"expected text, or a list of parts, got {_short(content)}")
    parts: list[Part] = []
    for k, part in enumerate(content):
        here = f"{where}.content[{k}]"
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text":
            parts.append(_read(part.get("text"), f"{here}.text", str, "text"))
        elif kind == "image_url" and role == "user":
            if len(pictures) == config.limits.images:
                raise bad(here, f"more than {config.limits.images} images in a request")
            parts.append(len(pictures))
            pictures.append(read_address(part.get("image_url"), f"{here}.image_url", config))
        else:
            takes = "text or image_url" if role == "user" else "text"
            raise bad(f"{here}.type", f"a message of the {role} has parts of type {takes}, got {_short(kind)}")
    return Message(ROLES[role], tuple(parts))


def _tokens(given: Mapping[str, Any], most: int) -> int:
    one, other = (_whole(given, name, 1, most) for name in ("max_completion_tokens", "max_tokens"))
    return one or other or most


def _stops(given: Any) -> tuple[str, ...]:
    stops = [given] if isinstance(given, str) else given or []
    if not isinstance(stops, list) or len(stops) > MAX_STOPS or not all(isinstance(s, str) and s for s in stops):
        raise bad("stop", f"expected a text, or a list of at most {MAX_STOPS}, none of them empty, got {_short(given)}")
    return tuple(stops)


def _whole(given: Mapping[str, Any], name: str, least: int, most: int) -> int | None:
    value = given.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise bad(name, f"expected a whole number in {least}..{most}, got {_short(value)}")
    return value


def _number(given: Mapping[str, Any], name: str, default: float, least: float, most: float) -> float:
    value = given.get(name)
    if value is None:
        return default
    fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not fits or not least <= value <= most:
        raise bad(name, f"expected a number in {least:g}..{most:g}, got {_short(value)}")
    return float(value)


def _read(value: Any, where: str, kind: type, expected: str, *default: Any) -> Any:
    if value is None and default:
        return default[0]
    if not isinstance(value, kind):
        raise bad(where, f"expected {expected}, got {_short(value)}")
    return value


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
