"""Options of a judge, an LLM that scores answers: of `evaluate.py score=FOLDER`, and of the reward `judge`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from gp.config.option import option
from gp.config.schema import ABOVE_0, FROM_0, FROM_1

PROTOCOLS = ("rubric", "original")
SECTION = "judge"
OWN_FIELDS = ("model", "messages", "stream")  # of a request, not to be given as extra ones
NO_KEY = "none"  # what local servers are told, which ask for none


@dataclass
class JudgeConfig:
    """An LLM behind any OpenAI-compatible endpoint that scores finished answers, for `evaluate.py score=FOLDER`."""

    base_url: str = option(MISSING, "the endpoint, e.g. http://localhost:8000/v1")
    model: str = option(MISSING, "the judge, as the endpoint names it")
    protocol: str = option("rubric", "what it is asked and how its reply is read, see docs/judge.md", choices=PROTOCOLS)
    key_env: str = option("OPENAI_API_KEY", "environment variable that holds the key; unset: asked without one")
    concurrency: int = option(16, "questions asked at the same time", within=FROM_1)
    max_tokens: int | None = option(512, "longest reply; null: not sent", within=FROM_1)
    extra: dict[str, Any] = option({}, "more fields of every request, e.g. judge.extra.reasoning_effort=low")
    timeout_s: float = option(120.0, "seconds after which a request is given up and repeated", within=ABOVE_0)
    max_retries: int = option(8, "repeats after 429, 5xx, a time-out or a dropped connection", within=FROM_0)
    cache: str | None = option(None, "folder of the replies, which several runs may share; null: beside the answers")


def check_judge(judge: JudgeConfig) -> None:
    """Refuses an address that is none, and fields of a request that are not the user's (ValueError)."""
    if not judge.base_url.startswith(("http://", "https://")):
        raise ValueError(f"judge.base_url must start with http:// or https://, got {judge.base_url!r}")
    if own := [name for name in OWN_FIELDS if name in judge.extra]:
        raise ValueError(f"judge.extra.{own[0]}: a request has its own; expected other fields, e.g. top_p")


def key_of(judge: JudgeConfig) -> str:
    """The key from the environment; it belongs into requests and nowhere else.

    Raises:
        ValueError: a variable is named, and is not set.
    """
    key = os.environ.get(judge.key_env, "").strip()
    if not key and judge.key_env != JudgeConfig.key_env:
        raise ValueError(f"judge.key_env={judge.key_env}: no such variable in the environment, or an empty one")
    return key or NO_KEY
