"""Model `gp` of lmms-eval: every task that shows images and lets a model write, answered with pruned visual tokens."""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from lmms_eval.api.instance import GenerationResult, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.models.model_utils.gen_metrics import log_metrics
from lmms_eval.protocol import ChatMessages
from lmms_eval.utils import Collator
from loguru import logger
from torch import Tensor
from tqdm import tqdm

import gp
from gp.asking import batch_inputs
from gp.calls import take_options
from gp.eval.runner import num_new_tokens
from gp.integrations.lmms_arguments import read_arguments
from gp.integrations.lmms_requests import cut, read_conversation, read_generation
from gp.integrations.stopping import Until

MESSAGES, GEN_KWARGS, DOCUMENT, TASK, SPLIT = 1, 2, 3, 4, 5  # places in a chat request's arguments


@dataclass
class VisualTokenCounts(TokenCounts):
    """Tokens of one answer, with the visual ones; lmms-eval writes them beside it with `--log_samples`.

    Args:
        visual_tokens, visual_tokens_kept: of the whole prompt, and those that the last layer sees.
    """

    visual_tokens: int = 0
    visual_tokens_kept: int = 0

    def to_dict(self) -> dict[str, int | None]:
        visual = {"visual_tokens": self.visual_tokens, "visual_tokens_kept": self.visual_tokens_kept}
        return {**super().to_dict(), **visual}


class GlimpseChat(lmms):
    """A pruned model behind lmms-eval's chat protocol.

    Answers follow the task's `generation_kwargs`, and where it says nothing the base's own generation config, as
    lmms-eval's own adapters do. Only generation: a task that compares log-likelihoods is refused.

    Args:
        batch_size: questions answered together; the same answers, bar the last bits of a number.
        device: where the model is loaded if there is one process; None: the first GPU, or the CPU. With several
            processes (`accelerate launch`) each takes its own, and questions are dealt out by lmms-eval.
        max_batch_size: of lmms-eval's command line, without meaning here.
        arguments: see `gp.integrations.lmms_arguments.ModelArguments`.

    Raises:
        ValueError: an argument that nobody takes, or options that the method or base cannot follow.
    """

    is_simple = False

    def __init__(
        self,
        batch_size: int | str = 1,
        device: str | None = None,
        max_batch_size: int | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__()
        given = read_arguments(arguments)
        self.batch_size = _batch_size(batch_size)
        self.accelerator = Accelerator()
        self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
        alone = self._world_size == 1
        self.device = torch.device(device) if device and alone else self.accelerator.device
        self.model = gp.from_pretrained(given.base, **given.loading)
        if given.loading.get("device_map") is None:
            self.model = self.model.to(self.device)
        options: Any = take_options(self.model.options, None, dict(given.options), 1)
        self.pruner = self.model.find_pruner(given.pruner, given.settings)
        self.options = options
        self.pruner.check(options, self.model.backbone.num_layers)
        self.markers = self.model.processor.markers()
        self.seed, self.allow_urls = given.seed, given.allow_urls
        self._warned: set[str] = set()

    def generate_until(self, requests: Sequence[Any]) -> list[GenerationResult]:
        """Answers all requests, in batches of equal `generation_kwargs`.

        Raises:
            ValueError: a request that cannot be answered; names task, split and document.
        """
        order = Collator(
            [request.args for request in requests],
            sort_fn=lambda args: (args[TASK], args[SPLIT], args[DOCUMENT]),
            group_fn=lambda args: args[GEN_KWARGS],
            grouping=True,
        )
        results: list[GenerationResult] = []
        start = time.perf_counter()
        with tqdm(total=len(requests), disable=self.rank != 0, desc=f"gp, {self.pruner.name}") as bar:
            for batch in order.get_batched(n=self.batch_size):
                results += self._answer(batch)
                bar.update(len(batch))
        _log([result.token_counts for result in results], time.perf_counter() - start, self.rank)
        return order.get_original(results)

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Not available."""
        raise NotImplementedError("model gp answers tasks of output_type generate_until, not of loglikelihood")

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Not available."""
        raise NotImplementedError("model gp answers tasks of output_type generate_until, not of several rounds")

    def _answer(self, batch: Sequence[tuple]) -> list[GenerationResult]:
        """Answers requests with the same `generation_kwargs`, each given by its arguments."""
        how = read_generation(batch[0][GEN_KWARGS])
        self._say_ignored(how.ignored, batch[0][TASK])
        inputs = batch_inputs(self.model.processor, [self._conversation(args) for args in batch])
        length = inputs["input_ids"].shape[1]
        stops = [Until(self.model.processor.tokenizer, length, how.until)] if how.until else None
        out = self.model.generate(
            **inputs,
            **how.options,
            stopping_criteria=stops,
            pruner=self.pruner,
            options=self.options,
            seed=[zlib.crc32(f"{self.seed} {_place(args)}".encode()) for args in batch],
            return_dict_in_generate=True,
        )
        new_ids = out.sequences[:, length:]
        texts = self.model.processor.batch_decode(new_ids, skip_special_tokens=True)
        sizes = inputs["attention_mask"].sum(1).tolist()
        counts = zip(sizes, self._num_new(new_ids), out.num_visual, out.num_kept, strict=True)
        return [
            GenerationResult(cut(text, how.until), VisualTokenCounts(prompt, new, None, visual, kept))
            for text, (prompt, new, visual, kept) in zip(texts, counts, strict=True)
        ]

    def _conversation(self, args: tuple) -> list[dict[str, Any]]:
        document = self.task_dict[args[TASK]][args[SPLIT]][args[DOCUMENT]]
        messages = ChatMessages(messages=args[MESSAGES](document)).to_hf_messages()
        try:
            return read_conversation(messages, self.markers, self.allow_urls)
        except (TypeError, ValueError, OSError) as error:
            raise ValueError(f"{_place(args)}: {error}") from error

    def _num_new(self, new_ids: Tensor) -> list[int]:
        """Tokens of each answer, the one that ends it included."""
        config = self.model.generation_config
        ends = [config.eos_token_id] if isinstance(config.eos_token_id, int) else list(config.eos_token_id or [])
        if config.pad_token_id is None or config.pad_token_id in ends:
            return num_new_tokens(new_ids, ends)
        return (new_ids != config.pad_token_id).sum(1).tolist()

    def _say_ignored(self, names: Sequence[str], task: str) -> None:
        """Warns once a task of what it asks for and nobody here does."""
        if names and task not in self._warned:
            self._warned.add(task)
            logger.warning(f"task {task}: generation_kwargs {', '.join(names)} have no meaning for model gp")


def _place(args: tuple) -> str:
    return f"task {args[TASK]}, split {args[SPLIT]}, document {args[DOCUMENT]}"


def _batch_size(given: int | str) -> int:
    if not str(given).isdecimal() or int(given) < 1:
        raise ValueError(f"batch_size: expected a whole number from 1, got {given!r}")
    return int(given)


def _log(counts: Sequence[Any], elapsed_s: float, rank: int) -> None:
    """Logs times and tokens; lmms-eval writes them into its results under `throughput`."""
    visual, kept = sum(one.visual_tokens for one in counts), sum(one.visual_tokens_kept for one in counts)
    shares = [one.visual_tokens_kept / one.visual_tokens for one in counts if one.visual_tokens]
    new = sum(one.output_tokens for one in counts)
    log_metrics(
        elapsed_s,
        new,
        new / max(elapsed_s, 1e-9),
        {
            "rank": rank,
            "num_requests": len(counts),
            "visual_tokens": visual,
            "visual_tokens_kept": kept,
            "keep_ratio": sum(shares) / len(shares) if shares else 1.0,
        },
    )
