"""The whole evaluation: every split, pruner and budget; one table, and the files that others read."""

from __future__ import annotations

import logging
import subprocess
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from rich.console import Console

from gp.cli import Stop
from gp.config import TrainConfig, TrainerConfig
from gp.eval.module import EvalModule
from gp.eval.progress import EvalProgress
from gp.eval.table import make_console
from gp.model import GlimpseModel
from gp.runs.companions import FAILED, Companions
from gp.runs.copies import Copy
from gp.runs.ends import words_of
from gp.runs.launcher import end_with_launcher, own_environment

HINTS = (
    ".*does not have many workers.*",
    ".*it is recommended to use `self.log.*",
    ".*Trainer.test.*single device.*",
    ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",
)
TALKATIVE = ("lightning.pytorch", "lightning.fabric")


def evaluate(
    model: GlimpseModel | Callable[[], GlimpseModel],
    config: TrainConfig,
    out: str | Path,
    ckpt_id: str | None = None,
    command: str | None = None,
    console: Console | None = None,
    trainer: pl.Trainer | None = None,
    copies: Sequence[Copy | subprocess.Popen] = (),
) -> list[dict[str, Any]]:
    """Runs `eval.splits` x `eval.pruners` x `eval.budgets`, prints a table and writes everything into a folder.

    `none` always runs, and so does `glimpse` if a row is matched to it; see `gp.eval.plan`. Finished samples are kept:
    the same call goes on where a killed one stopped, and splits, pruners, budgets and samples can be added later.
    Rows that cannot be run on this base are left out, and named with the reason.

    Args:
        model: with its processor and default pruning options; `eval.methods` is added to its `pruner_settings`. A
            function that gives it is called when the processes are there, so that all load at the same time.
        config: the sections `eval`, `data` and `model` and the seed are used.
        out: the folder: `summary.json`, `report.md`, `report.html`, `settings.json`, `costs.json`, `samples/`,
            `figures/`.
        ckpt_id: tells the results of checkpoints apart; None: a hash of the trained parts.
        command: that makes the report again; None: the command line of this process.
        console: None: the terminal.
        trainer: see `make_trainer`; None: the model's device alone.
        copies: of this process that evaluate, too, see `gp.runs.copies`; they end with it.

    Returns:
        One row per split, pruner and budget, as in `summary.json`; keys: see `gp.eval.summary`. Other ranks than 0 get
        none.

    Raises:
        ValueError: an unknown pruner or setting of one, no row that can be run, results of other settings in `out`,
            another process that writes there, more unusable samples than allowed.
        FileNotFoundError: a shard is missing.
        StageFailed: a library failed; names the row, and the questions unless it is the rehearsal before the first row.
        gp.cli.Stop: another process of the command has ended, or memory or a killed loader process ended this one; a
            subclass of SystemExit.
    """
    load = (lambda: model) if isinstance(model, GlimpseModel) else model
    trainer = trainer or _trainer_of(model)
    for hint in HINTS:
        warnings.filterwarnings("ignore", hint)
    others = Companions(trainer, copies)
    module = EvalModule(load, config, Path(out), console or make_console(), others, ckpt_id, command)
    end_with_launcher(trainer)
    with module.held, others.ending_together(), _ended_by_data(module):
        trainer.test(module, verbose=False)
    return module.rows


@contextmanager
def _ended_by_data(module: EvalModule) -> Iterator[None]:
    """Between two batches Lightning waits for processes that load data: one that was killed is told in a line."""
    try:
        yield
    except Exception as error:
        if (words := words_of(error)) is None:
            raise
        raise Stop(FAILED, f"evaluation: {words}; {module.how_to_go_on}") from error


def make_trainer(settings: TrainerConfig) -> pl.Trainer:
    """Lightning's trainer for an evaluation on the devices of a config."""
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    return pl.Trainer(
        accelerator=settings.accelerator,
        devices=settings.devices,
        num_nodes=settings.num_nodes,
        strategy=settings.strategy,
        plugins=own_environment(),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,  # the stream deals batches itself
        inference_mode=False,  # gloo cannot: one process and several run in the same mode
        callbacks=[EvalProgress()],
    )


def _trainer_of(model: GlimpseModel) -> pl.Trainer:
    device = model.backbone.device
    devices = [device.index] if device.index is not None else 1
    return make_trainer(TrainerConfig(accelerator=device.type, devices=devices))
