"""YAML file + key=value overrides -> a checked, typed config. An unknown key names its nearest known one."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from gp.config.pretrain import PretrainConfig
from gp.config.schema import OptimConfig, TrainConfig
from gp.types import PruneOptions

SCHEMAS = {"glimpse": TrainConfig, "pretrain": PretrainConfig}
CHOICES = {
    "model.dtype": ("float32", "bfloat16", "float16"),
    "model.attn_implementation": ("eager", "sdpa", "flash_attention_2", "flash_attention_3"),
    "glimpse.norm": ("rmsnorm", "layernorm"),
    "vip.attention": ("global", "window"),
}
START_METHODS = ("fork", "spawn", "forkserver")


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> TrainConfig | PretrainConfig:
    """Reads a YAML file, applies `key=value` overrides and checks the whole.

    Args:
        path: a file whose `task` key names the schema (`glimpse`, the default, or `pretrain`).
        overrides: e.g. `["optim.lr=1e-4", "trainer.devices=2"]`; values are parsed as YAML.

    Returns:
        The dataclass of the schema, fully typed.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an unknown or missing key, a wrong type, or options that contradict each other.
    """
    given, changes = read_yaml(path), parse_overrides(overrides)
    schema = schema_of(changes.get("task", given.get("task", "glimpse")), str(path))
    config = merge_options(schema, {f"config {path}": given, "command line": changes})
    check(config)
    return config


def merge_options(schema: type, given: Mapping[str, DictConfig]) -> Any:
    """A schema's defaults, then what each source gives.

    Args:
        schema: a dataclass.
        given: where it comes from, for messages -> keys and values; later ones win.

    Returns:
        The dataclass of the schema, fully typed.

    Raises:
        ValueError: an unknown or missing key, or a wrong type.
    """
    merged = OmegaConf.structured(schema)
    for where, values in given.items():
        merged = _merge(merged, values, where)
    return to_typed(merged, next(iter(given)))


def read_yaml(path: str | Path) -> DictConfig:
    """A YAML file of keys and values; FileNotFoundError, or ValueError if it holds something else."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"config {path}: no such file")
    given = OmegaConf.load(path)
    if not isinstance(given, DictConfig):
        raise ValueError(f"config {path}: expected keys and values, got a {type(given).__name__}")
    return given


def parse_overrides(overrides: Sequence[str]) -> DictConfig:
    """`["a.b=1"]` -> a nested config; each entry must have the form key=value."""
    for text in overrides:
        if "=" not in text or text.startswith("="):
            raise ValueError(f"command line: expected key=value, got {text!r}")
        try:
            OmegaConf.from_dotlist([text])
        except (OmegaConfBaseException, YAMLError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"command line: the value of {text!r} is not YAML: {reason}") from error
    return OmegaConf.from_dotlist(list(overrides))


def schema_of(task: str, where: str) -> type:
    """The root dataclass of a task."""
    if task not in SCHEMAS:
        raise ValueError(f"{where}: task must be one of {sorted(SCHEMAS)}, got {task!r}")
    return SCHEMAS[task]


def to_typed(config: DictConfig, where: str) -> Any:
    """OmegaConf -> dataclass; a value that is still missing is an error that names it."""
    missing = OmegaConf.missing_keys(config)
    if missing:
        raise ValueError(f"{where}: no value for {', '.join(sorted(missing))}")
    return OmegaConf.to_object(config)


def check(config: TrainConfig | PretrainConfig) -> None:
    """Refuses values outside their range and options that contradict each other."""
    if not isinstance(config, TrainConfig):
        return
    for key, allowed in CHOICES.items():
        section, name = key.split(".")
        if (value := getattr(getattr(config, section), name)) not in allowed:
            raise ValueError(f"{key} must be one of {', '.join(allowed)}, got {value!r}")
    prune_options(config)
    read_layers = config.glimpse.read_layers or [config.glimpse.prune_layer]
    if config.glimpse.prune_layer < 0:
        raise ValueError(f"glimpse.prune_layer must be 0 or more, got {config.glimpse.prune_layer}")
    if max(read_layers) > config.glimpse.prune_layer:
        raise ValueError(
            f"glimpse.read_layers {read_layers} read after glimpse.prune_layer {config.glimpse.prune_layer}: "
            "the tokens would be gone"
        )
    if config.glimpse.layers is not None and 0 not in config.glimpse.layers:
        raise ValueError(f"glimpse.layers must contain 0, where the token enters; got {config.glimpse.layers}")
    if config.loss.dice == 0 and config.loss.bce == 0 and config.loss.answer == 0:
        raise ValueError("loss.dice, loss.bce and loss.answer are all 0: nothing would be trained")
    if config.model.attn_implementation.startswith("flash") and config.model.dtype == "float32":
        raise ValueError(
            f"{config.model.attn_implementation} attention needs model.dtype bfloat16 or float16, got float32"
        )
    _check_length(config.optim)
    if config.data.worker_start_method not in (None, *START_METHODS):
        given = config.data.worker_start_method
        raise ValueError(f"data.worker_start_method must be null or one of {', '.join(START_METHODS)}, got {given!r}")
    for name in ("batch_size", "eval_batch_size", "bucket_batches"):
        if getattr(config.data, name) < 1:
            raise ValueError(f"data.{name} must be at least 1, got {getattr(config.data, name)}")
    if not 0.0 <= config.data.max_skipped_fraction <= 1.0:
        raise ValueError(f"data.max_skipped_fraction must be in [0, 1], got {config.data.max_skipped_fraction}")
    if unknown := set(config.eval.splits) - set(config.data.test):
        raise ValueError(f"eval.splits {sorted(unknown)} not in data.test, which has {sorted(config.data.test)}")
    for budget in config.eval.budgets:
        if budget is not None and not 0.0 < budget <= 1.0:
            raise ValueError(f"eval.budgets must be null or in (0, 1], got {budget}")


def _check_length(optim: OptimConfig) -> None:
    """A run is as long as the one of the two options says that is given."""
    if optim.max_steps is None and optim.epochs is None:
        raise ValueError("no value for optim.max_steps or optim.epochs: expected one of the two")
    if optim.max_steps is not None and optim.epochs is not None:
        raise ValueError(
            f"optim.max_steps {optim.max_steps} and optim.epochs {optim.epochs:g} contradict each other: "
            "give one of the two and set the other to null"
        )
    for name in ("max_steps", "epochs"):
        if (value := getattr(optim, name)) is not None and value <= 0:
            raise ValueError(f"optim.{name} must be more than 0, got {value:g}")


def prune_options(config: TrainConfig) -> PruneOptions:
    """The config's default pruning options."""
    values = dataclasses.asdict(config.prune)
    return PruneOptions(**{**values, "anchors": tuple(values["anchors"])})


def processor_options(config: TrainConfig) -> dict[str, Any]:
    """What the config says about the base's processor: options of `gp.from_pretrained`."""
    given = {name: getattr(config.model, name) for name in ("min_pixels", "max_pixels", "do_pad")}
    return {name: value for name, value in given.items() if value is not None}


def _merge(base: DictConfig, extra: DictConfig, where: str) -> DictConfig:
    _refuse_unknown(OmegaConf.get_type(base), OmegaConf.to_container(extra), where)
    try:
        return OmegaConf.merge(base, extra)
    except OmegaConfBaseException as error:
        raise ValueError(f"{where}: {str(error).splitlines()[0]} (key {error.full_key!r})") from error


def _refuse_unknown(schema: type, given: dict[str, Any], where: str, prefix: str = "") -> None:
    """Names the first key that the schema does not have, and the nearest one that it has."""
    sections = _sections(schema)
    for key, value in given.items():
        if key not in schema.__dataclass_fields__:
            full = f"{prefix}{key}"
            nearest = difflib.get_close_matches(full, _all_keys(schema, prefix), n=1, cutoff=0.0)
            raise ValueError(f"{where}: unknown key {full!r}; the nearest known one is {nearest[0]!r}")
        if key in sections and isinstance(value, dict):
            _refuse_unknown(sections[key], value, where, f"{prefix}{key}.")


def _all_keys(schema: type, prefix: str = "") -> list[str]:
    """Dotted names of all keys of a schema."""
    keys = [f"{prefix}{name}" for name in schema.__dataclass_fields__]
    return keys + [k for name, section in _sections(schema).items() for k in _all_keys(section, f"{prefix}{name}.")]


def _sections(schema: type) -> dict[str, type]:
    """The fields of a schema that are schemas themselves."""
    hints = get_type_hints(schema)
    return {name: hint for name, hint in hints.items() if dataclasses.is_dataclass(hint)}
