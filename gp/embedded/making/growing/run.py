"""Pretraining of the second embedded base: `python train.py --config configs/tiny_base2.yaml`."""

import copy
from dataclasses import asdict
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import OmegaConf
from transformers import PreTrainedModel, Qwen2_5_VLForConditionalGeneration

from gp.config.pretrain_cards import CardsPretrainConfig
from gp.embedded import EMBEDDED_BASES
from gp.embedded.making.growing.growth import grow_model, save_grown_processor
from gp.embedded.making.growing.joint_stage import JointData, JointStage
from gp.embedded.making.growing.logfile import LogFile
from gp.embedded.making.growing.tower_stage import TowerData, TowerStage
from gp.runs.folder import code_version, write_info
from gp.training.callbacks import LastCheckpoint

TOWER, JOINT, FINAL = "tower", "joint", "final"


def run(cfg: CardsPretrainConfig) -> None:
    """Pretrains the base and writes `<runs_dir>/<name>/`; `ckpt=last` goes on after an interruption.

    The folder holds `base/` (a transformers model folder with processor, float16 weights), `tower.ckpt` and
    `joint.ckpt` (the ends of both stages, or how far they came), their logs `tower.log` and `joint.log`,
    `config.yaml`, `run.json` (commit and versions) and TensorBoard events under `tb/`.

    Raises:
        FileNotFoundError: `cfg.ckpt` is "last", but no run of that name is there.
        ValueError: a new run would overwrite the checkpoints of an earlier one.
    """
    run_dir = Path(cfg.runs_dir) / cfg.name
    check_checkpoints(cfg, run_dir)
    (run_dir / "base").mkdir(parents=True, exist_ok=True)
    OmegaConf.save(OmegaConf.create(asdict(cfg)), run_dir / "config.yaml")
    write_info(run_dir, code_version())
    torch.set_num_threads(cfg.num_threads)
    pl.seed_everything(cfg.seed, verbose=False)
    init = EMBEDDED_BASES.get(cfg.init, cfg.init)
    tokenizer = save_grown_processor(init, run_dir / "base")
    old = Qwen2_5_VLForConditionalGeneration.from_pretrained(init, dtype=torch.float32)
    model = grow_model(old, len(tokenizer), cfg.seed)

    tower = TowerStage(cfg, model)
    fit(cfg, run_dir, TOWER, cfg.tower_stage.steps, tower, TowerData(cfg))
    for name, stage in ((JOINT, cfg.joint_stage), (FINAL, cfg.final_stage)):
        joint = JointStage(cfg, model, tower.heads, tokenizer, stage)
        data = JointData(cfg, tokenizer, model.config.text_config.hidden_size, stage)
        fit(cfg, run_dir, name, stage.steps, joint, data)
    save_base(model, run_dir / "base")


def check_checkpoints(cfg: CardsPretrainConfig, run_dir: Path) -> None:
    """Refuses to start over an earlier run, or to go on with none."""
    found = run_dir / f"{TOWER}.ckpt"
    if cfg.ckpt is None and found.exists():
        raise ValueError(
            f"{found} is there already: go on with ckpt=last, choose another name=..., or delete {run_dir}"
        )
    if cfg.ckpt is not None and not found.exists():
        raise FileNotFoundError(f"ckpt={cfg.ckpt}: there is no {found}; start without ckpt")


def fit(
    cfg: CardsPretrainConfig,
    run_dir: Path,
    stage: str,
    steps: int,
    module: pl.LightningModule,
    data: pl.LightningDataModule,
) -> None:
    """Runs one stage, or the rest of it; a stage that had come to its end only loads what it made."""
    checkpoint = run_dir / f"{stage}.ckpt"
    found = torch.load(checkpoint, weights_only=True, map_location="cpu") if checkpoint.exists() else None
    if found is not None and found["global_step"] >= steps:
        module.load_state_dict(found["state_dict"])
        return
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=steps,
        gradient_clip_val=cfg.max_grad_norm,
        val_check_interval=cfg.val_every_steps,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=cfg.log_every_steps,
        logger=TensorBoardLogger(str(run_dir), name="tb", version=stage),
        callbacks=[
            LastCheckpoint(checkpoint, cfg.checkpoint_every_steps),
            LogFile(run_dir / f"{stage}.log", cfg.log_every_steps),
        ],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=data, ckpt_path=checkpoint if found is not None else None, weights_only=True)
    trainer.save_checkpoint(checkpoint)


def save_base(model: PreTrainedModel, folder: Path) -> None:
    """Writes weights in float16 and a config that loads them as float32, beside the processor."""
    copy.deepcopy(model).half().save_pretrained(folder)
    # transformers loads in the dtype that config.json names, and wrote float16, which is slow on a CPU.
    config = copy.deepcopy(model.config)
    for part in (config, config.text_config, config.vision_config):
        part.dtype = torch.float32
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
