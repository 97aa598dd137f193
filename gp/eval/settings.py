"""Settings that results depend on: results of other settings are refused, never mixed with those of this run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from gp.backbones.host import tensors_of
from gp.config import EvalConfig, TrainConfig
from gp.config.sets import set_options
from gp.engine.generation import switched_off
from gp.eval.plan import Method
from gp.model import GlimpseModel
from gp.runs.differences import differences
from gp.runs.writing import write_text

SETTINGS = "settings.json"
FORMAT = 3  # of the result lines
GROWING = ("data", "methods", "sets")  # what a later call may add to


def settings_of(model: GlimpseModel, config: TrainConfig, ckpt_id: str) -> dict[str, Any]:
    """Everything that the results of all rows depend on, but the data, as plain JSON values.

    Batch size, number of samples and number of processes are not among them: an evaluation may go on with others.
    `not_greedy`, if it is there, is what of the base's generation config is switched off; earlier versions did not.
    `quantization` is there if the base is quantized.
    """
    off = switched_off(model.generation_config)
    return {
        **({"not_greedy": json.loads(json.dumps(off, default=str))} if off else {}),
        "format": FORMAT,
        "ckpt_id": ckpt_id,
        "base": config.model.base,
        "base_revision": config.model.revision,
        "base_id": norms_hash(model.base),
        "dtype": str(model.backbone.dtype).removeprefix("torch."),
        "attn_implementation": config.model.attn_implementation,
        **({"quantization": config.model.quantization} if config.model.quantization else {}),
        "min_pixels": config.model.min_pixels,
        "max_pixels": config.model.max_pixels,
        "do_pad": config.model.do_pad,
        "prune_layer": model.glimpse.prune_layer if model.glimpse is not None else None,
        "prune": json.loads(json.dumps(asdict(model.options))),
        "max_new_tokens": config.eval.max_new_tokens,
        "seed": config.seed,
    }


def settings_of_methods(model: GlimpseModel, methods: Sequence[Method]) -> dict[str, dict[str, Any]]:
    """Settings of every pruner that has a row, as given; empty where they are the published ones."""
    return json.loads(json.dumps({m.pruner: dict(model.pruner_settings.get(m.pruner, {})) for m in methods}))


def settings_of_sets(evaluation: EvalConfig) -> dict[str, dict[str, Any]]:
    """What the answers to each split depend on and the split says itself: `suffix`, `max_new_tokens`; most say none."""
    given = {split: set_options(evaluation, split) for split in evaluation.splits}
    general = {"suffix": "", "max_new_tokens": evaluation.max_new_tokens}
    return {
        split: {key: getattr(options, key) for key, value in general.items() if getattr(options, key) != value}
        for split, options in given.items()
    }


def shards_of(shards: Sequence[str]) -> list[list]:
    """Name and size in bytes of every shard of a split (null for one that is not a local file)."""
    return [[Path(shard).name, Path(shard).stat().st_size if Path(shard).is_file() else None] for shard in shards]


def claim(
    out: Path,
    settings: dict[str, Any],
    shards: dict[str, list[list]],
    methods: dict[str, dict[str, Any]],
    sets: dict[str, dict[str, Any]] | None = None,
) -> None:
    """Writes the settings beside the results, or checks them against those that are there.

    Args:
        out: the folder of the evaluation.
        settings: see `settings_of`.
        shards: split -> its shards; a split that the folder does not have yet is added.
        methods: pruner -> its settings; one that the folder does not have yet is added.
        sets: split -> what its answers depend on beside that, see `settings_of_sets`.

    Raises:
        ValueError: results of other settings are in the folder; the message names the first key that differs.
    """
    path = out / SETTINGS
    there = _read(path) if path.is_file() else {key: {} for key in GROWING}
    remedy = f"delete {out} to start afresh, or write elsewhere with eval.out=..."
    if path.is_file() and (wrong := differences({key: there.get(key) for key in settings}, settings)):
        key, old, new = wrong[0].key, wrong[0].there, wrong[0].here
        raise ValueError(f"{path}: the results there were made with {key} {old!r}, this run has {new!r}; {remedy}")
    for split, entries in shards.items():
        if there["data"].setdefault(split, entries) != entries:
            raise ValueError(f"{path}: the results there were made with other shards of split {split!r}; {remedy}")
    for split, value in (sets or {}).items():
        if (before := there["sets"].setdefault(split, value)) != value:
            raise ValueError(
                f"{path}: the results there were made with eval.sets.{split} {before}, this run has {value}; {remedy}"
            )
    for name, value in methods.items():
        if (before := there["methods"].setdefault(name, value)) != value:
            raise ValueError(
                f"{path}: the results there were made with eval.methods.{name} {before}, this run has {value}; {remedy}"
            )
    out.mkdir(parents=True, exist_ok=True)
    grown = {key: there[key] for key in GROWING}
    write_text(path, json.dumps({**settings, **grown}, indent=1) + "\n")


def weights_id(model: GlimpseModel) -> str:
    """Hash of the trained parts: the same for a Lightning checkpoint and for the folder exported from it."""
    return _hash(model.glimpse.state_dict()) if model.glimpse is not None else "no glimpse"


def norms_hash(base: torch.nn.Module) -> str:
    """Hash of the base's vectors (norms and biases): a base that was trained anew has others, and they are few."""
    return _hash({name: value for name, value in tensors_of(base) if value.ndim == 1})


def _hash(tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _read(path: Path) -> dict[str, Any]:
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
        for key in ("methods", "sets"):  # folders of earlier versions have none
            there.setdefault(key, {})
        if not all(isinstance(there[key], dict) for key in GROWING):
            raise ValueError(f"{' and '.join(GROWING)} are not mappings")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not an evaluation's settings ({error}); delete {path.parent}") from error
    return there
