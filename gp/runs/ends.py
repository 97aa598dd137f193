"""Ends of a command that no traceback explains: memory, or a killed process that loads data."""

from __future__ import annotations

import traceback

import torch

NO_MEMORY = ("out of memory", "can't allocate memory")
CUT_OFF = (ConnectionError, EOFError, FileNotFoundError)
FETCHES = "_try_get_data"  # torch's: what goes wrong in a worker comes out elsewhere
WORKER_DIED = "DataLoader worker (pid"  # torch's words; an error within a worker has others, and is no such end


def words_of(error: BaseException) -> str | None:
    """What ended the work, in one line; None: another error, which needs its traceback.

    Args:
        error: that came out of the work.
    """
    try:
        return _words_of(error)
    except Exception as late:  # a worker's death is raised wherever the program is when it is told of it
        return _words_of(late)


def _words_of(error: BaseException) -> str | None:
    text = str(error)
    first = text.splitlines()[0] if text else type(error).__name__
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or any(one in text for one in NO_MEMORY):
        return f"out of memory ({first:.200})"
    if WORKER_DIED in text or _was_cut_off(error):
        return f"a process that loads data has died ({first:.200})"
    return None


def _was_cut_off(error: BaseException) -> bool:
    """Whether a batch was being fetched from a worker that died meanwhile, before anybody knew that it had."""
    frames = traceback.walk_tb(error.__traceback__)
    return isinstance(error, CUT_OFF) and any(frame.f_code.co_name == FETCHES for frame, _ in frames)
