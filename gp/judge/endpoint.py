"""One question to an OpenAI-compatible endpoint.

429, 5xx, time-outs and dropped connections are repeated by the client, which waits as Retry-After says, else
0.5, 1, 2, ... 8 seconds with a random part.
"""

from __future__ import annotations

import asyncio
from typing import Any

import openai

from gp.config.fitting import nearest
from gp.config.judge import JudgeConfig, key_of
from gp.judge.errors import NoAnswer, describe

BROKEN_TRIES = 4  # of a reply that is no chat completion: mostly a gateway in front of a server that restarts
BROKEN_WAIT_S = 0.5  # doubles


class Endpoint:
    """Asks; close it at the end.

    Args:
        judge: where and how.

    Raises:
        ValueError: `judge.key_env` names a variable that is not set.
    """

    def __init__(self, judge: JudgeConfig) -> None:
        self._judge, self._key = judge, key_of(judge)
        self._client = openai.AsyncOpenAI(
            base_url=judge.base_url, api_key=self._key, timeout=judge.timeout_s, max_retries=judge.max_retries
        )

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.close()

    async def ask(self, request: dict[str, Any]) -> str:
        """The text of the reply.

        Args:
            request: fields of a chat completion.

        Raises:
            NoAnswer: after all repeats.
            ValueError: the endpoint refuses the key, or does not know the model; names those it knows.
        """
        for number in range(BROKEN_TRIES):
            try:
                # as it is: `chat.completions.create` would make it over, and refuse what it does not know
                return _text(await self._client.post("/chat/completions", body=request, cast_to=object))
            except openai.APIStatusError as error:
                raise await self._meaning(error) from None  # the client's error holds the request, the key with it
            except openai.APIError as error:
                if not isinstance(error, openai.APIResponseValidationError):
                    raise describe(error, self._judge, self._key) from None
            except (ValueError, TypeError, LookupError):
                pass
            await asyncio.sleep(BROKEN_WAIT_S * 2**number)
        raise NoAnswer("replies are no chat completions", is_outage=True)

    async def _meaning(self, error: openai.APIStatusError) -> NoAnswer | ValueError:
        meaning = describe(error, self._judge, self._key)
        if isinstance(meaning, ValueError) and error.status_code == 404:
            known = await self._models()
            if known and self._judge.model not in known:
                listed, near = ", ".join(known[:8]), nearest(self._judge.model, known)
                return ValueError(
                    f"judge.model: unknown model {self._judge.model!r}, the endpoint has {listed}; "
                    f"the nearest known one is {near!r}"
                )
        return meaning

    async def _models(self) -> list[str]:
        """Names of models that the endpoint lists; none if it has no list."""
        try:
            return sorted([str(model.id) async for model in self._client.models.list()])
        except (openai.APIError, ValueError, TypeError, AttributeError):
            return []


def _text(completion: Any) -> str:
    """The text of a completion; some error for anything that is none."""
    text = completion["choices"][0]["message"]["content"]
    if not isinstance(text, str):
        raise TypeError("a message without text")
    return text
