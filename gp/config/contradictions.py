"""Refuses options that contradict each other, and values of a form that a range cannot state."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import PurePath
from typing import Protocol

from gp.config.fitting import nearest
from gp.config.gate import GateRunConfig
from gp.config.judge import check_judge
from gp.config.plus import REWARDS, PlusConfig
from gp.config.pretrain import PretrainConfig
from gp.config.pretrain_cards import CardsPretrainConfig
from gp.config.schema import (
    FSDP2,
    GATE_FIGURES,
    DataConfig,
    EvalConfig,
    GlimpseConfig,
    OptimConfig,
    PruneConfig,
    TrainConfig,
    VIPConfig,
)
from gp.config.sets import check_sets

DEVICES = re.compile(r"auto|\d+(,\d+)*,?")
SPLIT = re.compile(r"[^/\\\0]+")


def check(config: TrainConfig) -> None:
    """Checks a config whose options are each in their range.

    Raises:
        ValueError: names the keys and their values.
    """
    check_run(config)
    check_model(config.model)
    _check_glimpse(config.glimpse)
    _check_vip(config.vip)
    _check_prune(config.prune)
    _check_length(config.optim)
    _check_devices(config.trainer.devices)
    _check_large(config)
    _check_splits(config.eval, config.data)
    check_sets(config.eval)
    _check_figures(config)
    _check_validation(config)
    if isinstance(config, PlusConfig):
        _check_plus(config)
    elif isinstance(config, GateRunConfig):
        _check_gate(config)
    elif config.loss.dice == 0 and config.loss.bce == 0 and config.loss.answer == 0:
        raise ValueError("loss.dice, loss.bce and loss.answer are all 0: nothing would be trained")


def check_run(config: TrainConfig | PretrainConfig | CardsPretrainConfig) -> None:
    """Checks what every run has: its name, and how it begins (ValueError)."""
    check_name(config.name)
    if not isinstance(config, CardsPretrainConfig) and config.overwrite and config.ckpt in ("auto", "last"):
        raise ValueError(f"ckpt={config.ckpt} and overwrite=true contradict each other: go on, or start anew")


def check_name(name: str) -> None:
    """A run's folder lies inside `runs_dir`."""
    path = PurePath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ValueError(f"name must be a folder inside runs_dir, got {name!r}")


class Loaded(Protocol):
    """What every base's options have, of a run or of a server."""

    dtype: str
    attn_implementation: str
    quantization: str | None
    min_pixels: int | None
    max_pixels: int | None


def check_model(model: Loaded) -> None:
    """Checks how a base is loaded (ValueError)."""
    if model.attn_implementation.startswith("flash") and model.dtype == "float32":
        raise ValueError(f"{model.attn_implementation} attention needs model.dtype bfloat16 or float16, got float32")
    if model.quantization == "int4" and model.dtype != "bfloat16":
        raise ValueError(f"model.quantization int4 computes in bfloat16 only, got model.dtype {model.dtype}")
    low, high = model.min_pixels, model.max_pixels
    if low is not None and high is not None and low > high:
        raise ValueError(f"model.min_pixels {low} is more than model.max_pixels {high}")


def _check_glimpse(glimpse: GlimpseConfig) -> None:
    last = glimpse.prune_layer + glimpse.twig
    if max(glimpse.read_layers or [0]) > last:
        twig = f" and its glimpse.twig {glimpse.twig}" if glimpse.twig else ""
        raise ValueError(
            f"glimpse.read_layers {glimpse.read_layers} read after glimpse.prune_layer {glimpse.prune_layer}{twig}: "
            "the tokens would be gone"
        )
    if glimpse.twig and max(glimpse.read_layers or [last]) != last:
        raise ValueError(
            f"glimpse.read_layers {glimpse.read_layers}: glimpse.twig {glimpse.twig} behind glimpse.prune_layer "
            f"{glimpse.prune_layer} ends with layer {last}, which must be read, or fewer copies would do"
        )
    if glimpse.layers is not None and 0 not in glimpse.layers:
        raise ValueError(f"glimpse.layers must contain 0, where the token enters; got {glimpse.layers}")


def _check_vip(vip: VIPConfig) -> None:
    heads, width, joint = vip.num_heads, vip.hidden_size, vip.hidden_size + vip.cond_size
    if width % heads or joint % (4 * heads):
        raise ValueError(
            f"vip.num_heads {heads} must divide vip.hidden_size {width}, "
            f"and 4 * vip.num_heads must divide vip.hidden_size + vip.cond_size {joint}"
        )


def _check_prune(prune: PruneConfig) -> None:
    if prune.max_keep_ratio is not None and prune.fixed_keep_ratio is not None:
        raise ValueError("prune.max_keep_ratio and prune.fixed_keep_ratio contradict each other: give one of them")


def _check_length(optim: OptimConfig) -> None:
    """A run is as long as the one of the two options says that is given."""
    if optim.max_steps is None and optim.epochs is None:
        raise ValueError("no value for optim.max_steps or optim.epochs: expected one of the two")
    if optim.max_steps is not None and optim.epochs is not None:
        raise ValueError(
            f"optim.max_steps {optim.max_steps} and optim.epochs {optim.epochs:g} contradict each other: "
            "give one of the two and set the other to null"
        )


def _check_devices(devices: int | str) -> None:
    fits = DEVICES.fullmatch(devices) if isinstance(devices, str) else devices == -1 or devices >= 1
    if not fits:
        raise ValueError(
            f'trainer.devices must be auto, 1 or more, -1 for all, or numbers as in "0,1", got {devices!r}'
        )


def _check_large(config: TrainConfig) -> None:
    """Ways of a base that is larger than a card: they do not go together (docs/large.md)."""
    model, trainer, sharded = config.model, config.trainer, config.trainer.strategy == FSDP2
    if model.device_map is not None and (trainer.devices not in ("auto", 1, "1") or trainer.num_nodes > 1 or sharded):
        raise ValueError(
            f"model.device_map {model.device_map} lets one process have all devices; got trainer.devices "
            f"{trainer.devices}, trainer.num_nodes {trainer.num_nodes}, trainer.strategy {trainer.strategy}: set "
            "trainer.devices=1, and choose cards by CUDA_VISIBLE_DEVICES"
        )
    if not sharded:
        return
    for key, given, why in (
        ("model.quantization", model.quantization, "quantized weights cannot be cut into shards"),
        ("model.adapter", model.adapter, "only stock layers are sharded"),
        ("optim.ema", config.optim.ema, "an average is taken of a whole module"),
        (
            "task",
            config.task if isinstance(config, PlusConfig) else None,
            "its base learns",
        ),
    ):
        if given is not None:
            raise ValueError(f"trainer.strategy {FSDP2} and {key} {given} do not go together: {why}")
    if config.eval.after_training:
        raise ValueError(
            f"trainer.strategy {FSDP2} and eval.after_training true do not go together: set it to false, and evaluate "
            "the run by evaluate.py with trainer.strategy=auto and model.device_map=auto or model.quantization"
        )


def _check_plus(config: PlusConfig) -> None:
    if config.model.adapter is not None:
        raise ValueError(
            f"model.adapter {config.model.adapter}: task grpo trains an adapter of its own; set it to null"
        )
    if config.optim.ema is not None:
        raise ValueError(f"optim.ema {config.optim.ema:g}: task grpo averages no adapter; set it to null")
    if unknown := [name for name in config.reward.weights if name not in REWARDS]:
        near = nearest(unknown[0], REWARDS)
        raise ValueError(f"reward.weights: there is no reward {unknown[0]!r}; the nearest known one is {near!r}")
    if not any(config.reward.weights.values()):
        raise ValueError(f"reward.weights {config.reward.weights}: all are 0, nothing would be learned")
    if config.reward.weights.get("judge"):
        _check_reward_judge(config)
    if config.grpo.mask == "boxes" and config.grpo.budgets != [None]:
        raise ValueError(
            f"grpo.budgets {config.grpo.budgets}: grpo.mask boxes keeps the boxes, whatever their size; "
            "give grpo.mask=glimpse or mixed, or leave grpo.budgets out"
        )
    without = config.grpo.glimpse is None
    if without and config.grpo.mask != "boxes":
        raise ValueError(f"grpo.mask {config.grpo.mask} needs a trained glimpse: give grpo.glimpse its folder")
    if without and config.eval.after_training and (wrong := [one for one in config.eval.pruners if one == "glimpse"]):
        raise ValueError(
            f"eval.pruners {wrong[0]} needs a trained glimpse: give grpo.glimpse its folder, or leave it out"
        )


def _check_reward_judge(config: PlusConfig) -> None:
    for key in ("base_url", "model"):
        if not getattr(config.judge, key):
            raise ValueError(
                f"judge.{key}: no value; reward.weights.judge {config.reward.weights['judge']:g} needs one"
            )
    check_judge(config.judge)
    if find_spec("openai") is None:
        raise ValueError("reward.weights.judge needs the package openai: pip install openai (extra `judge`)")


def _check_gate(config: GateRunConfig) -> None:
    if config.optim.ema is not None:
        raise ValueError(f"optim.ema {config.optim.ema:g}: task gate averages no head; set it to null")


def _check_validation(config: TrainConfig) -> None:
    if config.trainer.val_pruner != "glimpse" and config.task != "glimpse":
        raise ValueError(
            f"trainer.val_pruner {config.trainer.val_pruner}: only task glimpse validates by another method"
        )
    if config.trainer.compile and config.task != "glimpse":
        raise ValueError(f"trainer.compile true: only task glimpse has a compiled step, got task {config.task}")


def _check_figures(config: TrainConfig) -> None:
    """A run chooses by a figure that its validation has."""
    for key in ("best_metric", "stop_metric"):
        figure = getattr(config.trainer, key)
        if figure is not None and (figure in GATE_FIGURES) != isinstance(config, GateRunConfig):
            raise ValueError(f"trainer.{key} {figure}: a validation of task {config.task} has no such figure")


def _check_splits(evaluation: EvalConfig, data: DataConfig) -> None:
    """Splits exist, and their names can be part of a file's name."""
    if wrong := [name for name in data.test if not SPLIT.fullmatch(name)]:
        raise ValueError(f"data.test: a split's name must be one without slashes, got {wrong[0]!r}")
    if unknown := set(evaluation.splits) - set(data.test):
        raise ValueError(f"eval.splits {sorted(unknown)} not in data.test, which has {sorted(data.test)}")
    if unknown := set(evaluation.sets) - set(data.test):
        raise ValueError(f"eval.sets {sorted(unknown)} without shards: not in data.test, which has {sorted(data.test)}")
