"""Serves a pruned model as OpenAI's servers do: chat completions with images, over HTTP.

    python -m gp.serve model.base=tiny model.glimpse=tiny
    python -m gp.serve model.base=Qwen/Qwen2.5-VL-7B-Instruct model.dtype=bfloat16 port=8000 \\
        model.glimpse=ashun989/GlimpsePrune_Qwen2.5-VL-7B-Instruct prune.max_keep_ratio=0.111
    GP_KEY=... python -m gp.serve model.base=tiny host=0.0.0.0 key_from=GP_KEY limits.batch=16
    python -m gp.serve --config serve.yaml devices=cuda:0,cuda:1

Needs the extra `serve`: pip install -e ".[serve]". docs/serve.md has the requests, the metrics, and what limits do.
Ctrl-C or SIGTERM: running requests have limits.shutdown_s to finish.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from gp import cli
from gp.serve.options import AUTO, ServeConfig, describe_options, load_serve_config

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in evaluate.py; workers inherit it


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until it is stopped; returns the exit status, see `gp.cli.run`."""
    options = parse(arguments)
    return cli.run(lambda: serve(load_serve_config(options.config, options.settings)), options.traceback)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    usage = "model.base=BASE [key=value ...] [--config FILE]"
    description = f"{__doc__}\noptions, each as key=value or in the file:\n\n{describe_options()}"
    parser = cli.settings_parser("gp.serve", usage, description)
    parser.add_argument("--config", type=Path, help="a YAML file of options; the command line wins")
    cli.add_traceback(parser)
    return parser.parse_intermixed_args(arguments)


def serve(config: ServeConfig) -> None:
    """Starts workers and server; returns when it has been stopped and all has ended.

    Raises:
        ValueError: the extra is not installed, or a worker cannot load its model.
    """
    try:
        from gp.serve.running import run
    except ModuleNotFoundError as error:
        raise ValueError(f'{error.name} is not installed: pip install "glimpse-prune[serve]"') from error
    run(config, devices_of_workers(config))


def devices_of_workers(config: ServeConfig) -> list[str]:
    """A device for each worker process."""
    devices = find_devices(config.devices)
    if config.model.device_map is not None:
        return devices[:1]  # whose worker spreads the base over all
    return [device for device in devices for _ in range(config.workers)]


def find_devices(given: Sequence[str]) -> list[str]:
    """`auto` as all GPUs, or the CPU; anything else as it is."""
    if list(given) != [AUTO]:
        return list(given)
    if not Path("/dev/nvidiactl").exists():
        return ["cpu"]
    import torch  # seconds, and only to count: the process that serves does not compute

    return [f"cuda:{k}" for k in range(torch.cuda.device_count())] or ["cpu"]


if __name__ == "__main__":
    sys.exit(main())
