"""Requests that are not answered: an HTTP status and an error as OpenAI's clients read it."""

from __future__ import annotations

from typing import Any

KINDS = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


class Refused(Exception):
    """A request that is not answered.

    Args:
        status: of HTTP: 4xx if the request must change, 5xx if it need not.
        message: what was expected and what came.
        param: the key of the request that is wrong, e.g. `messages[0].content`; None: none.
        code: a word for programs.
    """

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(status, message, param, code)  # all of them, for pickle
        self.status, self.message, self.param, self.code = status, message, param, code

    @property
    def body(self) -> dict[str, Any]:
        """The JSON that is sent."""
        kind = KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def bad(param: str | None, message: str, code: str | None = None) -> Refused:
    """A request with a wrong value under a key."""
    return Refused(400, f"{param}: {message}" if param else message, param, code)
