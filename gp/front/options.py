"""Every option of the front, with its default, and the checks before a model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from omegaconf import MISSING

from gp.config.contradictions import check_model
from gp.config.load import COMMAND_LINE, merge_options, parse_overrides, read_yaml
from gp.config.option import option
from gp.config.reference import describe_schema
from gp.config.schema import ABOVE_0, FROM_0, FROM_1
from gp.serve.options import PORTS, ServedModel, check_address, key_of


@dataclass
class FrontLimits:
    """What a request may bring, and how many may wait."""

    body_mib: float = option(32, "size of a request's body; larger: status 413", within=ABOVE_0)
    images: int = option(16, "images of a request", within=FROM_1)
    image_megapixels: float = option(50, "size of an image, read from its header before it is decoded", within=ABOVE_0)
    waiting: int = option(64, "requests that wait for the model that looks; more: status 429", within=FROM_1)
    time_s: float = option(300, "longest silence of the server behind before it counts as lost", within=ABOVE_0)
    read_s: float = option(20, "time for sending a request's body; longer: status 408", within=ABOVE_0)
    shutdown_s: float = option(20, "time for running requests when the front is stopped", within=FROM_0)


@dataclass
class FrontConfig:
    """All settings of `gp.front`."""

    model: ServedModel
    upstream: str = option(MISSING, "address of the server that answers, up to and with /v1")
    limits: FrontLimits = field(default_factory=FrontLimits)
    host: str = option("127.0.0.1", "address to listen on")
    port: int = option(8001, "port to listen on; 0: any free one, which is printed", within=PORTS)
    device: str = option("cpu", "where the model that looks computes, e.g. cuda:0")
    key_from: str | None = option(None, "environment variable with the key that clients must send; null: no key")
    upstream_key_from: str | None = option(None, "variable with the other server's key; null: the client's own is sent")
    open: bool = option(False, "listen on another address than a loopback one without a key")
    zoom: dict[str, Any] = option({}, "settings and pruning options of zoom: zoom.glance=0.25 zoom.threshold=0.1")

    @property
    def key(self) -> str | None:
        """The key that clients must send; None: none."""
        return key_of("key_from", self.key_from)

    @property
    def upstream_key(self) -> str | None:
        """The key for the server behind; None: the client's own is passed on."""
        return key_of("upstream_key_from", self.upstream_key_from)


def load_front_config(path: str | Path | None, overrides: Sequence[str]) -> FrontConfig:
    """A YAML file, or none, and `key=value` overrides -> the checked options; raises like `load_serve_config`."""
    given = {} if path is None else {f"config {path}": read_yaml(path)}
    given[COMMAND_LINE] = parse_overrides(overrides)
    config = merge_options(FrontConfig, given)
    check_model(config.model)
    check_address(config.host, config.key, config.open)
    if config.key is not None and config.upstream_key is None:
        raise ValueError(
            "key_from: clients send the front's key, so the other server's must come from upstream_key_from"
        )
    parts = urlsplit(config.upstream)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError(f"upstream must be an address like http://127.0.0.1:8000/v1, got {config.upstream!r}")
    return config


def describe_options() -> str:
    """One line per option, for `--help`."""
    return describe_schema(FrontConfig)
