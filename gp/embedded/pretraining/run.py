"""Pretraining of the second embedded base: `python train.py --config configs/tiny_base2.yaml`."""

from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from transformers import Qwen2_5_VLForConditionalGeneration

from gp.config.pretrain_cards import CardsPretrainConfig
from gp.embedded import BASE_DIR
from gp.embedded.pretraining.logfile import LogFile
from gp.embedded.pretraining.tower_stage import TowerData, TowerStage
from gp.training.callbacks import LastCheckpoint

TOWER_CHECKPOINT = "tower.ckpt"


def run(cfg: CardsPretrainConfig) -> None:
    run_dir = Path(cfg.runs_dir) / cfg.name
    run_dir.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(cfg.num_threads)
    pl.seed_everything(cfg.seed, verbose=False)
    base = Qwen2_5_VLForConditionalGeneration.from_pretrained(BASE_DIR, dtype=torch.float32)
    path = run_dir / TOWER_CHECKPOINT
    trainer = make_trainer(cfg, run_dir, "tower", cfg.tower_stage.steps, path)
    trainer.fit(TowerStage(cfg, base), datamodule=TowerData(cfg), ckpt_path=path if path.exists() else None, weights_only=True)


def make_trainer(cfg: CardsPretrainConfig, run_dir: Path, stage: str, steps: int, checkpoint: Path) -> pl.Trainer:
    """The Trainer of one stage."""
    return pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=steps,
        gradient_clip_val=cfg.max_grad_norm,
        val_check_interval=cfg.val_every_steps,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=cfg.log_every_steps,
        logger=TensorBoardLogger(str(run_dir), name="tb", version=stage),
        callbacks=[LastCheckpoint(checkpoint, cfg.checkpoint_every_steps), LogFile(run_dir / f"{stage}.log", cfg.log_every_steps)],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
