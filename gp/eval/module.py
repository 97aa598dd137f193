"""The LightningModule of evaluation: `trainer.test` answers every split with every row, on all devices."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from rich.console import Console

from gp.cli import Stop
from gp.config import TrainConfig
from gp.config.sets import set_options
from gp.data.batch import Batch
from gp.data.datamodule import GlimpseDataModule
from gp.data.loading import EvalLoader
from gp.data.shards import resolve_shards
from gp.engine.generation import notice_of_greedy
from gp.eval.costs import BATCH_SIZE, NUM_BATCHES
from gp.eval.finishing import finish
from gp.eval.plan import LeftOut, Method, find_reference, plan_rows
from gp.eval.rehearsal import collator_of, rehearse_rows
from gp.eval.results import Result
from gp.eval.row_costs import RowCosts
from gp.eval.runner import SplitRun
from gp.eval.scores import RowScores
from gp.eval.settings import claim, settings_of, settings_of_methods, settings_of_sets, shards_of, weights_id
from gp.model import GlimpseModel
from gp.runs.companions import FAILED, Companions
from gp.runs.ends import words_of
from gp.runs.lock import one_writer
from gp.stages import named

SAMPLES = "samples"
PATIENCE = timedelta(days=30)  # a process with slow questions may be hours behind the others


class EvalModule(pl.LightningModule):
    """Evaluates a model: every sample of every split once over all processes.

    Each process appends its results to files of its own, and its callbacks have the metrics of every row. The first
    process prints the table and writes the report.

    Args:
        load: gives the model; called in every process when its device is known.
        config: the sections `eval`, `data` and `model` and the seed are used.
        out: folder of the results.
        console: the first process prints there.
        others: processes of the same command.
        ckpt_id: tells the results of checkpoints apart; None: a hash of the trained parts.
        command: that makes the report again; None: the command line of this process.

    Attributes:
        rows: those of the summary, on the first process, after `trainer.test`.
        runs: one per split.
        reference: the row that every other one is compared with.
        scores, costs: callbacks that own the metrics.
        group: of all processes, for tensors on the CPU; None: there is one process.
        held: closed at the end of the evaluation: the first process holds the folder.
    """

    def __init__(
        self,
        load: Callable[[], GlimpseModel],
        config: TrainConfig,
        out: Path,
        console: Console,
        others: Companions,
        ckpt_id: str | None = None,
        command: str | None = None,
    ) -> None:
        super().__init__()
        self.load, self.config, self.out, self.console = load, config, out, console
        self.others, self.ckpt_id, self.command = others, ckpt_id, command
        self.rows: list[dict[str, Any]] = []
        self.runs: list[SplitRun] = []
        self.scores, self.costs = RowScores(), RowCosts()
        self.group: Any = None
        self.held = ExitStack()

    def configure_callbacks(self) -> list[pl.Callback]:
        """Metrics of the rows; Lightning adds them to those of the trainer."""
        return [self.scores, self.costs]

    def configure_model(self) -> None:
        """Loads the model, which is no submodule: Lightning would take it from its device at the end."""
        self.others.adopt()
        model = self.load().to(self.trainer.strategy.root_device).eval()
        model.compile_decode = self.config.eval.compile_decode
        model.pruner_settings = {**model.pruner_settings, **self.config.eval.methods}
        self.__dict__["model"] = model
        if self.trainer.world_size > 1:
            self.group = torch.distributed.new_group(backend="gloo", timeout=PATIENCE)

    def test_dataloader(self) -> list[EvalLoader]:
        """Loaders of what no process has answered yet, one per split; before that, the folder is claimed and every row
        rehearsed.
        """
        config, trainer = self.config, self.trainer
        self.others.adopt()  # Lightning has set its signals just now
        self.methods, self.left_out = plan_rows(
            self.model, config.eval.pruners, config.eval.budgets, config.eval.thresholds
        )
        self.reference = find_reference(self.methods, config.eval.reference)
        self.settings = settings_of(self.model, config, self.ckpt_id or weights_id(self.model))
        if trainer.is_global_zero:
            self.held.enter_context(one_writer(self.out, "wait for it, stop it, or choose another folder with out=..."))
            self._claim(self.left_out)
        self.wait()
        self._rehearse()
        self.runs = [self._start(split, self.methods) for split in config.eval.splits]
        self.wait()  # until all have read what is done
        return [self._loader(run) for run in self.runs]

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[Method, list[Result]]:
        """Answers one batch with all rows; returns what is new, see `SplitRun.answer`."""
        self.others.check()
        run = self.runs[dataloader_idx]
        try:
            return run.answer(batch)
        except Exception as error:
            if words := words_of(error):
                raise Stop(FAILED, f"{run.describe(batch)}: {words}; {self.how_to_go_on}") from error
            raise named(run.describe(batch), error, "answers so far are kept") from error

    def on_test_epoch_end(self) -> None:
        """Makes summary and report on the first process; Lightning has called the callbacks before."""
        if self.trainer.is_global_zero:
            self.rows = finish(self)

    def first_batches(self, split: str) -> list[Batch]:
        """Batches that are measured and painted: small ones, because measuring goes over them many times."""
        config = self.config
        size = min(BATCH_SIZE, config.data.eval_batch_size)
        small = replace(config.data, eval_batch_size=size, num_workers=0)
        few = GlimpseDataModule(small, collator_of(self.model, config, split), config.seed)
        wanted, limit = max(config.eval.overlays, NUM_BATCHES * size), config.eval.num_samples
        num_samples = wanted if limit is None else min(wanted, limit)
        return list(few.eval_loader(config.data.test[split], num_samples=num_samples))

    def single_batches(self, split: str, numbers: Collection[int]) -> Iterator[Batch]:
        """Samples of a split by their numbers, with images, each as a batch; nothing else is read."""
        config = self.config
        alone = replace(config.data, eval_batch_size=1, num_workers=0)
        data = GlimpseDataModule(alone, collator_of(self.model, config, split), config.seed)
        others = set(range(max(numbers) + 1)) - set(numbers)
        loader = data.eval_loader(config.data.test[split], done=others)
        for batch in islice(loader, len(numbers)):  # behind the last one there is nothing to find
            yield batch.to(self.model.backbone.device)

    @property
    def how_to_go_on(self) -> str:
        """Words for an early end."""
        return f"answers so far are kept, go on with {self.command or 'the same command'}"

    def wait(self) -> None:
        """Waits for all processes."""
        self.others.wait(self.group)

    def _loader(self, run: SplitRun) -> EvalLoader:
        entries, limit = self.config.data.test[run.split], self.config.eval.num_samples
        place = self.trainer.global_rank, self.trainer.world_size
        collator = collator_of(self.model, self.config, run.split)
        data = GlimpseDataModule(self.config.data, collator, self.config.seed)
        return data.eval_loader(entries, *place, run.finished_numbers(), limit)

    def _claim(self, left_out: list[LeftOut]) -> None:
        data = self.config.data
        shards = {
            split: resolve_shards(data.test[split], data.root, data.allow_pipes) for split in self.config.eval.splits
        }
        of_methods = settings_of_methods(self.model, self.methods)
        of_data = {split: shards_of(paths) for split, paths in shards.items()}
        claim(self.out, self.settings, of_data, of_methods, settings_of_sets(self.config.eval))
        lines = [f"left out: {one.method.label}: {one.reason}" for one in left_out]
        for text in [*notice_of_greedy(self.model.generation_config), *lines]:
            self.console.print(text, soft_wrap=True, highlight=False, markup=False)

    def _rehearse(self) -> None:
        """A small batch through every row with work left, so that one that cannot run shows before hours of others."""
        start_s = time.perf_counter()
        num_rows = rehearse_rows(self.model, self.config, self.methods, self.out / SAMPLES)
        if num_rows and self.trainer.is_global_zero:
            seconds = time.perf_counter() - start_s
            self.console.print(f"checked in {seconds:.1f} s: a small batch through {num_rows} rows", highlight=False)

    def _start(self, split: str, methods: list[Method]) -> SplitRun:
        return SplitRun(
            self.model,
            split,
            methods,
            self.out / SAMPLES,
            max_new_tokens=set_options(self.config.eval, split).max_new_tokens,
            seed=self.config.seed,
            rank=self.trainer.global_rank,
            world=self.trainer.world_size,
        )
