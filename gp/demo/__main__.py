"""Asks one question twice, pruned and un-pruned, on a page in the browser.

    python -m gp.demo
    python -m gp.demo model.base=Qwen/Qwen2.5-VL-7B-Instruct \\
        model.glimpse=ashun989/GlimpsePrune_Qwen2.5-VL-7B-Instruct model.dtype=bfloat16
    python -m gp.demo model.base=Qwen/Qwen2.5-VL-3B-Instruct model.glimpse=runs/qwen3b/glimpse port=8000

Without trained parts there are the methods that need none. The page listens on this machine alone, unless host= says
otherwise. Needs the extra demo: pip install "glimpse-prune[demo]"
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from gp import cli
from gp.demo.options import describe_options, load_demo_config


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves the page until it is interrupted; returns the exit status, see `gp.cli.run`."""
    options = parse(arguments)
    return cli.run(lambda: run(options.settings), options.traceback)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    description = f"{__doc__}\noptions, each as key=value:\n\n{describe_options()}"
    parser = cli.settings_parser("gp.demo", "[key=value ...]", description)
    cli.add_traceback(parser)
    return parser.parse_intermixed_args(arguments)


def run(settings: Sequence[str]) -> None:
    """Loads the model, asks it once, and serves the page."""
    config = load_demo_config(settings)
    if find_spec("gradio") is None:
        raise ValueError('the demo needs gradio, which is not installed: pip install "glimpse-prune[demo]"')

    from gp.demo.serving import serve

    serve(config)


if __name__ == "__main__":
    sys.exit(main())
