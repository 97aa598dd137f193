"""Lines of the checks, and the verdict that follows from all of them.

No library is imported here: this must work where one of them is broken.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

OK, NOTE, WARNING, PROBLEM = "ok", "note", "warning", "problem"
MARKS = {OK: "ok", NOTE: "", WARNING: "warn", PROBLEM: "FAIL"}
REASON_LENGTH = 240  # characters of an error's first line


@dataclass(frozen=True)
class Line:
    """One thing that was found.

    Args:
        name: of the thing, for example of a library.
        text: what was found, in one line.
        status: NOTE (a fact), OK (it was tried and works), WARNING, or PROBLEM (makes the doctor exit with status 1).
        traceback: of the error behind a problem, "" if there was none.
    """

    name: str
    text: str
    status: str = NOTE
    traceback: str = ""

    @classmethod
    def of_error(cls, name: str, error: Exception) -> Line:
        """A problem with the error's type and first line as its text."""
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
        trace = "".join(traceback.format_exception(error))
        return cls(name, f"{type(error).__name__}: {first:.{REASON_LENGTH}}", PROBLEM, trace)

    def render(self, with_traceback: bool = False) -> str:
        """The line as users see it, with its traceback below if that is wanted."""
        text = f"  {MARKS[self.status]:<4}  {self.name:<20} {self.text}"
        return f"{text}\n{self.traceback.rstrip()}" if with_traceback and self.traceback else text


Check = Callable[[], Iterator[Line]]


@dataclass
class CheckSection:
    """Lines of one check, and the seconds that it took."""

    name: str
    lines: list[Line] = field(default_factory=list)
    seconds: float = 0.0

    def run(self, check: Check) -> Iterator[Line]:
        """Yields each line once it is known; an error of the check becomes its last line, a problem."""
        start = time.monotonic()
        for line in _until_error(check):
            self.lines.append(line)
            self.seconds = time.monotonic() - start
            yield line
        self.seconds = time.monotonic() - start


def attempt(name: str, find: Callable[..., Line], *arguments: Any) -> Line:
    """The line that `find(*arguments)` returns; if it raises, a problem of that name."""
    try:
        return find(*arguments)
    except Exception as error:
        return Line.of_error(name, error)


def verdict(sections: list[CheckSection]) -> str:
    """The last line: "all well", or the number of problems and their names; warnings behind it."""
    problems, warnings = (_named(sections, status) for status in (PROBLEM, WARNING))
    text = f"{_count(problems, 'problem')}: {', '.join(problems)}" if problems else "all well"
    return f"{text} ({_count(warnings, 'warning')}: {', '.join(warnings)})" if warnings else text


def has_problems(sections: list[CheckSection]) -> bool:
    return bool(_named(sections, PROBLEM))


def as_json(sections: list[CheckSection], seconds: float, with_traceback: bool) -> dict[str, Any]:
    """Everything that was found, with keys `verdict`, `has_problems`, `seconds` and `sections`."""
    found = [asdict(section) for section in sections]
    for line in (line for section in found for line in section["lines"] if not with_traceback):
        del line["traceback"]
    return {
        "verdict": verdict(sections),
        "has_problems": has_problems(sections),
        "seconds": round(seconds, 2),
        "sections": found,
    }


def tidy(path: str | Path) -> str:
    """A path for a public report: the home folder, which often has the user's name, becomes `~`."""
    path, home = Path(path), Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) and home != Path(home.anchor) else str(path)


def _until_error(check: Check) -> Iterator[Line]:
    try:
        yield from check()
    except Exception as error:  # printed: the other checks must still run
        yield Line.of_error("this check", error)


def _named(sections: list[CheckSection], status: str) -> list[str]:
    return [f"{section.name}/{line.name}" for section in sections for line in section.lines if line.status == status]


def _count(names: list[str], what: str) -> str:
    return f"{len(names)} {what}{'s' if len(names) != 1 else ''}"
