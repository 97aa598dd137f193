"""Answers as OpenAI's clients read them: chat completions, their chunks, and the model list."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from gp.serve.events import Begun, Ended

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Reply:
    """What all pieces of one answer have in common."""

    model: str
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, begun: Begun, ended: Ended) -> dict[str, Any]:
        """The completion in one piece."""
        message = {"role": "assistant", "content": ended.text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": ended.reason}
        return {**self._head("chat.completion"), "choices": [choice], "usage": usage(begun, ended)}

    def chunk(self, delta: dict[str, Any], reason: str | None = None) -> bytes:
        """A piece of a stream."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return sse({**self._head("chat.completion.chunk"), "choices": [choice]})

    def last(self, begun: Begun, ended: Ended) -> bytes:
        """The piece that counts tokens."""
        return sse({**self._head("chat.completion.chunk"), "choices": [], "usage": usage(begun, ended)})

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def usage(begun: Begun, ended: Ended) -> dict[str, int]:
    """Numbers of tokens; the two of visual tokens are this server's own."""
    return {
        "prompt_tokens": begun.prompt_tokens,
        "completion_tokens": ended.tokens,
        "total_tokens": begun.prompt_tokens + ended.tokens,
        "visual_tokens": begun.visual_all,
        "visual_tokens_kept": begun.visual_kept,
    }


def sse(value: dict[str, Any]) -> bytes:
    """A server-sent event."""
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def model_list(name: str) -> dict[str, Any]:
    """The models that there are: one."""
    return {"object": "list", "data": [{"id": name, "object": "model", "created": 0, "owned_by": "gp"}]}
