"""A small model looks, a large one answers: stands before any OpenAI-compatible server.

    python -m gp.front model.base=Qwen/Qwen2.5-VL-3B-Instruct upstream=http://127.0.0.1:8000/v1 \\
        model.glimpse=ashun989/GlimpsePrune_Qwen2.5-VL-3B-Instruct device=cuda:0
    python -m gp.front model.base=tiny model.glimpse=tiny zoom.threshold=0.1 upstream=http://127.0.0.1:8000/v1

Images of a request become thumbnails and the parts that its question needs (method zoom); all else is passed on.
Needs the extra `serve`: pip install -e ".[serve]". docs/serve.md has the details.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from gp import cli
from gp.front.options import FrontConfig, describe_options, load_front_config

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in evaluate.py


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until it is stopped; returns the exit status, see `gp.cli.run`."""
    options = parse(arguments)
    return cli.run(lambda: front(load_front_config(options.config, options.settings)), options.traceback)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    usage = "model.base=BASE upstream=ADDRESS [key=value ...] [--config FILE]"
    description = f"{__doc__}\noptions, each as key=value or in the file:\n\n{describe_options()}"
    parser = cli.settings_parser("gp.front", usage, description)
    parser.add_argument("--config", type=Path, help="a YAML file of options; the command line wins")
    cli.add_traceback(parser)
    return parser.parse_intermixed_args(arguments)


def front(config: FrontConfig) -> None:
    """Loads the model that looks and serves; ValueError if the extra is not installed, or for what the model says."""
    try:
        from gp.serve.running import bind, run_app
    except ModuleNotFoundError as error:
        raise ValueError(f'{error.name} is not installed: pip install "glimpse-prune[serve]"') from error
    from gp.front.app import make_app
    from gp.front.looking import Looker
    from gp.serve.loading import load_model

    with bind(config.host, config.port) as listening:
        port = listening.getsockname()[1]

        def say() -> None:
            print(f"front of {config.upstream} on http://{config.host}:{port}/v1 ({config.device})", flush=True)

        looker = Looker(load_model(config.model, config.device), config.zoom)
        run_app(make_app(config, looker, say), listening, config.limits.shutdown_s)


if __name__ == "__main__":
    sys.exit(main())
