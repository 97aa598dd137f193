"""Answers a batch of requests: one pruned prefill, then `generate`, of which every row ends when it is done itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from gp.model import GlimpseModel
from gp.serve.events import Begun, Ended, Event, Failed, Text
from gp.serve.growing_text import GrowingText
from gp.serve.preparing import Prepared, joined
from gp.serve.refusing import Refused

Tell = Callable[[Event], None]


class Row:
    """One request of a batch while it is answered."""

    def __init__(self, prepared: Prepared, tokenizer: Any, ends: Sequence[int], tell: Tell) -> None:
        self.job, self.request = prepared.job, prepared.job.request
        self.text = GrowingText(tokenizer, self.request.stop)
        self.ends, self.tell, self.is_done = ends, tell, False

    def take(self, token: int, dropped: bool) -> None:
        """Takes the next token and says what is new."""
        if dropped or time.monotonic() > self.job.deadline:  # the server has told the client
            self.is_done = True
            return
        if token in self.ends:
            self.text.ids.append(token)
            return self._end("stop")
        if self.request.stream or self.request.stop:  # else nobody looks before the end
            new = self.text.add(token)
            if new and self.request.stream:
                self.tell(Text(self.job.number, new))
        else:
            self.text.ids.append(token)
        if self.text.stopped:
            self._end("stop")
        elif len(self.text.ids) >= self.request.max_tokens:
            self._end("length")

    def _end(self, reason: str) -> None:
        self.is_done = True
        self.tell(Ended(self.job.number, *self.text.end(), reason, len(self.text.ids)))


class Watch:
    """Stopping criterion of `generate` that hands each row its new token and says which rows are done.

    Args:
        rows: of the batch, B.
        is_dropped: whether nobody waits for a request, by its number.
    """

    def __init__(self, rows: Sequence[Row], is_dropped: Callable[[int], bool]) -> None:
        self.rows, self.is_dropped = rows, is_dropped

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        for row, token in zip(self.rows, input_ids[:, -1].tolist(), strict=True):
            if not row.is_done:
                row.take(token, self.is_dropped(row.job.number))
        return torch.tensor([row.is_done for row in self.rows], device=input_ids.device)


def answer(model: GlimpseModel, batch: Sequence[Prepared], tell: Tell, is_dropped: Callable[[int], bool]) -> None:
    """Answers requests of one group; each gets `Begun`, and `Ended` or `Failed` unless it is dropped.

    A batch that does not fit into memory, or in which something goes wrong before its first token, is answered one by
    one: nobody pays for another one's request.

    Raises:
        Exception: an error of the program, when everyone has been told.
    """
    tokenizer, ends = model.processor.tokenizer, model.backbone.model.generation_config.eos_token_id
    rows = [Row(one, tokenizer, ends if isinstance(ends, list) else [ends], tell) for one in batch]
    try:
        answer_together(model, batch, rows, is_dropped)
    except Exception as error:  # whatever it is, the next request is to be answered
        if len(batch) > 1 and not any(row.text.ids for row in rows):
            for one in batch:
                answer(model, [one], tell, is_dropped)
            return
        for row in rows:
            if not row.is_done:
                tell(Failed(row.job.number, as_refusal(error)))
        if not isinstance(error, ValueError | torch.OutOfMemoryError):
            raise


def answer_together(
    model: GlimpseModel, batch: Sequence[Prepared], rows: Sequence[Row], is_dropped: Callable[[int], bool]
) -> None:
    """Prefills and generates; raises what the engine raises."""
    inputs = joined(batch, model.processor.tokenizer.pad_token_id or 0)
    seeds = [one.job.request.seed or 0 for one in batch]
    done = model.prefill(inputs, batch[0].method, [one.options for one in batch], seed=seeds)
    kept, everything, lengths = done.num_kept, done.full_layout.prompt_sizes, done.full_length.tolist()
    for row, length, visual, left in zip(rows, lengths, everything, kept, strict=True):
        row.tell(Begun(row.job.number, length, visual, left, len(batch)))
    first = batch[0].job.request
    how: dict[str, Any] = {"do_sample": False}
    if first.temperature > 0:
        how = {"do_sample": True, "temperature": first.temperature, "top_p": first.top_p, "top_k": 0}
    how["max_new_tokens"] = max(one.job.request.max_tokens for one in batch)
    how["stopping_criteria"] = [Watch(rows, is_dropped)]
    with drawing(first.seed if first.temperature > 0 else None, model.device):
        model.decode(inputs["input_ids"], done, consume=True, **how)


@contextmanager
def drawing(seed: int | None, device: torch.device) -> Iterator[None]:
    """Draws with a seed of its own, and leaves the generators as they were; None: goes on with them."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def as_refusal(error: Exception) -> Refused:
    """What a client is told about an error of the engine."""
    if isinstance(error, torch.OutOfMemoryError):
        return Refused(503, "the request needs more memory than the device has left", code="out_of_memory")
    if isinstance(error, ValueError):
        return Refused(400, str(error))
    return Refused(500, f"internal error: {type(error).__name__}", code="internal_error")
