"""Trains a glimpse (or the embedded base), then evaluates it.

    python train.py --config configs/tiny.yaml
    python train.py --config configs/tiny.yaml name=low_lr optim.lr=5e-4
    python train.py --config configs/tiny.yaml ckpt=last optim.max_steps=600
    python train.py --config configs/tiny_plus.yaml
    python train.py --config configs/tiny_zoom_gate.yaml
    python train.py --config configs/qwen7b.yaml --config mine.yaml trainer.devices=8 ckpt=auto
    python train.py --config configs/tiny.yaml seed=0,1,2
    python train.py --config configs/tiny_seed.yaml
    python train.py --config configs/tiny_base.yaml

Several values with commas are several runs, NAME-seed=0 and so on, one after the other, with one table at the end.
Results go to runs/NAME/. ckpt=auto goes on where a run of that name stopped, and starts one where there is none, so
that a scheduler can repeat the command; overwrite=true removes what is there.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from gp import cli
from gp.allocator import keep_freed_memory
from gp.config import TrainConfig, load_config
from gp.config.files import config_names
from gp.config.pretrain import PretrainConfig
from gp.config.pretrain_cards import CardsPretrainConfig
from gp.config.reference import help_text

# threads that spin while they wait make small steps many times slower on a shared machine; read when torch is imported
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

MODULE = "gp.commands.train"  # what `python -m` starts for each run of a sweep


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what the config's `task` says; returns the exit status, see `gp.cli.run`."""
    if arguments is None:  # of a process of its own
        keep_freed_memory()
    options = parse(arguments)
    again = "the same command with ckpt=auto goes on"
    return cli.run(lambda: run(options.config, options.overrides), options.traceback, again)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        usage=cli.as_typed("python train.py --config FILE [--config FILE ...] [key=value ...]"),
        description=cli.as_typed(__doc__ or ""),
        epilog=help_text("glimpse", "grpo", "gate", "pretrain", "pretrain_cards"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config",
        type=Path,
        required=True,
        action="append",
        help=f"a YAML file, or a name: {', '.join(config_names())}; of several, later ones win",
    )
    cli.add_traceback(parser)
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="options that differ from the file, see below"
    )
    return parser.parse_intermixed_args(arguments)


def run(config_paths: Sequence[Path], overrides: Sequence[str]) -> None:
    """Loads the config and hands over to its task, or to one command after the other of a sweep."""
    from gp.runs.sweep import members_of

    members = members_of(overrides)
    if len(members) > 1:
        from gp.sweep import sweep

        sweep(MODULE, config_paths, members)
        return
    config = load_config(config_paths, overrides)
    if not isinstance(config, TrainConfig):
        pretrain(config)
        return
    from gp.eval.names import check_names
    from gp.runs.folder import run_folder
    from gp.runs.launcher import follow_launcher
    from gp.runs.lock import one_writer
    from gp.training.devices import check_devices
    from gp.training.train import is_first_process

    check_names(config.eval)
    follow_launcher(config.trainer)
    check_devices(config.trainer)
    with one_writer(run_folder(config)) if is_first_process() else nullcontext():
        train_and_evaluate(config)


def pretrain(config: PretrainConfig | CardsPretrainConfig) -> None:
    """Pretrains one of the embedded bases."""
    if isinstance(config, PretrainConfig):
        from gp.embedded.making.pretrain import run as pretrain_first

        pretrain_first(config)
    else:
        from gp.embedded.making.growing.run import run as pretrain_second

        pretrain_second(config)


def train_and_evaluate(config: TrainConfig) -> None:
    """Trains, and evaluates if the config says so."""
    from gp.runs.launcher import leave
    from gp.training.train import train

    if not config.eval.after_training:
        train(config)
        leave()
        return
    from gp.eval import check_rows_before_training, evaluate, make_trainer, rehearse_evaluation
    from gp.stages import stage

    check_rows_before_training(config)
    model, folder, processes = train(config, rehearse_evaluation)
    out = Path(config.eval.out) if config.eval.out else folder / "eval"
    command = cli.as_typed(f"python evaluate.py ckpt={folder / 'last.ckpt'}")
    with stage(f"evaluation after training (all is trained and saved: go on with {command})"):
        evaluate(model, config, out, command=command, trainer=make_trainer(config.trainer), copies=processes)
    leave()


if __name__ == "__main__":
    sys.exit(main())
