"""One question of a conversation, answered with one method: text as it comes, then figures, masks and importance."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import Thread
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor
from transformers import TextIteratorStreamer

from gp import calls
from gp.answer import Answer
from gp.asking import check_questions, conversation_inputs, picture_entry, read_answers, refuse_markers
from gp.engine.generation import GREEDY, add_masks
from gp.engine.prefill import Prefill
from gp.eval.costs import kv_cache_mib
from gp.measure.stopwatch import Stopwatch
from gp.model import GlimpseModel
from gp.pruners import Pruner, RankingPruner
from gp.types import PruneOptions

Exchange = tuple[str, str]  # question and answer


@dataclass(frozen=True)
class Figures:
    """What one answer cost.

    Args:
        num_visual, num_kept: visual tokens of the prompt, and those left; crops that were seen again count as kept.
        prefill_ms: vision tower and decoder over the whole conversation.
        token_ms: of a new token, mean.
        num_new: tokens of the answer, the one that ends it included.
        kv_cache_mib: after the prefill, text included.
    """

    num_visual: int
    num_kept: int
    prefill_ms: float
    token_ms: float
    num_new: int
    kv_cache_mib: float


@dataclass(frozen=True)
class Reply:
    """An answer as far as it has come.

    Args:
        text: so far.
        figures, answer: once it is complete.
        heat: of each image, float32 [h, w] in 0..1: how important the method finds a token; of methods that only rank,
            the share of tokens that score lower. Empty if nothing was scored.
    """

    text: str
    figures: Figures | None = None
    answer: Answer | None = None
    heat: tuple[Tensor, ...] = ()


def reply_to(
    model: GlimpseModel,
    pictures: Sequence[Image],
    history: Sequence[Exchange],
    question: str,
    pruner: Pruner,
    options: PruneOptions,
    max_new_tokens: int,
) -> Iterator[Reply]:
    """Answers greedily; yields with every piece of text, at last with everything else.

    Nothing is kept from turn to turn, so times of a later turn are those of its whole conversation, and every turn may
    have another method.

    Args:
        model: with a processor.
        pictures: RGB, before the first question.
        history: what was asked and answered before.
        question: text.
        pruner: the method.
        options: of it.
        max_new_tokens: of the answer.

    Raises:
        ValueError: as `GlimpseModel.ask` does.
    """
    processor = model.processor
    refuse_markers(check_questions(question), model.backbone.processor.markers(processor))
    inputs = conversation_inputs(processor, messages_of(pictures, history, question))
    prompt = calls.take_inputs(model.backbone, inputs, "demo")
    watch = Stopwatch(model.device)
    done = model.prefill(prompt, pruner, options)
    num_kept = sum(done.num_kept)
    prefill_s, cache_mib = watch.lap(), kv_cache_mib(done)
    heat = heat_of(done, pruner)
    streamer = TextIteratorStreamer(processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
    how = {**GREEDY, "max_new_tokens": max_new_tokens, "return_dict_in_generate": True, "streamer": streamer}
    work = Background(lambda: _decode(model, prompt["input_ids"], done, how), streamer.end)
    text = ""
    for piece in streamer:
        text += piece
        yield Reply(text)
    out, decode_s = work.result()
    add_masks(out, done)
    length = prompt["input_ids"].shape[1]
    frames = [model.backbone.processor.frame(processor, *picture.size) for picture in pictures]
    (answer,) = read_answers(processor, out, length, pictures, frames)
    num_new = out.sequences.shape[1] - length
    num_visual = sum(done.full_layout.prompt_sizes)
    figures = Figures(num_visual, num_kept, 1e3 * prefill_s, 1e3 * decode_s / num_new, num_new, cache_mib)
    yield Reply(answer.text, figures, answer, heat)


def messages_of(pictures: Sequence[Image], history: Sequence[Exchange], question: str) -> list[dict[str, Any]]:
    """A conversation as the processor's chat template takes it."""
    content: list[dict[str, Any]] = [*map(picture_entry, pictures)]
    messages = []
    for asked, answered in history:
        messages.append({"role": "user", "content": [*content, {"type": "text", "text": asked}]})
        messages.append({"role": "assistant", "content": [{"type": "text", "text": answered}]})
        content = []
    return [*messages, {"role": "user", "content": [*content, {"type": "text", "text": question}]}]


def heat_of(done: Prefill, pruner: Pruner) -> tuple[Tensor, ...]:
    """Importance of the tokens of each image, see `Reply`."""
    scores = [part.float().cpu().nan_to_num(float("-inf"), posinf=float("inf")) for part in done.importance]
    looks = getattr(pruner, "of", pruner)  # zoom's scores are those of the method that looks
    if not isinstance(looks, RankingPruner):
        return tuple(part.sigmoid() for part in scores)
    every = torch.cat([part.flatten() for part in scores]) if scores else torch.empty(0)
    sorted_scores = every.sort().values
    most = max(1, len(every) - 1)
    return tuple(torch.searchsorted(sorted_scores, part.contiguous()).float() / most for part in scores)


class Background:
    """Work in a thread of its own, whose result or error is waited for.

    Args:
        work: is begun at once.
        finally_: called when it ends, in either way.
    """

    def __init__(self, work: Callable[[], Any], finally_: Callable[[], None]) -> None:
        self._work, self._finally = work, finally_
        self._value: Any = None
        self._error: BaseException | None = None
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def result(self) -> Any:
        """What the work returned; raises what it raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._value

    def _run(self) -> None:
        try:
            self._value = self._work()
        except BaseException as error:  # for whoever waits
            self._error = error
        finally:
            self._finally()


def _decode(model: GlimpseModel, input_ids: Tensor, done: Prefill, how: Mapping[str, Any]) -> tuple[Any, float]:
    """What `generate` returns, and its seconds."""
    watch = Stopwatch(model.device)
    return model.decode(input_ids, done, consume=True, **how), watch.lap()
