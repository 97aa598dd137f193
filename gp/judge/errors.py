"""What errors of an endpoint mean: for the whole judging, for one answer, or that it is out for now."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

import openai

from gp.config.judge import NO_KEY, JudgeConfig

HINT_URL = "base_url is mostly http://HOST:PORT/v1"
LONGEST = 300  # letters of a server's message


class NoAnswer(Exception):
    """One case is not judged.

    Args:
        reason: for the user; it holds no key.
        is_outage: the endpoint does not serve; else it has refused this case, or has answered without a score.
    """

    def __init__(self, reason: str, is_outage: bool) -> None:
        super().__init__(reason)
        self.reason, self.is_outage = reason, is_outage


def without_login(url: str) -> str:
    """An address that may be shown and saved: without user, password and query."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def describe(error: openai.APIError, judge: JudgeConfig, key: str) -> NoAnswer | ValueError:
    """What an error of the client means, without the key.

    Returns:
        `NoAnswer`, or a ValueError for what no other case would fare better with: a refused key, an unknown model.
    """
    where = f"judge.base_url={without_login(judge.base_url)}"
    if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):  # such messages may quote the key
        which = f"environment variable {judge.key_env}" + (" is not set" if key == NO_KEY else "")
        return ValueError(f"{where}: the endpoint refuses the key ({error.status_code}): {which}")
    text = _without_key(" ".join(error.message.split()), key)[:LONGEST]
    if isinstance(error, openai.APITimeoutError):
        return NoAnswer(f"no reply within judge.timeout_s={judge.timeout_s:g} s", is_outage=True)
    if isinstance(error, openai.APIConnectionError):
        return NoAnswer(f"no connection ({_without_key(_cause(error), key)})", is_outage=True)
    if isinstance(error, openai.APIStatusError):
        if error.status_code == 404 or error.code == "model_not_found":
            return ValueError(f"{where}: no model {judge.model!r} there, or no such address; {HINT_URL} ({text})")
        return NoAnswer(f"status {error.status_code}: {text}", error.status_code == 429 or error.status_code >= 500)
    return NoAnswer(f"{type(error).__name__}: {text}", is_outage=True)


def _cause(error: BaseException) -> str:
    cause = error.__cause__ or error
    return f"{type(cause).__name__}: {cause}" if str(cause) else type(cause).__name__


def _without_key(text: str, key: str) -> str:
    return text if key == NO_KEY else text.replace(key, "***")
