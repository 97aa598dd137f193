"""Pretraining of the small base that the embedded one grows from: `python train.py --config configs/tiny_seed.yaml`."""

import copy
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from gp.config.pretrain import PretrainConfig
from gp.embedded.making.model import build_processor
from gp.embedded.making.module import PretrainData, PretrainModule
from gp.runs.checkpoint import read_checkpoint
from gp.runs.folder import (
    BASE,
    EVENTS,
    LAST,
    LOG,
    VISION,
    check_folder,
    claim_folder,
    find_checkpoint,
    finish,
    is_new_run,
    run_folder,
)
from gp.runs.launcher import own_environment
from gp.runs.lock import one_writer
from gp.runs.resuming import PRETRAINING, notices_of_changes, refuse_less
from gp.training.callbacks import LastCheckpoint
from gp.training.callbacks.checkpointing import save_whole
from gp.training.callbacks.finite import FiniteNumbers
from gp.training.rehearsal import SANITY_STEPS, Rehearsal, rehearsed


def run(cfg: PretrainConfig) -> None:
    """Pretrain the embedded model and write `<runs_dir>/<name>/`.

    The folder holds `base/` (a transformers model folder with processor, float16 weights), `last.ckpt`,
    `vision.ckpt` (the end of stage 1), `config.yaml`, `run.json` (commit and versions), `pretrain.log` and TensorBoard
    events under `tb/`.

    Raises:
        FileNotFoundError: `cfg.ckpt` names a checkpoint that does not exist.
        ValueError: the folder holds results or another process writes to it, or a checkpoint of other sizes.
        gp.cli.Stop: a signal, memory or a killed loader process ended it early.
        StageFailed: a library failed in a validation, or in the rehearsal before the first step; names the stage.
    """
    with one_writer(folder := run_folder(cfg)):
        ckpt = find_checkpoint(cfg)
        notices = check_folder(cfg, ckpt)
        pl.seed_everything(cfg.seed, verbose=False)
        module, step = PretrainModule(cfg), 0
        if ckpt is not None:
            checkpoint = read_checkpoint(ckpt)
            module.check_checkpoint(checkpoint, ckpt)
            notices += notices_of_changes(checkpoint, cfg, ckpt, PRETRAINING)
            step = checkpoint["global_step"]
        trainer = _make_trainer(cfg, folder, step)
        refuse_less(step, trainer.max_steps, ckpt or "", "vision_stage.steps and joint_stage.steps together ask")
        claim_folder(cfg, ckpt, step, trainer.max_steps, keep_trained=True)
        for notice in notices:
            print(notice, flush=True)
        with rehearsed(trainer, folder, is_new_run(cfg, ckpt)):
            trainer.fit(module, datamodule=PretrainData(cfg), ckpt_path=ckpt, weights_only=True)
        save_base(module.model, folder / BASE)
        finish(folder, trainer.global_step, {})


def _make_trainer(cfg: PretrainConfig, folder: Path, step: int) -> pl.Trainer:
    plugins: Any = own_environment()
    return pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=cfg.vision_stage.steps + cfg.joint_stage.steps,
        gradient_clip_val=cfg.max_grad_norm,
        val_check_interval=cfg.val_every_steps,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=SANITY_STEPS,
        log_every_n_steps=cfg.log_every_steps,
        logger=TensorBoardLogger(str(folder), name=EVENTS, version="", purge_step=step or None),
        default_root_dir=str(folder),
        plugins=plugins,
        callbacks=[
            Rehearsal(folder),
            LastCheckpoint(folder / LAST, cfg.checkpoint_every_steps, cfg.val_every_steps),
            _StageEnd(cfg, folder),
            _LogFile(cfg, folder),
            FiniteNumbers(advice="A lower vision_stage.lr or joint_stage.lr may help"),
        ],
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def save_base(model, folder: Path) -> None:
    """Write a stock transformers folder: weights in float16 on disk, float32 when loaded, and the processor."""
    copy.deepcopy(model).half().save_pretrained(folder)
    # transformers loads in the dtype that config.json names, and wrote float16, which is slow on CPU.
    config = copy.deepcopy(model.config)
    for part in (config, config.text_config, config.vision_config):
        part.dtype = torch.float32
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    build_processor().save_pretrained(folder)


class _StageEnd(pl.Callback):
    """Keeps the checkpoint at the end of stage 1, from which stage 2 can be run again with other settings."""

    def __init__(self, cfg: PretrainConfig, run_dir: Path):
        self.step = cfg.vision_stage.steps
        self.path = run_dir / VISION

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if trainer.global_step == self.step:
            save_whole(trainer, self.path)


class _LogFile(pl.Callback):
    """One line of all logged figures every `log_every_steps`, with wall and CPU seconds since the start."""

    def __init__(self, cfg: PretrainConfig, run_dir: Path):
        self.every = cfg.log_every_steps
        self.path = run_dir / LOG

    def on_train_start(self, trainer, pl_module) -> None:
        self.wall_s, self.cpu_s = time.perf_counter(), time.process_time()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if trainer.global_step % self.every == 0:
            self._write(trainer, "train")

    def on_validation_end(self, trainer, pl_module) -> None:
        if not trainer.sanity_checking:
            self._write(trainer, "val")

    def _write(self, trainer, prefix: str) -> None:
        wall_s, cpu_s = time.perf_counter() - self.wall_s, time.process_time() - self.cpu_s
        figures = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith(prefix)}
        text = " ".join(f"{name}={value:.4g}" for name, value in figures.items())
        line = f"step={trainer.global_step} wall_s={wall_s:.0f} cpu_s={cpu_s:.0f} {text}"
        print(line, flush=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
