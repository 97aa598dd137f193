"""What a run that goes on may change: every option of the schema has its kind here, and its reason to have it.

A checkpoint states all settings of the run that made it, so that this does not depend on files beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gp.config import TrainConfig
from gp.config.pretrain import PretrainConfig
from gp.config.pretrain_cards import CardsPretrainConfig
from gp.runs.differences import Difference, differences

NOTE = "gp"  # our entry in a Lightning checkpoint: base, parts, settings and length of the run
SETTINGS = "settings"

APPLIED = "applied"  # holds from the first resumed step on; a notice says so
COMPARED = "compared"  # may be written otherwise, but must mean the same: what it names is held against the checkpoint
REFUSED = "refused"  # would be announced and ignored, or make it another run
FREE = "free"  # of this command alone; nothing trained depends on it

KINDS = {
    **dict.fromkeys(("name", "runs_dir", "ckpt", "overwrite"), FREE),
    **dict.fromkeys(("task", "seed"), REFUSED),
    "model.base": COMPARED,  # a folder may have been moved; its sizes and fingerprint are held against the checkpoint's
    "model.revision": REFUSED,  # other frozen weights of the same shape
    "model.adapter_revision": COMPARED,
    "model.adapter": COMPARED,  # a folder may have been moved; its fingerprint is held against the checkpoint's
    **dict.fromkeys(("model.dtype", "model.attn_implementation", "model.fast_tower"), APPLIED),
    **dict.fromkeys(("model.device_map", "model.quantization"), APPLIED),
    **dict.fromkeys(("model.min_pixels", "model.max_pixels", "model.do_pad"), APPLIED),
    **dict.fromkeys(("glimpse.init_from_prompt", "glimpse.init_from_glimpse"), REFUSED),  # for a first step alone
    "glimpse.twig": COMPARED,
    **dict.fromkeys(("glimpse.num_tokens", "glimpse.layers", "glimpse.norm"), COMPARED),
    **dict.fromkeys(("glimpse.prune_layer", "glimpse.read_layers", "glimpse.attention_logits"), COMPARED),
    **dict.fromkeys(("vip.hidden_size", "vip.cond_size", "vip.num_heads", "vip.taps"), COMPARED),
    **dict.fromkeys(("vip.attention", "vip.deep_supervision"), COMPARED),
    **dict.fromkeys(("loss.dice", "loss.bce", "loss.answer"), APPLIED),
    **dict.fromkeys(("prune.threshold", "prune.max_keep_ratio", "prune.fixed_keep_ratio"), APPLIED),
    **dict.fromkeys(("prune.min_kept", "prune.anchors", "prune.budget_scope"), APPLIED),
    **dict.fromkeys(("data.root", "data.train"), COMPARED),  # shards count by name and samples, see gp.data.bookmark
    **dict.fromkeys(("data.val", "data.test", "data.eval_batch_size"), APPLIED),
    **dict.fromkeys(("data.shuffle_buffer", "data.bucket_batches"), REFUSED),  # another order of the samples
    "data.batch_size": APPLIED,  # with bucketing it is part of the order, and gp.data.bookmark refuses it
    **dict.fromkeys(
        ("data.num_workers", "data.worker_start_method", "data.max_skipped_fraction", "data.allow_pipes"), APPLIED
    ),
    **dict.fromkeys(("optim.lr", "optim.glimpse_lr_scale", "optim.twig_lr_scale"), APPLIED),
    **dict.fromkeys(("optim.weight_decay", "optim.betas"), APPLIED),
    **dict.fromkeys(("optim.warmup_fraction", "optim.final_lr_fraction"), APPLIED),
    "optim.ema": REFUSED,  # it is an average over the whole run
    **dict.fromkeys(("optim.max_steps", "optim.epochs"), APPLIED),  # fewer than are done: `refuse_less`
    **dict.fromkeys(("trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy"), APPLIED),
    **dict.fromkeys(("trainer.precision", "trainer.accumulate_grad_batches", "trainer.gradient_clip_val"), APPLIED),
    **dict.fromkeys(("trainer.log_every", "trainer.val_every", "trainer.save_every"), APPLIED),
    **dict.fromkeys(
        ("trainer.val_pruner", "trainer.val_samples", "trainer.paint_images", "trainer.val_before_training"), APPLIED
    ),
    **dict.fromkeys(("trainer.best_metric", "trainer.best_kept", "trainer.stop_metric"), APPLIED),
    **dict.fromkeys(("trainer.stop_patience", "trainer.max_bad_steps", "trainer.logger"), APPLIED),
    **dict.fromkeys(("trainer.recompute", "trainer.compile", "trainer.extra", "data.persistent_workers"), APPLIED),
}

PLUS = {  # the same for `task=grpo`
    **{key: kind for key, kind in KINDS.items() if not key.startswith("loss.")},
    **dict.fromkeys(("loss.kl", "loss.aggregation", "advantage.scale", "reward.weights"), APPLIED),
    **dict.fromkeys(("adapter.rank", "adapter.alpha"), REFUSED),  # weights of other shapes, or of another meaning
    **dict.fromkeys(("grpo.group_size", "grpo.mask", "grpo.boxes_share", "grpo.glimpse"), APPLIED),
    **dict.fromkeys(("grpo.budgets", "grpo.glimpse_revision"), APPLIED),
    **dict.fromkeys(("grpo.max_new_tokens", "grpo.temperature", "grpo.prefix_gradients"), APPLIED),
    "grpo.show_rollouts": APPLIED,
    **dict.fromkeys(("judge.base_url", "judge.model", "judge.protocol", "judge.max_tokens", "judge.extra"), APPLIED),
    **dict.fromkeys(("judge.key_env", "judge.concurrency", "judge.timeout_s", "judge.max_retries"), FREE),
    **dict.fromkeys(("judge.cache", "judge.patience_s"), FREE),
}

GATE = {  # the same for `task=gate`
    **{key: kind for key, kind in KINDS.items() if not key.startswith("loss.")},
    "gate.glimpse": COMPARED,  # a folder may have been moved; what it means is held against the checkpoint's
    "gate.right": APPLIED,
}

PRETRAINING = {  # the same for `task=pretrain`
    **dict.fromkeys(("name", "runs_dir", "ckpt", "overwrite"), FREE),
    **dict.fromkeys(("task", "model"), REFUSED),
    "seed": APPLIED,  # each step draws its scenes from the seed and its own number
    **dict.fromkeys(("vision_stage.lr", "weight_decay"), REFUSED),  # the optimizer's state has them
    **dict.fromkeys(("vision_stage", "joint_stage", "max_grad_norm", "warmup_steps", "min_lr_factor"), APPLIED),
    **dict.fromkeys(("val_scenes", "val_every_steps"), APPLIED),
    **dict.fromkeys(("num_workers", "log_every_steps", "checkpoint_every_steps"), FREE),
}

CARDS_PRETRAINING = {  # the same for `task=pretrain_cards`; the peak rate of the stage at hand is REFUSED, too
    **dict.fromkeys(("name", "runs_dir", "ckpt", "overwrite"), FREE),
    **dict.fromkeys(("task", "init", "weight_decay"), REFUSED),
    "seed": APPLIED,
    **dict.fromkeys(("tower_stage", "joint_stage", "final_stage", "count_stage"), APPLIED),
    **dict.fromkeys(("max_grad_norm", "warmup_steps", "min_lr_factor", "val_batches", "val_every_steps"), APPLIED),
    **dict.fromkeys(("num_threads", "num_workers", "log_every_steps", "checkpoint_every_steps"), FREE),
}


def kind_of(key: str, kinds: Mapping[str, str] = KINDS) -> str:
    """The kind of an option by its dotted name; a part of a mapping, such as `data.test.SPLIT`, has the whole's.

    Raises:
        KeyError: an option of the schema that was not given a kind.
    """
    if key.startswith("eval."):
        return FREE
    while key not in kinds and "." in key:
        key = key.rpartition(".")[0]
    return kinds[key]


def notices_of_changes(
    checkpoint: Mapping[str, Any],
    config: TrainConfig | PretrainConfig | CardsPretrainConfig,
    where: str | Path,
    kinds: Mapping[str, str] = KINDS,
) -> list[str]:
    """Says which settings a resumed run changes.

    Args:
        checkpoint: of the run that goes on.
        config: of this command.
        where: the checkpoint's path, for errors.
        kinds: of the task's options.

    Returns:
        A line per change that will hold from the first resumed step on.

    Raises:
        ValueError: the checkpoint does not state its settings, or one differs that a resumed run cannot change.
    """
    there = checkpoint.get(NOTE, {}).get(SETTINGS)
    if there is None:
        raise ValueError(f"ckpt {where}: does not state the settings it was trained with: not a checkpoint to resume")
    changes = differences(there, asdict(config))
    if wrong := [one for one in changes if kind_of(one.key, kinds) == REFUSED]:
        raise ValueError(
            f"ckpt {where}: {wrong[0]}; a run that goes on cannot change it: "
            f"give {_as_given(wrong[0])}, or start a new run with name=..."
        )
    return [f"resumes with {change}" for change in changes if kind_of(change.key, kinds) == APPLIED]


def refuse_less(
    step: int, max_steps: int, where: str | Path, asked_by: str = "optim.max_steps or optim.epochs ask"
) -> None:
    """Refuses to shorten a run to fewer optimizer steps than it has done (ValueError, naming the options)."""
    if step > max_steps:
        raise ValueError(
            f"ckpt {where}: has done {step} steps, and {asked_by} for {max_steps}: "
            "give more, or start a new run with name=..."
        )


def _as_given(change: Difference) -> str:
    return f"{change.key}={'null' if change.there is None else change.there}"
