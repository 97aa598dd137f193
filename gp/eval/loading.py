"""Loads a checkpoint on disk as a model that can be evaluated, with the config that it belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from gp.backbones import Backbone
from gp.backbones.adapters import adapter_weights
from gp.config import TrainConfig, load_config
from gp.config.gate import GateRunConfig
from gp.config.load import prune_options
from gp.config.plus import PlusConfig
from gp.config.schema import FSDP2
from gp.data.shards import check_shards
from gp.embedded import EMBEDDED_GLIMPSES
from gp.eval.names import check_names, check_without_glimpse
from gp.eval.plan import find_reference, plan_rows
from gp.formats.adapter_folder import has_adapter
from gp.formats.facts import base_facts
from gp.formats.glimpse_folder import load_glimpse
from gp.loading import load_base, load_gate, load_plus, outline
from gp.model import GlimpseModel
from gp.modules import Gate
from gp.pruners import GlimpsePruner
from gp.runs.checkpoint import adapter_parts, gate_parts, read_checkpoint, trained_parts
from gp.runs.differences import ADAPTER
from gp.runs.folder import CONFIG, EVAL, LAST

PARTS = "config.json"


def load_run(
    ckpt: str | Path, overrides: Sequence[str] = (), config_path: str | Path | Sequence[str | Path] | None = None
) -> tuple[GlimpseModel, TrainConfig]:
    """Loads a trained glimpse on its base.

    Args:
        ckpt: a run's `last.ckpt` (or another Lightning checkpoint of it), the run's folder, a `glimpse/` folder of ours
            or of the published format, or "tiny" (the embedded one).
        overrides: `key=value`, on top of the config.
        config_path: a file, or several of which later ones win; None: the `config.yaml` beside the checkpoint.

    Returns:
        The model on its device, trained parts in float32 as in training, with the config's pruning options as
        defaults; and the resolved config. Of a folder of trained parts, what it says about their layers and sizes
        takes the place of the config's sections `glimpse` and `vip`.

    Raises:
        FileNotFoundError: no such checkpoint or config; the message says where it was looked for.
        ValueError: a checkpoint of another base or shape, or a file that is none.
    """
    path, config = find_run(ckpt, overrides, config_path)
    return load_model(path, config).to(find_device(config.trainer.accelerator)).eval(), config


def find_run(
    ckpt: str | Path | None,
    overrides: Sequence[str] = (),
    config_path: str | Path | Sequence[str | Path] | None = None,
    bench: Path | None = None,
) -> tuple[Path | None, TrainConfig]:
    """Finds checkpoint and config without loading a model; arguments and errors as of `load_run`.

    Args:
        ckpt: None: the base alone, for methods that need no trained parts; then `config_path` is needed.
        bench: a file that names splits, over the config and under the overrides; see `gp.eval.benches`.

    Returns:
        The checkpoint's file or folder, and the resolved config.
    """
    path = None if ckpt is None else find_checkpoint(ckpt)
    given = find_config(path) if config_path is None else config_path
    files = [given] if isinstance(given, str | Path) else list(given)
    config = load_config([*files, *([bench] if bench else [])], overrides)
    if not isinstance(config, TrainConfig):
        raise ValueError(
            f"config {config_path or find_config(path)}: expected task glimpse, grpo or gate, got {config.task}"
        )
    if config.trainer.strategy == FSDP2:
        raise ValueError(
            f"trainer.strategy {FSDP2} is for training: evaluate with trainer.strategy=auto, and a base that is larger "
            "than a card with model.device_map=auto or model.quantization"
        )
    check_names(config.eval)
    without = isinstance(config, PlusConfig) and config.grpo.glimpse is None and path is not None and path.is_file()
    if path is None or without:
        check_without_glimpse(config.eval)
    return path, config


def check_before_loading(path: Path | None, config: TrainConfig) -> None:
    """Refuses shards that are not there, and trained parts of other sizes than the base's, before it is loaded.

    Raises:
        FileNotFoundError: a shard.
        OSError: no such base.
        ValueError: as of `load_run`, or no row that can be run on this base.
    """
    for split in config.eval.splits:
        check_shards(f"data.test.{split}", config.data.test[split], config.data)
    base = outline(config.model)
    _check_rows(base, _outlined_parts(path, base, config), config)


def check_rows_before_training(config: TrainConfig) -> None:
    """Refuses an evaluation none of whose rows can be run on the base, before it is loaded (ValueError)."""
    base = outline(config.model)
    if isinstance(config, PlusConfig):
        _check_rows(base, _glimpse_of_plus(base, config), config)
    elif isinstance(config, GateRunConfig):
        _check_rows(base, _glimpse_of_gate(base, config), config)
    else:
        _check_rows(base, GlimpsePruner.build(base, config.glimpse, config.vip), config)


def _outlined_parts(path: Path | None, base: Backbone, config: TrainConfig) -> GlimpsePruner | None:
    if path is not None and path.is_file() and isinstance(config, PlusConfig):
        return _glimpse_of_plus(base, config)
    if path is not None and path.is_file() and isinstance(config, GateRunConfig):
        return _glimpse_of_gate(base, config)
    return None if path is None else _load_parts(path, base, config)


def _glimpse_of_plus(base: Backbone, config: PlusConfig) -> GlimpsePruner | None:
    settings = config.grpo
    return None if settings.glimpse is None else load_glimpse(settings.glimpse, base, settings.glimpse_revision)[0]


def _glimpse_of_gate(base: Backbone, config: GateRunConfig) -> GlimpsePruner:
    parts = load_glimpse(config.gate.glimpse, base)[0]
    parts.gate = Gate(base.hidden_size, base.norm_eps)
    return parts


def _check_rows(base: Backbone, parts: GlimpsePruner | None, config: TrainConfig) -> None:
    model = GlimpseModel(base.model, parts, prune_options(config))
    model.pruner_settings = config.eval.methods
    methods, _ = plan_rows(model, config.eval.pruners, config.eval.budgets, config.eval.thresholds)
    find_reference(methods, config.eval.reference)


def load_model(path: Path | None, config: TrainConfig) -> GlimpseModel:
    """Loads the base of a config and the trained parts of a checkpoint, if there is one; both as of `find_run`.

    What a folder of trained parts says about their layers and sizes is written into the config.
    """
    if isinstance(config, PlusConfig) and path is not None and path.is_file():
        return _load_plus(path, config)
    if isinstance(config, GateRunConfig) and path is not None and path.is_file():
        return _load_gate(path, config)
    if path is not None and path.is_dir() and has_adapter(path):
        config.model.adapter, config.model.adapter_revision = str(path), None
    model = load_base(config)
    if path is None:
        return model
    model.glimpse = _load_parts(path, model.backbone, config)
    if path.is_dir():
        config.glimpse, config.vip = model.glimpse.configs
    return model


def _load_plus(path: Path, config: PlusConfig) -> GlimpseModel:
    """Base, adapter of a checkpoint of task `grpo`, and the glimpse that the run named, if it did."""
    model = load_plus(config)
    facts = {key: value for key, value in base_facts(model.backbone).items() if key != ADAPTER}
    weights = {f"model.base.{name}": weight for name, weight in adapter_weights(model.base)}
    meaning = {"adapter": {"rank": config.adapter.rank, "alpha": config.adapter.alpha}}
    for name, value in adapter_parts(read_checkpoint(path), facts, meaning, weights, path).items():
        weights[name].data.copy_(value)
    model.base.requires_grad_(False)
    return model


def _load_gate(path: Path, config: GateRunConfig) -> GlimpseModel:
    """Base and glimpse that a run of task `gate` named, with the gate of its checkpoint."""
    model = load_gate(config)
    parts = model.glimpse
    assert parts is not None and parts.gate is not None
    found = gate_parts(
        read_checkpoint(path), base_facts(model.backbone), parts.meaning(), parts.gate.state_dict(), path
    )
    parts.gate.load_state_dict(found)
    parts.requires_grad_(False)
    return model


def _load_parts(path: Path, base: Backbone, config: TrainConfig) -> GlimpsePruner:
    if path.is_dir():
        return load_glimpse(path, base)[0]
    glimpse = GlimpsePruner.build(base, config.glimpse, config.vip)
    meaning, expected = glimpse.meaning(), glimpse.state_dict()
    glimpse.load_state_dict(trained_parts(read_checkpoint(path), base_facts(base), meaning, expected, path))
    return glimpse


def out_folder(config: TrainConfig, ckpt: str | Path | None) -> Path:
    """Folder of the results: `eval.out`, or `eval/` in the checkpoint's run; without one, in the config's run folder.

    A folder of trained parts that lies in no run has its own `eval/`: several of them may lie side by side.
    """
    if config.eval.out is not None:
        return Path(config.eval.out)
    if ckpt is None:
        return Path(config.runs_dir) / config.name / f"{EVAL}-without-glimpse"
    if str(ckpt) in EMBEDDED_GLIMPSES:
        return Path(config.runs_dir) / config.name / EVAL  # not into the installed package
    path = Path(ckpt)
    is_own = path.is_dir() and ((path / CONFIG).is_file() or not (path.resolve().parent / CONFIG).is_file())
    return (path if is_own else path.parent) / EVAL


def find_checkpoint(ckpt: str | Path) -> Path:
    """The file or folder that a user's `ckpt=` means."""
    path = EMBEDDED_GLIMPSES.get(str(ckpt), Path(ckpt))
    if not path.exists():
        near = sorted(path.parent.glob("*.ckpt")) if path.parent.is_dir() else []
        there = f"; there is {', '.join(p.name for p in near)}" if near else ""
        raise FileNotFoundError(f"ckpt {path}: no such file or folder{there}")
    if (path / LAST).is_file():
        return path / LAST
    if path.is_dir() and not (path / PARTS).is_file():
        raise FileNotFoundError(f"ckpt {path}: neither a run ({LAST}) nor a folder of trained parts ({PARTS})")
    return path


def find_config(path: Path) -> Path:
    """The config beside a checkpoint: in its folder, or for a folder also in the one above."""
    folders = [path, path.resolve().parent] if path.is_dir() else [path.parent]
    for folder in folders:
        if (folder / CONFIG).is_file():
            return folder / CONFIG
    looked = " and ".join(str(folder) for folder in folders)
    raise FileNotFoundError(f"ckpt {path}: no {CONFIG} in {looked}; name the run's config with --config")


def find_device(accelerator: str) -> torch.device:
    """The one device that a `trainer.accelerator` means here."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.device("cuda")
    if accelerator in ("auto", "cpu"):
        return torch.device("cpu")
    if accelerator == "mps" and torch.backends.mps.is_available():
        return torch.device("mps")
    raise ValueError(f"trainer.accelerator={accelerator}: there is no such device here; auto and cpu always work")
