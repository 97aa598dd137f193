"""One training run: from a config to a folder with everything that it made."""

from __future__ import annotations

import logging
import subprocess
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.seed import isolate_rng

from gp.config import TrainConfig
from gp.data.batch import Collator
from gp.data.datamodule import GlimpseDataModule
from gp.data.shards import check_shards
from gp.engine.generation import notice_of_greedy
from gp.loading import outline
from gp.model import GlimpseModel
from gp.pruners import GlimpsePruner
from gp.runs import folder as run_folder
from gp.runs.checkpoint import read_checkpoint
from gp.runs.companions import take_over
from gp.runs.launcher import own_environment
from gp.runs.lock import one_writer
from gp.runs.resuming import NOTE, notices_of_changes, refuse_less
from gp.training.callbacks import (
    FiniteNumbers,
    KeptRatio,
    LastCheckpoint,
    LogSettings,
    PaintKept,
    Performance,
    TrainingProgress,
    averaging_callbacks,
    choosing_callbacks,
)
from gp.training.loggers import make_loggers
from gp.training.rehearsal import SANITY_STEPS, Rehearsal, find_callback, rehearsed
from gp.training.run_module import RunModule
from gp.training.schedule import Length, run_length, samples_per_step, shift_of
from gp.training.sharding import strategy_of
from gp.training.summary import describe_run
from gp.training.tasks import task_of

HINTS = (
    ".*module\\(s\\) in eval mode at the start of training.*",
    ".*does not have many workers.*",
    ".*sync_dist=True.*",
    ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",
)


class Trained(NamedTuple):
    """What a run leaves.

    Attributes:
        model: in eval mode, on the device that it was trained on.
        folder: see `gp.runs.folder`.
        processes: that Lightning has started for the other devices; what works on with them looks after them.
    """

    model: GlimpseModel
    folder: Path
    processes: list[subprocess.Popen]


def train(config: TrainConfig, rehearse_more: Callable[[GlimpseModel, TrainConfig], str] | None = None) -> Trained:
    """Trains what the config's task says, or goes on training it.

    Args:
        config: checked, as `load_config` returns it.
        rehearse_more: run once before the first step, with validation and checkpoint (see `gp.training.rehearsal`),
            on the model on its device; says in a few words what it did.

    Returns:
        What was trained. Under DDP every process returns, with the process group.

    Raises:
        FileNotFoundError: no such checkpoint, base or shard.
        ValueError: the folder holds results or another process writes to it, a checkpoint of another base or of
            settings that a resumed run cannot change, or data that cannot be used.
        gp.cli.Stop: a signal, memory or a killed loader process ended it early; a subclass of SystemExit.
        StageFailed: a library failed in a validation, or in the rehearsal before the first step; names the stage.
    """
    folder = run_folder.run_folder(config)
    with one_writer(folder) if is_first_process() else nullcontext():
        return _train(config, folder, rehearse_more)


def _train(
    config: TrainConfig, folder: Path, rehearse_more: Callable[[GlimpseModel, TrainConfig], str] | None
) -> Trained:
    """What `train` says, in a folder that no other process writes to."""
    task = task_of(config)
    ckpt = run_folder.find_checkpoint(config)
    notices = run_folder.check_folder(config, ckpt) if is_first_process() else []
    checkpoint = read_checkpoint(ckpt) if ckpt is not None else {"global_step": 0}
    if is_first_process():
        check_before_loading(config)
    pl.seed_everything(config.seed, workers=True, verbose=False)
    model = build_model(config, start_token=ckpt is None)
    notices += notice_of_greedy(model.generation_config) if is_first_process() else []
    module = task.module(config, model)
    collator = Collator(model.processor, config.model.min_pixels, config.model.max_pixels)
    data = GlimpseDataModule(config.data, collator, config.seed, config.trainer.val_samples)
    if ckpt is not None:  # refuses what does not fit, before anything is written
        module.check_checkpoint(checkpoint, ckpt)
        notices += notices_of_changes(checkpoint, config, ckpt, task.kinds)
        data.check_position(checkpoint.get(type(data).__qualname__, {}))
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    _quiet()
    try:
        trainer = make_trainer(config, folder, checkpoint["global_step"])
        if rehearse_more is not None:
            find_callback(trainer, Rehearsal).more = partial(rehearse_more, model, config)
        module.length = set_length(trainer, config, data, checkpoint)
        nothing_left = checkpoint["global_step"] >= trainer.max_steps
        if is_first_process():
            data.fit_workers(trainer.world_size)  # complains before processes are started
            run_folder.claim_folder(config, ckpt, checkpoint["global_step"], trainer.max_steps, not nothing_left)
            print(describe_run(config, model, trainer, module.length, notices), flush=True)
        with rehearsed(trainer, folder, run_folder.is_new_run(config, ckpt)):
            _fit(config, trainer, module, data, ckpt, nothing_left)
    finally:
        torch.use_deterministic_algorithms(was_deterministic)
    if is_first_process():
        _export(config, trainer, model, folder)
    device = trainer.strategy.root_device
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
    return Trained(model.to(device).eval(), folder, take_over(trainer))


def check_before_loading(config: TrainConfig) -> None:
    """Refuses shards that are not there, and layers and sizes that the base does not have, before it is loaded.

    Raises:
        FileNotFoundError: a shard of training, of validation or of the evaluation at the end.
        OSError: no such base.
        ValueError: of the sections `glimpse` and `vip`.
    """
    splits = config.eval.splits if config.eval.after_training else []
    for key, entries in {
        "data.train": config.data.train,
        "data.val": config.data.val,
        **{f"data.test.{split}": config.data.test[split] for split in splits},
    }.items():
        check_shards(key, entries, config.data)
    GlimpsePruner.build(outline(config.model), config.glimpse, config.vip)


def is_first_process() -> bool:
    """Whether this process writes and prints; known before a process group exists."""
    return getattr(rank_zero_only, "rank", 0) in (0, None)


def build_model(config: TrainConfig, start_token: bool = True) -> GlimpseModel:
    """What the config's task trains, on its frozen base; `start_token`: whether the run does not go on."""
    return task_of(config).build(config, start_token)


def make_trainer(config: TrainConfig, folder: Path, step: int = 0) -> pl.Trainer:
    """Lightning's trainer, with its steps counted in optimizer steps wherever the config says so.

    Args:
        config: of the run.
        folder: of the run.
        step: where it goes on; what TensorBoard was told of later steps by a killed run is void.
    """
    settings = config.trainer
    given = dict(
        accelerator=settings.accelerator,
        devices=settings.devices,
        num_nodes=settings.num_nodes,
        strategy=strategy_of(settings.strategy),
        precision=settings.precision,
        max_steps=config.optim.max_steps or -1,  # see `set_length`
        accumulate_grad_batches=settings.accumulate_grad_batches,
        gradient_clip_val=settings.gradient_clip_val,
        val_check_interval=settings.val_every * settings.accumulate_grad_batches,  # Lightning counts micro-batches
        check_val_every_n_epoch=None,
        num_sanity_val_steps=SANITY_STEPS,
        log_every_n_steps=settings.log_every,
        logger=make_loggers(config, folder, step),
        default_root_dir=str(folder),  # Lightning looks there for a job's checkpoint, and goes on from it unasked
        plugins=own_environment(),
        callbacks=[
            Rehearsal(folder),
            FiniteNumbers(settings.max_bad_steps),
            *averaging_callbacks(config.optim),
            Performance(),
            KeptRatio(),
            PaintKept(settings.paint_images),
            *task_of(config).callbacks(config),
            TrainingProgress(),
            LogSettings(config),
            *choosing_callbacks(settings, folder),
            LastCheckpoint(folder / run_folder.LAST, settings.save_every, settings.val_every),
        ],
        deterministic="warn",
        use_distributed_sampler=False,  # the stream deals shards and samples itself
        enable_model_summary=False,
        inference_mode=False,  # metrics that a validation before training has reset are used in it
    )
    return pl.Trainer(**{**given, **settings.extra})


def set_length(trainer: pl.Trainer, config: TrainConfig, data: GlimpseDataModule, checkpoint: dict[str, Any]) -> Length:
    """Tells the trainer and its progress bar how long the run is: only the trainer knows how many processes there are.

    Args:
        trainer: of `make_trainer`.
        config: of the run.
        data: of the run.
        checkpoint: where it goes on; of a new run only `global_step`, 0.

    Raises:
        ValueError: see `num_steps`; or a length of fewer steps than are done.
    """
    step, shift, world = checkpoint["global_step"], 0.0, trainer.world_size
    if NOTE in checkpoint:
        num_read = data.num_read(checkpoint.get(type(data).__qualname__, {}))
        shift = shift_of(checkpoint[NOTE]["length"], step, samples_per_step(config, world), num_read)
    length = run_length(config, world, data.num_train_samples(), shift)
    refuse_less(step, length.max_steps, config.ckpt)
    if not trainer.fast_dev_run:  # it has its own length
        trainer.fit_loop.epoch_loop.max_steps = length.max_steps
    trainer.progress_bar_callback.length = length
    return length


def _fit(
    config: TrainConfig,
    trainer: pl.Trainer,
    module: RunModule,
    data: GlimpseDataModule,
    ckpt: Path | None,
    nothing_left: bool,
) -> None:
    """Trains, and validates at the end: a run with no step left too, whose last validation may have failed."""
    if config.trainer.val_before_training and ckpt is None:
        with isolate_rng():
            trainer.validate(module, datamodule=data, verbose=False)
    trainer.fit(module, datamodule=data, ckpt_path=None if ckpt is None else str(ckpt), weights_only=True)
    if nothing_left or trainer.max_steps % config.trainer.val_every:
        trainer.validate(module, datamodule=data, verbose=False)


def _export(config: TrainConfig, trainer: pl.Trainer, model: GlimpseModel, folder: Path) -> None:
    """The trained parts as a folder of their own, and the last figures."""
    figures = {name: round(float(value), 6) for name, value in sorted(trainer.callback_metrics.items())}
    facts = {
        "metrics": {name: value for name, value in figures.items() if name.startswith("val/")},
        "training": {"step": trainer.global_step, "seed": config.seed},
    }
    task_of(config).export(config, model, folder, facts)
    run_folder.finish(folder, trainer.global_step, figures)


def _quiet() -> None:
    """Hints of Lightning that do not apply here: the base is in eval mode on purpose, workers are set in the config."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for hint in HINTS:
        warnings.filterwarnings("ignore", hint)
