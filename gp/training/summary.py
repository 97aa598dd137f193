"""What a run is about to do, on one screen."""

from __future__ import annotations

from collections.abc import Sequence

import lightning.pytorch as pl
from torch import nn

from gp.config import TrainConfig
from gp.config.gate import GateRunConfig
from gp.config.plus import PlusConfig
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
    backbone = model.backbone
    parts = (config.data.batch_size, trainer.world_size, config.trainer.accumulate_grad_batches)
    device = trainer.strategy.root_device.type
    known = f" ({length.num_samples:,} samples)" if length.num_samples is not None else ""
    epochs = f", {length.epochs(length.max_steps):.3g} epochs" if length.num_samples else ""
    lines = {
        "run": str(run_folder(config)),
        "base": f"{config.model.base}: {backbone.model_type}, {backbone.num_layers} layers, hidden size "
        f"{backbone.hidden_size}, {_size(model)} parameters, frozen, {config.model.dtype}, "
        f"{config.model.attn_implementation}",
        "trained": _trained(model),
        "pruning": f"after layer {config.glimpse.prune_layer} (of 0..{backbone.num_layers - 1}), "
        f"{_pruning(config, model)}",
        "loss": _loss(config),
        "data": f"train {', '.join(config.data.train)}{known}; validation {', '.join(config.data.val)}",
        "steps": f"{length.max_steps} of {length.per_step} samples "
        f"({parts[0]} x {parts[1]} devices x {parts[2]} accumulated){epochs}, lr {config.optim.lr:g}",
        "devices": f"{trainer.world_size} x {device}, precision {config.trainer.precision}",
    }
    if config.ckpt is not None:
        lines["resumes"] = str(config.ckpt)
    text = [f"  {name:<8} {value}" for name, value in lines.items()]
    return "\n".join([*text, *(f"  notice   {notice}" for notice in notices)])


def _size(model: GlimpseModel) -> str:
    """Parameters of the base, without those of an adapter that is trained."""
    adapter = model.trainable()["adapter"]
    return _in_millions(sum(p.numel() for p in model.base.parameters()) - adapter)


def _trained(model: GlimpseModel) -> str:
    if adapter := model.trainable()["adapter"]:
        return f"LoRA adapter of the decoder {_in_millions(adapter)} parameters"
    glimpse = model.glimpse
    if glimpse.gate is not None:
        return f"gate {_millions(glimpse.gate)} parameters, on the glimpse as it is"
    twig = "" if glimpse.twig is None else f", twig of {len(glimpse.twig.layers)} layers {_millions(glimpse.twig)}"
    return f"glimpse token {_millions(glimpse.glimpse_token)}, VIP {_millions(glimpse.vip)}{twig} parameters"


def _pruning(config: TrainConfig, model: GlimpseModel) -> str:
    if not isinstance(config, PlusConfig):
        return _options(model)
    options = "" if model.glimpse is None else f", {_options(model)}"
    return f"draws keep {config.grpo.mask}{options}"


def _loss(config: TrainConfig) -> str:
    if isinstance(config, GateRunConfig):
        return f"BCE: {config.eval.scores[0]} of the un-pruned answer {config.gate.right:g} or more"
    if not isinstance(config, PlusConfig):
        return f"{config.loss.dice:g} Dice + {config.loss.bce:g} BCE + {config.loss.answer:g} answer"
    rewards = " + ".join(f"{weight:g} {name}" for name, weight in config.reward.weights.items() if weight)
    return (
        f"policy gradient of {rewards} over {config.grpo.group_size} answers a question + {config.loss.kl:g} KL, "
        f"mean by {config.loss.aggregation}, advantage / {config.advantage.scale}"
    )


def _options(model: GlimpseModel) -> str:
    """The pruning options that differ from keeping nothing but what the threshold says."""
    options = model.options
    texts = [f"threshold {options.threshold:g}", f"at least {options.min_kept}"]
    texts += [f"{name} {value}" for name in ("max_keep_ratio", "fixed_keep_ratio") if (value := getattr(options, name))]
    if options.anchors:
        texts.append(f"anchors {' '.join(options.anchors)}")
    return ", ".join(texts)


def _millions(module: nn.Module) -> str:
    return _in_millions(sum(p.numel() for p in module.parameters()))


def _in_millions(count: int) -> str:
    return f"{count / 1e6:.3g} M"
