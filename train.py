"""Trains a glimpse (or the embedded base), then evaluates it.

    python train.py --config configs/tiny.yaml
    python train.py --config configs/tiny.yaml name=low_lr optim.lr=5e-4
    python train.py --config configs/tiny.yaml ckpt=last optim.max_steps=300
    python train.py --config configs/qwen7b.yaml trainer.devices=8
    python train.py --config configs/tiny_base.yaml

Every option, with its default, is in gp/config/schema.py. Results go to runs/NAME/.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

# threads that spin while they wait make small steps many times slower on a shared machine; read when torch is imported
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what the config's `task` says; returns the exit status, 2 for a mistake in settings, data or files.

    Other errors, e.g. of a library, come with their traceback; its last line names the stage.
    """
    options = parse(arguments)
    try:
        run(options.config, options.overrides)
    except (ValueError, OSError) as error:
        if options.traceback:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="a YAML file, see configs/")
    parser.add_argument("--traceback", action="store_true", help="show where a mistake in settings or data was noticed")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that differ from the file")
    return parser.parse_intermixed_args(arguments)


def run(config_path: Path, overrides: Sequence[str]) -> None:
    """Loads the config and hands over to its task."""
    from gp.config import load_config

    config = load_config(config_path, overrides)
    if config.task == "pretrain":
        from gp.embedded.making.pretrain import run as pretrain

        pretrain(config)
        return
    from gp.training.train import is_first_process, train

    if not config.eval.after_training:
        train(config)
        return
    from gp.eval import evaluate, rehearse_evaluation
    from gp.stages import stage

    model, folder = train(config, rehearse_evaluation)
    if is_first_process():
        out = Path(config.eval.out) if config.eval.out else folder / "eval"
        command = f"python evaluate.py ckpt={folder / 'last.ckpt'}"
        with stage(f"evaluation after training (all is trained and saved: go on with {command})"):
            evaluate(model, config, out, command=command)


if __name__ == "__main__":
    sys.exit(main())
