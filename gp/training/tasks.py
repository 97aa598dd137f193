"""What differs between the trainings of `gp.training.train`: what is built, what learns, what is left at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from gp.config import TrainConfig
from gp.config.gate import GateRunConfig
from gp.config.plus import PlusConfig
from gp.formats import publish
from gp.formats.adapter_folder import save_adapter
from gp.formats.glimpse_folder import start_from_glimpse
from gp.loading import load_base, load_gate, load_plus
from gp.model import GlimpseModel
from gp.pruners import GlimpsePruner
from gp.runs import folder as run_folder
from gp.runs.resuming import GATE, KINDS, PLUS
from gp.training.gate import GateModule
from gp.training.grpo.module import PlusModule
from gp.training.grpo.showing import ShowRollouts
from gp.training.module import GlimpseModule
from gp.training.run_module import RunModule

TOLD = ("model", "loss", "optim")  # sections of the config that the trained parts tell; the run has all of them
TOLD_OF_PLUS = (*TOLD, "adapter", "advantage", "reward", "grpo")
TOLD_OF_GATE = ("model", "gate", "optim")


@dataclass(frozen=True)
class Task:
    """One kind of training.

    Args:
        build: called with the config and whether this is a first start.
        module: that trains it.
        export: writes what was trained into the run's folder.
        kinds: what a run that goes on may change.
        callbacks: beside those of every run.
    """

    build: Callable[[Any, bool], GlimpseModel]
    module: Callable[[Any, GlimpseModel], RunModule]
    export: Callable[[Any, GlimpseModel, Path, dict[str, Any]], None]
    kinds: Mapping[str, str]
    callbacks: Callable[[Any], list[pl.Callback]]


def task_of(config: TrainConfig) -> Task:
    """The task that a config's schema means."""
    if isinstance(config, GateRunConfig):
        return GATE_TASK
    return PLUS_TASK if isinstance(config, PlusConfig) else GLIMPSE_TASK


def build_glimpse(config: TrainConfig, start_token: bool = True) -> GlimpseModel:
    """The frozen base with fresh trained parts in float32, and the config's pruning options.

    Args:
        config: of the run.
        start_token: a first start: apply `glimpse.init_from_prompt` or `glimpse.init_from_glimpse` if it is set, and
            start the twig from the base's layers.

    Raises:
        OSError, ValueError: no such trained parts, or parts of another base or size.
    """
    model = load_base(config)
    model.glimpse = GlimpsePruner.build(model.backbone, config.glimpse, config.vip)
    if start_token:
        start_parts(model, config)
    return model


def start_parts(model: GlimpseModel, config: TrainConfig) -> None:
    """Sets the weights that training begins with, where the config says where from; the twig is the base's layers."""
    if model.glimpse.twig is not None:
        model.glimpse.twig.start_from(model.backbone)
    if config.glimpse.init_from_glimpse is not None:
        start_from_glimpse(model.glimpse, model.backbone, config.glimpse.init_from_glimpse)
    elif config.glimpse.init_from_prompt:
        token = model.backbone.send(torch.tensor([last_prompt_token(model.processor)]))
        model.glimpse.glimpse_token.start_from(model.backbone.text_model.embed_tokens(token)[0])


def last_prompt_token(processor: Any) -> int:
    """The token that every prompt ends with: the one that the glimpse token stands behind."""
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "?"}]}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    return processor.tokenizer(text, add_special_tokens=False)["input_ids"][-1]


def export_glimpse(config: TrainConfig, model: GlimpseModel, folder: Path, facts: dict[str, Any]) -> None:
    """The trained parts, and the adapter of their base if it has one, as a folder of their own."""
    place, settings = folder / run_folder.GLIMPSE, asdict(config)
    told = {PlusConfig: TOLD_OF_PLUS, GateRunConfig: TOLD_OF_GATE}.get(type(config), TOLD)
    training = {**facts.pop("training"), **{key: settings[key] for key in told}}
    publish.save_pretrained(
        place,
        model.glimpse,
        model.backbone,
        model.options,
        adapter=model.adapter,
        name=place.as_posix(),
        data=config.data.train,
        measured_on=config.data.val,
        base_revision=config.model.revision,
        training=training,
        **facts,
    )


def export_plus(config: PlusConfig, model: GlimpseModel, folder: Path, facts: dict[str, Any]) -> None:
    """The adapter alone, to train a glimpse on; and with the glimpse that it was trained with, if there is one."""
    save_adapter(folder / run_folder.ADAPTER, model.adapter, model.backbone, config.model.revision)
    if model.glimpse is not None:
        export_glimpse(config, model, folder, facts)


GLIMPSE_TASK = Task(build_glimpse, GlimpseModule, export_glimpse, KINDS, lambda config: [])
PLUS_TASK = Task(
    lambda config, _: load_plus(config),
    PlusModule,
    export_plus,
    PLUS,
    lambda config: [ShowRollouts(config.grpo.show_rollouts)],
)
GATE_TASK = Task(lambda config, _: load_gate(config), GateModule, export_glimpse, GATE, lambda config: [])
