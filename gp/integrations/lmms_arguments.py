"""What the model arguments of lmms-eval mean: `--model_args base=...,glimpse=...,max_keep_ratio=0.111`.

lmms-eval has made numbers and booleans of texts that look like them; a list or an object is still JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gp.calls import BUDGET
from gp.config.fitting import nearest
from gp.loading import OF_HUB, OF_MODEL, OF_PROCESSOR, OWN
from gp.pruners import OraclePruner, find_class
from gp.types import PruneOptions

LOADING = tuple(
    name for name in (*OWN, *OF_HUB, *OF_MODEL, *OF_PROCESSOR) if name not in ("token", "quantization_config")
)
OTHERS = ("base", "pruner", "seed", "allow_urls")
TEXTS = ("base", "glimpse", "revision", "glimpse_revision", "pruner")
NULLS = ("none", "null", "")
INSTEAD = {
    "pretrained": "the base's hub id or folder is base=...",
    "attention": "it is attn_implementation=...",
    "token": "arguments are printed and stored: log in with `hf auth login`, or set HF_TOKEN",
    "system_prompt": "the base's chat template has its own",
    "trust_remote_code": "gp loads transformers' own classes and runs no code of a repository: leave it out",
}


@dataclass(frozen=True)
class ModelArguments:
    """Model arguments, sorted by who takes them.

    Args:
        base: hub id or folder, or the name of an embedded base.
        loading: of `gp.from_pretrained`.
        pruner: name of the method; None: the glimpse if there is one, else nothing is pruned.
        options: pruning options by name, and `budget`.
        settings: of the method.
        seed: of methods that draw.
        allow_urls: pictures whose address a task names are downloaded.
    """

    base: str
    loading: dict[str, Any] = field(default_factory=dict)
    pruner: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    allow_urls: bool = False


def read_arguments(given: Mapping[str, Any]) -> ModelArguments:
    """Sorts the arguments of the command line.

    Raises:
        ValueError: no base, an argument that nobody takes (names the nearest known one), JSON that does not parse, or a
            method that no benchmark can be asked with.
    """
    for name in given:
        if name in INSTEAD:
            raise ValueError(f"model_args: {name}=... is not taken; {INSTEAD[name]}")
    values = {name: _value(name, value) for name, value in given.items()}
    base, pruner = values.pop("base", None), values.pop("pruner", None)
    if base is None:
        raise ValueError("model_args: expected base=..., a hub id, a folder or an embedded base; e.g. base=tiny")
    if pruner == OraclePruner.name:
        raise ValueError("model_args: pruner=oracle needs the evidence boxes of every question; evaluate.py has them")
    known_settings: Any = find_class(pruner).settings() if pruner else ()
    seed, allow_urls = values.pop("seed", 0), values.pop("allow_urls", False)
    sorted_in: dict[str, dict[str, Any]] = {"loading": {}, "options": {}, "settings": {}}
    for name, value in values.items():
        sorted_in[_kind(name, known_settings)][name] = value
    return ModelArguments(base, pruner=pruner, seed=seed, allow_urls=allow_urls, **sorted_in)


def _kind(name: str, known_settings: tuple[str, ...]) -> str:
    options = (*PruneOptions.field_names(), BUDGET)
    if name in known_settings:
        return "settings"
    if name in options:
        return "options"
    if name in LOADING:
        return "loading"
    known = sorted({*OTHERS, *LOADING, *options, *known_settings})
    raise ValueError(f"model_args: unknown argument {name!r}; the nearest known one is {nearest(name, known)!r}")


def _value(name: str, value: Any) -> Any:
    """The value that was meant; `pruner=none` is a method, elsewhere `none` and `null` are None."""
    if isinstance(value, str):
        if value.strip().lower() in NULLS and name != "pruner":
            return None
        if value.startswith(("[", "{")):
            try:
                return json.loads(value)
            except ValueError as error:
                raise ValueError(f"model_args: {name}: expected JSON, got {value!r}: {error}") from error
        return value
    return str(value) if name in TEXTS and value is not None else value
