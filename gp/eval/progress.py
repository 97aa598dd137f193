"""Progress of an evaluation in the terminal or a log."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl

from gp.data.counts import count_samples
from gp.data.shards import resolve_shards
from gp.eval.module import EvalModule
from gp.eval.plan import Method
from gp.progress import Progress


class EvalProgress(pl.Callback):
    """One bar per split, on the first process, which takes the others to be as fast as it is."""

    def __init__(self) -> None:
        self._shown: Progress | None = None
        self._split: int | None = None

    def on_test_batch_start(
        self, trainer: pl.Trainer, module: EvalModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if dataloader_idx != self._split and trainer.is_global_zero:
            self._stop()
            self._split, self._shown = dataloader_idx, self._start(trainer, module, dataloader_idx)

    def on_test_epoch_end(self, trainer: pl.Trainer, module: EvalModule) -> None:
        self._stop()

    def on_exception(self, trainer: pl.Trainer, module: EvalModule, exception: BaseException) -> None:
        self._stop()

    def _start(self, trainer: pl.Trainer, module: EvalModule, index: int) -> Progress:
        run, config = module.runs[index], module.config
        shards = resolve_shards(config.data.test[run.split], config.data.root, config.data.allow_pipes)
        samples = count_samples(shards, config.eval.num_samples)
        total = None if samples is None else samples * len(run.methods)
        done = sum(len(row) for row in run.done.values())
        progress = Progress(run.split, total, done, unit="answers", console=module.console)

        def advance(method: Method, count: int) -> None:
            progress.update(method.label, advance=count * trainer.world_size)

        run.advance = advance
        progress.start()
        return progress

    def _stop(self) -> None:
        if self._shown is not None:
            self._shown.stop()
        self._shown = None
