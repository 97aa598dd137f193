"""Pretraining of the embedded base: `python train.py --config configs/tiny_base.yaml`."""

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

from gp.config.pretrain_cards import CardsPretrainConfig
from gp.embedded import EMBEDDED_BASES
from gp.embedded.making.growing.cards_stage import CardsStage
from gp.embedded.making.growing.growth import grow_model, save_grown_processor
from gp.embedded.making.growing.joint_stage import JointData, JointStage
from gp.embedded.making.growing.logfile import LogFile
from gp.embedded.making.growing.tower_stage import TowerData, TowerStage
from gp.runs.checkpoint import read_checkpoint
from gp.runs.folder import (
    BASE,
    EVENTS,
    STAGES,
    check_folder,
    claim_folder,
    find_checkpoint,
    finish,
    is_new_run,
    run_folder,
)
from gp.runs.launcher import own_environment
from gp.runs.lock import one_writer
from gp.runs.resuming import CARDS_PRETRAINING, REFUSED, notices_of_changes, refuse_less
from gp.training.callbacks import LastCheckpoint
from gp.training.callbacks.finite import FiniteNumbers
from gp.training.rehearsal import SANITY_STEPS, Rehearsal, rehearsed


def run(cfg: CardsPretrainConfig) -> None:
    """Pretrains the base and writes `<runs_dir>/<name>/`; `ckpt=last` goes on after an interruption.

    The folder holds `base/` (a transformers model folder with processor, float16 weights), a checkpoint and a log of
    each stage (`tower.ckpt`, `joint.ckpt`, `final.ckpt`, `count.ckpt`: their ends, or how far they came),
    `config.yaml`, `run.json` (commit and versions) and TensorBoard events under `tb/`.

    Raises:
        FileNotFoundError: `cfg.ckpt` is "last", but no run of that name is there.
        ValueError: the folder holds results or another process writes to it, or a checkpoint of other sizes.
        gp.cli.Stop: a signal, memory or a killed loader process ended it early.
        StageFailed: a library failed in a validation, or in the rehearsal before the first step; names the stage.
    """
    with one_writer(folder := run_folder(cfg)):
        ckpt = find_checkpoint(cfg)
        notices = check_folder(cfg, ckpt)
        num_steps = {stage: getattr(cfg, f"{stage}_stage").steps for stage in STAGES}
        done, step = None, 0
        if ckpt is not None:
            checkpoint, done = read_checkpoint(ckpt), ckpt.stem
            step = checkpoint["global_step"]
            # The optimizer's state has the rate that the stage began with.
            kinds = {f"{done}_stage.lr": REFUSED} if step < num_steps[done] else {}
            notices += notices_of_changes(checkpoint, cfg, ckpt, {**CARDS_PRETRAINING, **kinds})
            refuse_less(step, num_steps[done], ckpt, f"{done}_stage.steps asks")
        before = STAGES[: STAGES.index(done)] if done else ()
        claim_folder(
            cfg, ckpt, step + sum(num_steps[stage] for stage in before), sum(num_steps.values()), keep_trained=True
        )
        for notice in notices:
            print(notice, flush=True)
        torch.set_num_threads(cfg.num_threads)
        pl.seed_everything(cfg.seed, verbose=False)
        is_new = is_new_run(cfg, ckpt)
        init = EMBEDDED_BASES.get(cfg.init, cfg.init)
        model, tokenizer = _grown(init, cfg.seed)
        for stage, module, data in make_stages(cfg, model, tokenizer):
            earlier = copy.deepcopy(model.state_dict())  # at the end: the weights before the last stage
            fit(cfg, stage, num_steps[stage], module, data, is_new)
            is_new = False
        blend(model, earlier, cfg.count_stage.blend)
        save_grown_processor(init, folder / BASE)
        save_base(model, folder / BASE)
        finish(folder, sum(num_steps.values()), {})


def _grown(init: str | Path, seed: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The base that goes on, grown, and its tokenizer."""
    with TemporaryDirectory() as scratch:
        tokenizer = save_grown_processor(init, Path(scratch))
    old = Qwen2_5_VLForConditionalGeneration.from_pretrained(init, dtype=torch.float32)
    return grow_model(old, len(tokenizer), seed), tokenizer


def make_stages(
    cfg: CardsPretrainConfig, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> Iterator[tuple[str, CardsStage, pl.LightningDataModule]]:
    """The stages in order; each trains parts of `model` in place, and the dense heads of those before."""
    tower = TowerStage(cfg, model)
    yield "tower", tower, TowerData(cfg)
    for name, stage in (("joint", cfg.joint_stage), ("final", cfg.final_stage), ("count", cfg.count_stage)):
        data = JointData(cfg, tokenizer, model.config.text_config.hidden_size, name)
        yield name, JointStage(cfg, model, tower.heads, tokenizer, stage), data


def fit(
    cfg: CardsPretrainConfig,
    name: str,
    steps: int,
    module: CardsStage,
    data: pl.LightningDataModule,
    is_new: bool,
) -> None:
    """Runs one stage, or the rest of it; a stage that had come to its end only loads what it made.

    `is_new`: what an earlier run has trained in the folder goes once the rehearsal has passed.
    """
    folder = run_folder(cfg)
    path = folder / f"{name}.ckpt"
    found = read_checkpoint(path) if path.exists() and not is_new else None
    if found is not None:
        module.check_checkpoint(found, path)
        if found["global_step"] >= steps:
            module.load_state_dict(found["state_dict"])
            return
    plugins: Any = own_environment()
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=steps,
        gradient_clip_val=cfg.max_grad_norm,
        val_check_interval=cfg.val_every_steps,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=SANITY_STEPS,
        log_every_n_steps=cfg.log_every_steps,
        logger=TensorBoardLogger(
            str(folder), name=EVENTS, version=name, purge_step=found["global_step"] if found else None
        ),
        default_root_dir=str(folder),
        plugins=plugins,
        callbacks=[
            Rehearsal(folder),
            LastCheckpoint(path, cfg.checkpoint_every_steps, cfg.val_every_steps),
            LogFile(folder / f"{name}.log", cfg.log_every_steps),
            FiniteNumbers(advice=f"A lower {name}_stage.lr may help"),
        ],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with rehearsed(trainer, folder, is_new):
        trainer.fit(module, datamodule=data, ckpt_path=path if found else None, weights_only=True)


@torch.no_grad()
def blend(model: PreTrainedModel, before: Mapping[str, torch.Tensor], share: float) -> None:
    """Takes weights to the mean of `before` and their own, in place; `share`, in (0, 1], is that of their own.

    A stage for a few kinds costs the others a little; a mean of weights, of one ancestor, has most of what both can.
    Source: Wortsman et al., "Robust fine-tuning of zero-shot models", arXiv 2109.01903, section 3.
    """
    for name, weight in model.named_parameters():  # tied ones once
        weight.copy_(torch.lerp(before[name], weight, share))


def save_base(model: PreTrainedModel, folder: Path) -> None:
    """Writes weights in float16 and a config that loads them as float32, beside the processor."""
    copy.deepcopy(model).half().save_pretrained(folder)
    # transformers loads in the dtype that config.json names, and wrote float16, which is slow on a CPU.
    config = copy.deepcopy(model.config)
    for part in (config, config.text_config, config.vision_config):
        part.dtype = torch.float32
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
