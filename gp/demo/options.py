"""Options of `python -m gp.demo`: types, ranges and defaults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gp.config.load import COMMAND_LINE, merge_options, parse_overrides
from gp.config.option import option
from gp.config.reference import describe_schema
from gp.config.schema import ATTENTIONS, FROM_1
from gp.embedded import EMBEDDED_BASES, EMBEDDED_GLIMPSES

DTYPES = ("float32", "bfloat16", "float16")
# With 8 layers, of which the first ones would keep all tokens in their caches, no small budget could be met.
SHALLOW: dict[str, dict[str, Any]] = {
    "fastv": {"layer": 3, "compact_cache": True},
    "pyramid_drop": {"compact_cache": True},
    "vscan": {"compact_cache": True},
}


@dataclass
class DemoModelConfig:
    """The LVLM that is asked, and its trained parts."""

    base: str = option("tiny", 'hub id, folder, or "tiny" (the embedded model)')
    glimpse: str | None = option(
        None, 'hub id or folder of trained parts, "tiny"; null: those of an embedded base, else none'
    )
    dtype: str | None = option(
        None, "type of the weights; null: as saved, and float32 on a CPU, where others are slow", choices=DTYPES
    )
    attn_implementation: str = option("sdpa", "attention kernel", choices=ATTENTIONS)
    device: str | None = option(None, "cpu, cuda, cuda:1, ...; null: the first GPU, or the CPU where there is none")


@dataclass
class DemoConfig:
    """All options of the demo."""

    model: DemoModelConfig
    host: str = option("127.0.0.1", "address that it listens on; 0.0.0.0: everybody in the network may ask")
    port: int = option(7860, "of the page", within="[1, 65535]")
    max_new_tokens: int = option(64, "longest answer", within=FROM_1)
    methods: dict[str, dict[str, Any]] = option(
        {}, "method -> settings that are not the published ones, e.g. methods.fastv.layer=1"
    )

    def glimpse(self) -> str | None:
        """The trained parts that are meant: those given, or those of an embedded base."""
        named = self.model.base if self.model.base in EMBEDDED_GLIMPSES else None
        return self.model.glimpse or named

    def settings(self) -> dict[str, dict[str, Any]]:
        """Settings of the methods: those given over those that a shallow embedded base needs."""
        below = SHALLOW if self.model.base in EMBEDDED_BASES else {}
        return {name: {**below.get(name, {}), **self.methods.get(name, {})} for name in {**below, **self.methods}}


def load_demo_config(overrides: Sequence[str]) -> DemoConfig:
    """Reads `key=value` overrides.

    Raises:
        ValueError: an unknown key, a wrong type, or a value out of range.
    """
    return merge_options(DemoConfig, {COMMAND_LINE: parse_overrides(overrides)})


def describe_options() -> str:
    """One line per option, for `--help`."""
    return describe_schema(DemoConfig)
