"""Every option of the server, with its default, and the checks that refuse contradictions before a model is loaded."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from gp.config.contradictions import check_model
from gp.config.load import COMMAND_LINE, merge_options, parse_overrides, read_yaml
from gp.config.option import option
from gp.config.reference import describe_schema
from gp.config.schema import ABOVE_0, ATTENTIONS, DEVICE_MAPS, DTYPES, FROM_0, FROM_1, QUANTIZATIONS

AUTO = "auto"
PORTS = "[0, 65535]"


@dataclass
class ServedModel:
    """The model that answers."""

    base: str = option(MISSING, 'hub id, folder, or "tiny" (the embedded model)')
    glimpse: str | None = option(None, 'hub id or folder of trained parts, or "tiny"; null: none')
    revision: str | None = option(None, "commit, branch or tag of the base's hub id; null: its main branch")
    glimpse_revision: str | None = option(None, "the same of the glimpse's hub id")
    dtype: str = option("float32", "type of the weights", choices=DTYPES)
    attn_implementation: str = option("sdpa", "attention kernel", choices=ATTENTIONS)
    device_map: str | None = option(
        None,
        "how the base is spread over all devices, which one worker then has; null: each worker has one of its own",
        choices=DEVICE_MAPS,
    )
    quantization: str | None = option(
        None, "of the base's weights: int8, int4 (torchao) or nf4 (bitsandbytes)", choices=QUANTIZATIONS
    )
    fast_tower: bool = option(
        False, "Qwen: patches embedded by one product, MLPs padded to a width of 128 k on copies of their weights"
    )
    min_pixels: int | None = option(None, "smaller images are enlarged to this; null: as the base says", within=FROM_1)
    max_pixels: int | None = option(None, "larger images are reduced to this; null: as the base says", within=FROM_1)
    do_pad: bool | None = option(None, "LLaVA: pad images to a square, not crop them; null: as the base was saved")


@dataclass
class Limits:
    """What a request may ask for, and how many may wait."""

    body_mib: float = option(32, "size of a request's body; larger: status 413", within=ABOVE_0)
    images: int = option(16, "images of a request", within=FROM_1)
    image_megapixels: float = option(50, "size of an image, read from its header before it is decoded", within=ABOVE_0)
    prompt_tokens: int = option(32768, "tokens of a prompt, images included", within=FROM_1)
    new_tokens: int = option(512, "tokens of an answer, for requests without max_tokens too", within=FROM_1)
    batch: int = option(8, "requests that a worker answers together", within=FROM_1)
    batch_tokens: int = option(65536, "prompt tokens of a batch of several, padding included", within=FROM_1)
    batch_wait_ms: float = option(5, "time that the first of a batch waits for others", within=FROM_0)
    waiting: int = option(64, "requests that wait beyond a full batch for each worker; more: status 429", within=FROM_0)
    time_s: float = option(120, "time from a request's arrival to the end of its answer", within=ABOVE_0)
    read_s: float = option(
        20, "time for sending a body (longer: status 408), and for downloading its images", within=ABOVE_0
    )
    shutdown_s: float = option(20, "time for running requests when the server is stopped", within=FROM_0)


@dataclass
class ServeConfig:
    """All settings of `gp.serve`."""

    model: ServedModel
    limits: Limits = field(default_factory=Limits)
    host: str = option("127.0.0.1", "address to listen on")
    port: int = option(8000, "port to listen on; 0: any free one, which is printed", within=PORTS)
    devices: list[str] = option(
        [AUTO], "where workers are, e.g. [cuda:0,cuda:1]; auto: all GPUs, or the CPU", length=FROM_1
    )
    workers: int = option(
        1,
        "worker processes on each device, each with its own model; on a CPU they share the threads",
        within=FROM_1,
    )
    key_from: str | None = option(None, "environment variable with the key that clients must send; null: no key")
    open: bool = option(False, "listen on another address than a loopback one without a key")
    allow_urls: bool = option(False, "download images whose address (http, https) a request gives")
    name: str | None = option(None, "the model's name for clients; null: model.base")
    pruner: str | None = option(None, "method of requests that name none; null: glimpse, or none without trained parts")
    prune: dict[str, Any] = option({}, "pruning options and settings of such requests: prune.max_keep_ratio=0.1")

    @property
    def model_name(self) -> str:
        """The name that clients send and are told."""
        return self.name or self.model.base

    @property
    def key(self) -> str | None:
        """The key that clients must send; None: none."""
        return key_of("key_from", self.key_from)


def key_of(option_name: str, variable: str | None) -> str | None:
    """A key from the environment; None where no variable is named, ValueError if it is not set."""
    if variable is None:
        return None
    if not (key := os.environ.get(variable, "").strip()):
        raise ValueError(f"{option_name}={variable}: this environment variable is not set, or empty")
    return key


def load_serve_config(path: str | Path | None, overrides: Sequence[str]) -> ServeConfig:
    """A YAML file, or none, and `key=value` overrides -> the checked options.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an unknown or missing key, a wrong type, a value out of range, or options that contradict.
    """
    given = {} if path is None else {f"config {path}": read_yaml(path)}
    given[COMMAND_LINE] = parse_overrides(overrides)
    for values in given.values():
        if isinstance(devices := values.get("devices"), str):
            values["devices"] = [one.strip() for one in devices.split(",")]
    config = merge_options(ServeConfig, given)
    check_model(config.model)
    check_address(config.host, config.key, config.open)
    if config.model.device_map is not None:
        one = f"model.device_map={config.model.device_map} lets one worker have all devices, got"
        if len(config.devices) > 1:
            devices = ",".join(config.devices)
            raise ValueError(f"{one} devices={devices}: leave devices out, and choose cards by CUDA_VISIBLE_DEVICES")
        if config.workers > 1:
            raise ValueError(f"{one} workers={config.workers}: leave workers out")
    return config


def check_address(host: str, key: str | None, open_to_all: bool) -> None:
    """ValueError for an address that others reach, unless there is a key or `open` says that this is meant."""
    if key is None and not open_to_all and not is_loopback(host):
        raise ValueError(
            f"host={host}: others than this machine would reach the server, and nothing would ask for a key: "
            "give key_from=VARIABLE, or open=true"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def describe_options() -> str:
    """One line per option, for `--help`."""
    return describe_schema(ServeConfig)
