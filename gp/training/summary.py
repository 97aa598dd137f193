"""What a run is about to do, on one screen."""

from __future__ import annotations

from collections.abc import Sequence

import lightning.pytorch as pl
from torch import nn

from gp.config import TrainConfig
from gp.model import GlimpseModel
from gp.runs.folder import run_folder
from gp.training.schedule import Length


def describe_run(
    config: TrainConfig,
    model: GlimpseModel,
    trainer: pl.Trainer,
    length: Length,
    notices: Sequence[str] = (),
) -> str:
    """One line a subject: base, trained parts, pruning, data, steps, devices."""
    backbone, glimpse = model.backbone, model.glimpse
    parts = (config.data.batch_size, trainer.world_size, config.trainer.accumulate_grad_batches)
    device = trainer.strategy.root_device.type
    known = f" ({length.num_samples:,} samples)" if length.num_samples is not None else ""
    epochs = f", {length.epochs(length.max_steps):.3g} epochs" if length.num_samples else ""
    lines = {
        "run": str(run_folder(config)),
        "base": f"{config.model.base}: {backbone.model_type}, {backbone.num_layers} layers, hidden size "
        f"{backbone.hidden_size}, {_millions(model.base)} parameters, frozen, {config.model.dtype}, "
        f"{config.model.attn_implementation}",
        "trained": f"glimpse token {_millions(glimpse.glimpse_token)}, VIP {_millions(glimpse.vip)} parameters",
        "pruning": f"after layer {glimpse.prune_layer} (of 0..{backbone.num_layers - 1}), {_options(model)}",
        "loss": f"{config.loss.dice:g} Dice + {config.loss.bce:g} BCE + {config.loss.answer:g} answer",
        "data": f"train {', '.join(config.data.train)}{known}; validation {', '.join(config.data.val)}",
        "steps": f"{length.max_steps} of {length.per_step} samples "
        f"({parts[0]} x {parts[1]} devices x {parts[2]} accumulated){epochs}, lr {config.optim.lr:g}",
        "devices": f"{trainer.world_size} x {device}, precision {config.trainer.precision}",
    }
    if config.ckpt is not None:
        lines["resumes"] = str(config.ckpt)
    text = [f"  {name:<8} {value}" for name, value in lines.items()]
    return "\n".join([*text, *(f"  notice   {notice}" for notice in notices)])


def _options(model: GlimpseModel) -> str:
    """The pruning options that differ from keeping nothing but what the threshold says."""
    options = model.options
    texts = [f"threshold {options.threshold:g}", f"at least {options.min_kept}"]
    texts += [f"{name} {value}" for name in ("max_keep_ratio", "fixed_keep_ratio") if (value := getattr(options, name))]
    if options.anchors:
        texts.append(f"anchors {' '.join(options.anchors)}")
    return ", ".join(texts)


def _millions(module: nn.Module) -> str:
    return f"{sum(p.numel() for p in module.parameters()) / 1e6:.3g} M"
