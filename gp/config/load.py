"""YAML file + key=value overrides -> a checked, typed config."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from gp.config import contradictions
from gp.config.files import find_config
from gp.config.fitting import nearest
from gp.config.gate import GateRunConfig
from gp.config.plus import PlusConfig
from gp.config.pretrain import PretrainConfig
from gp.config.pretrain_cards import CardsPretrainConfig
from gp.config.schema import TrainConfig
from gp.config.table import build, defaults_of, refuse_unknown

if TYPE_CHECKING:
    from gp.types import PruneOptions

SCHEMAS = {
    "glimpse": TrainConfig,
    "grpo": PlusConfig,
    "gate": GateRunConfig,
    "pretrain": PretrainConfig,
    "pretrain_cards": CardsPretrainConfig,
}
COMMAND_LINE = "command line"
WRONG_YAML = (YAMLError, OmegaConfBaseException, RecursionError)


def load_config(
    path: str | Path | Sequence[str | Path], overrides: Sequence[str] = ()
) -> TrainConfig | PretrainConfig | CardsPretrainConfig:
    """Reads YAML files, applies `key=value` overrides and checks the whole.

    Args:
        path: a file or the name of a config that comes with gp (`tiny`), or several of which later ones win, key by
            key; their `task` names the schema (`glimpse`, the default, `grpo`, `gate`, `pretrain` or
            `pretrain_cards`).
        overrides: e.g. `["optim.lr=1e-4", "trainer.devices=2"]`; values are parsed as YAML.

    Returns:
        The dataclass of the schema, fully typed.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not YAML, an unknown or missing key, a wrong type, a value out of range, or options that contradict
            each other. The message names file or command line and key, what was expected and what came.
    """
    paths = [find_config(one) for one in ([path] if isinstance(path, str | Path) else path)]
    if twice := [one for number, one in enumerate(paths) if one in paths[:number]]:
        raise ValueError(f"config {twice[0]}: given twice")
    sources = {f"config {one}": read_yaml(one) for one in paths}
    sources[COMMAND_LINE] = parse_overrides(overrides)
    tasks = [(where, source["task"]) for where, source in sources.items() if "task" in source]
    where, task = tasks[-1] if tasks else (f"config {paths[0]}", "glimpse")
    config = merge_options(schema_of(task or "glimpse", where), sources)
    if isinstance(config, TrainConfig):
        if config.model.device_map is not None and config.trainer.devices == "auto":
            config.trainer.devices = 1  # one process has all of them
        contradictions.check(config)
    else:
        contradictions.check_run(config)
    return config


def merge_options(schema: type, given: Mapping[str, dict[str, Any]]) -> Any:
    """Puts what each source gives over a schema's defaults.

    Args:
        schema: a dataclass whose fields `option` made, and of such dataclasses.
        given: where it comes from, for messages -> keys and values, nested; later ones win.

    Returns:
        The dataclass of the schema; every value has the type of its option and is in its range.

    Raises:
        ValueError: an unknown or missing key, a wrong type, or a value out of range.
    """
    values = defaults_of(schema)
    for name, source in given.items():
        refuse_unknown(schema, source, name)
        values = _over(values, source)
    try:
        values = _plain(OmegaConf.create(values), resolve=True)
    except WRONG_YAML as error:
        raise ValueError(f"{next(iter(given))}: {_first_line(error)}") from error

    def where(key: str) -> str:
        """The last source that gives a key; nothing for a default, the file for no key at all."""
        sources = [name for name, source in given.items() if not key or _has(source, key)]
        return f"{sources[-1 if key else 0]}: " if sources else ""

    return build(schema, values, where)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Reads a YAML file of keys and values.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not text in UTF-8, not YAML, a key that comes twice, or something else than keys and values; names
            the line.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"config {path}: no such file")
    content = Path(path).read_bytes()
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"config {path}, line {line}: expected text in UTF-8, got byte {content[error.start]:#x}"
        ) from error
    try:
        given: Any = OmegaConf.load(io.StringIO(text)) if text.strip() else None
    except OSError:  # OmegaConf's word for a number or a text
        given = text.strip()
    except WRONG_YAML as error:
        raise ValueError(f"config {path}{_line_of(error)}: not YAML: {_reason(error)}") from error
    if not OmegaConf.is_dict(given) or not given:
        found = "an empty file" if not given else "a list" if OmegaConf.is_list(given) else f"{given!r:.50}"
        raise ValueError(f"config {path}, line 1: expected keys and values, got {found}")
    return _plain(given)


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """`["a.b=1"]` -> nested values; each entry must have the form key=value."""
    for text in overrides:
        if "=" not in text or text.startswith("="):
            raise ValueError(f"{COMMAND_LINE}: expected key=value, got {text!r}")
        try:
            OmegaConf.from_dotlist([text])
        except WRONG_YAML as error:
            raise ValueError(f"{COMMAND_LINE}: the value of {text!r} is not YAML: {_reason(error)}") from error
    try:
        return _plain(OmegaConf.from_dotlist(list(overrides)))
    except WRONG_YAML as error:  # a section that is given as a value, too
        raise ValueError(f"{COMMAND_LINE}: {' '.join(overrides)} contradict each other: {_reason(error)}") from error


def _plain(config: Any, resolve: bool = False) -> Any:
    """Dicts and lists of what OmegaConf read."""
    return OmegaConf.to_container(config, resolve=resolve)


def schema_of(task: Any, where: str) -> type:
    """The root dataclass of a task."""
    if not isinstance(task, str) or task not in SCHEMAS:
        near = f"; the nearest known one is {nearest(task, sorted(SCHEMAS))!r}"
        raise ValueError(f"{where}: task must be one of {', '.join(sorted(SCHEMAS))}, got {task!r}{near}")
    return SCHEMAS[task]


def prune_options(config: TrainConfig) -> PruneOptions:
    """The config's default pruning options."""
    from gp.types import PruneOptions  # here, because it needs torch, which `--help` does not wait for

    values = dataclasses.asdict(config.prune)
    return PruneOptions(**{**values, "anchors": tuple(values["anchors"])})


def processor_options(config: TrainConfig) -> dict[str, Any]:
    """Options of `gp.from_pretrained` for the base's processor that the config sets."""
    given = {name: getattr(config.model, name) for name in ("min_pixels", "max_pixels", "do_pad")}
    return {name: value for name, value in given.items() if value is not None}


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Mappings merged key by key, anything else replaced."""
    both = {key: _over(below[key], above[key]) for key in above if _are_mappings(below.get(key), above[key])}
    return {**below, **above, **both}


def _are_mappings(*values: Any) -> bool:
    return all(isinstance(value, dict) for value in values)


def _has(source: dict[str, Any], key: str) -> bool:
    section, _, name = key.rpartition(".")
    return name in (source.get(section, {}) if section else source)


def _line_of(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    return f", line {mark.line + 1}" if mark is not None else ""


def _reason(error: Exception) -> str:
    return str(getattr(error, "problem", None) or _first_line(error))


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
