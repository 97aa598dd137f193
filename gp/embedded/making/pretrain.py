"""Pretraining of the embedded model: `python train.py --config configs/tiny_base.yaml`."""

import copy
import time
from dataclasses import asdict
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import OmegaConf

from gp.config.pretrain import PretrainConfig
from gp.embedded.making.model import build_processor
from gp.embedded.making.module import PretrainData, PretrainModule
from gp.runs.folder import LAST, code_version, find_checkpoint, write_info
from gp.training.callbacks import LastCheckpoint

VISION_CHECKPOINT_NAME = "vision.ckpt"


def run(cfg: PretrainConfig) -> None:
    """Pretrain the embedded model and write `<runs_dir>/<name>/`.

    The folder holds `base/` (a transformers model folder with processor, float16 weights), `last.ckpt`,
    `vision.ckpt` (the end of stage 1), `config.yaml`, `run.json` (commit and versions), `pretrain.log` and TensorBoard
    events under `tb/`.

    Raises:
        FileNotFoundError: `cfg.ckpt` names a checkpoint that does not exist.
        ValueError: a new run would overwrite the checkpoint of an earlier one.
    """
    run_dir = Path(cfg.runs_dir) / cfg.name
    ckpt_path = _resolve_checkpoint(cfg, run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(OmegaConf.create(asdict(cfg)), run_dir / "config.yaml")
    write_info(run_dir, code_version())
    pl.seed_everything(cfg.seed, verbose=False)
    module = PretrainModule(cfg)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=cfg.vision_stage.steps + cfg.joint_stage.steps,
        gradient_clip_val=cfg.max_grad_norm,
        val_check_interval=cfg.val_every_steps,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=cfg.log_every_steps,
        logger=TensorBoardLogger(str(run_dir), name="tb", version=""),
        callbacks=[
            LastCheckpoint(run_dir / LAST, cfg.checkpoint_every_steps),
            _StageEnd(cfg, run_dir),
            _LogFile(cfg, run_dir),
        ],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=PretrainData(cfg), ckpt_path=ckpt_path, weights_only=True)
    save_base(module.model, run_dir / "base")


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


def _resolve_checkpoint(cfg: PretrainConfig, run_dir: Path) -> Path | None:
    if cfg.ckpt is None and (run_dir / LAST).exists():
        raise ValueError(
            f"{run_dir / LAST} is there already: go on with ckpt=last, choose another name=..., or delete {run_dir}"
        )
    return find_checkpoint(cfg)  # type: ignore[arg-type]  # has the two options that it reads


class _StageEnd(pl.Callback):
    """Keeps the checkpoint at the end of stage 1, from which stage 2 can be run again with other settings."""

    def __init__(self, cfg: PretrainConfig, run_dir: Path):
        self.step = cfg.vision_stage.steps
        self.path = run_dir / VISION_CHECKPOINT_NAME

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


class _LogFile(pl.Callback):
    """One line of all logged figures every `log_every_steps`, with wall and CPU seconds since the start."""

    def __init__(self, cfg: PretrainConfig, run_dir: Path):
        self.every = cfg.log_every_steps
        self.path = run_dir / "pretrain.log"

    def on_train_start(self, trainer, pl_module) -> None:
        self.wall_s, self.cpu_s = time.perf_counter(), time.process_time()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if trainer.global_step % self.every == 0:
            self._write(trainer, "train")

    def on_validation_end(self, trainer, pl_module) -> None:
        self._write(trainer, "val")

    def _write(self, trainer, prefix: str) -> None:
        wall_s, cpu_s = time.perf_counter() - self.wall_s, time.process_time() - self.cpu_s
        figures = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith(prefix)}
        text = " ".join(f"{name}={value:.4g}" for name, value in figures.items())
        line = f"step={trainer.global_step} wall_s={wall_s:.0f} cpu_s={cpu_s:.0f} {text}"
        print(line, flush=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
