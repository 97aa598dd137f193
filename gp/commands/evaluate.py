"""Evaluates a trained glimpse beside other pruning methods: table, summary, report with figure and intervals.

    python evaluate.py ckpt=runs/tiny/last.ckpt
    python evaluate.py ckpt=runs/tiny pruner=all budget=0.05,0.111,0.222,0.333
    python evaluate.py ckpt=runs/tiny split=test,test_hard num_samples=200
    python evaluate.py ckpt=runs/tiny pruner=glimpse,random budget=0.05,0.1,0.2
    python evaluate.py ckpt=runs/tiny pruner=fastv budget=0.5 eval.methods.fastv.layer=0 out=runs/tiny/eval-fastv
    python evaluate.py ckpt=runs/tiny out=runs/tiny/eval-low prune.threshold=0.3
    python evaluate.py ckpt=path/to/published --config configs/qwen7b.yaml
    python evaluate.py ckpt=runs/tiny-seed=0,runs/tiny-seed=1,runs/tiny-seed=2 out=runs/three-seeds
    python evaluate.py 'ckpt=runs/tiny-seed=*'
    python evaluate.py ckpt=runs/qwen7b trainer.devices=8
    torchrun --nproc_per_node 8 evaluate.py ckpt=runs/qwen7b
    python evaluate.py --config configs/qwen7b.yaml pruner=fastv,visionzip budget=0.2
    python evaluate.py ckpt=runs/qwen7b bench=viscot eval.costs=false
    python evaluate.py ckpt=runs/tiny calibrate=val agreement=0.99
    python evaluate.py score=runs/qwen7b/eval-viscot judge.base_url=http://localhost:8000/v1 judge.model=MODEL

Without ckpt the base alone is evaluated: methods other than glimpse, at budgets.

ckpt is a run's folder, its last.ckpt, a folder of trained parts (ours or the published format), or "tiny". The config
is the config.yaml beside it, or the one that --config names. Several, with commas or wildcards, are evaluated one after
the other, into OUT/RUN, and put into one table and figure, with mean and spread of those that differ by seed only.

Short keys, lists with commas:

    pruner=A,B        eval.pruners; "all" for every method
    budget=0.05,null  eval.budgets: shares of visual entries in the KV cache, mean over layers; null: the method's own
                      decision (random and others that only rank: as many as glimpse kept)
    split=A,B         eval.splits
    num_samples=N     eval.num_samples
    bench=NAME        configs/bench/NAME.yaml, or a path: splits with their shards, suffix, scorers and longest answer;
                      results go to eval-NAME/ (docs/benches.md)
    threshold=A,B     eval.thresholds: rows of glimpse at other thresholds
    out=FOLDER        eval.out; default: eval/ beside the checkpoint
    calibrate=SPLIT   finds the largest threshold whose answers are the un-pruned ones on a share agreement=0.99 of the
                      questions at least, confidence=0.95 sure, on a split of data.test or on val (data.val); writes it
                      into the trained parts and tries it on the other splits; results go to eval-calibration/
    score=FOLDER      of a finished evaluation: an LLM scores its answers, no model is loaded; with judge.* alone, below
                      (docs/judge.md)

Any other key is an option of the config; eval.methods.METHOD.SETTING=VALUE sets what a method takes.
A method that cannot meet a budget on this base is left out there, with the reason. Results are appended as they come:
the same command goes on where it was stopped, and methods and budgets can be added to it. Several devices answer each
question once, with the figures of one device; trainer.devices, torchrun or SLURM say how many there are, and a command
that was stopped may go on with another number of them. eval.costs=false leaves out time and memory.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from glob import glob, has_magic
from pathlib import Path

from gp import cli
from gp.allocator import keep_freed_memory
from gp.config.files import config_folder
from gp.config.reference import help_text, judge_text

# threads that spin while they wait make small steps many times slower on a shared machine; read when torch is imported
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

LIST_KEYS = {"pruner": "eval.pruners", "budget": "eval.budgets", "split": "eval.splits", "threshold": "eval.thresholds"}
MODULE = "gp.commands.evaluate"  # what `python -m` starts for each of several checkpoints
CALIBRATION = ("calibrate", "agreement", "confidence")
SHORT_KEYS = {"num_samples": "eval.num_samples", "out": "eval.out"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluates; returns the exit status, see `gp.cli.run`."""
    if arguments is None:  # of a process of its own
        keep_freed_memory()
    options = parse(arguments)

    def framed(work: Callable[[], None]) -> int:
        return cli.run(work, options.traceback, "run the same command again to go on")

    return framed(lambda: run(options.settings, options.config, framed))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        usage=cli.as_typed("python evaluate.py [ckpt=PATH | score=FOLDER] [key=value ...] [--config FILE ...]"),
        description=cli.as_typed(__doc__ or ""),
        epilog="\n\n".join([help_text("glimpse"), judge_text()]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("settings", nargs="*", metavar="key=value", help="ckpt=PATH, short keys, options of the config")
    parser.add_argument(
        "--config",
        type=Path,
        action="append",
        help="a YAML file or name, as of training, instead of the config.yaml beside the checkpoint; later ones win",
    )
    cli.add_traceback(parser)
    return parser.parse_intermixed_args(arguments)


def run(
    settings: Sequence[str], config_paths: Sequence[Path] | None, framed: Callable[[Callable[[], None]], int]
) -> None:
    """Finds the checkpoint and hands over to the devices; `framed` is how work of a process becomes its status."""
    folder, rest = take("score", settings)
    if folder is not None:
        from gp.eval.judging import score_answers

        score_answers(Path(folder), rest, config_paths or ())
        return
    bench_name, rest = take("bench", rest)
    wanted = {}
    for key in CALIBRATION:
        wanted[key], rest = take(key, rest)
    ckpt, overrides = split_settings(rest)
    bench = None
    if bench_name:
        from gp.eval import find_bench

        bench = find_bench(bench_name, config_folder() / "bench")

    if any(wanted.values()):
        start_calibration(wanted, bench_name, ckpt, overrides, config_paths)
        return
    if ckpt and len(found := several(ckpt)) > 1:
        from gp.eval.several import evaluate_several

        evaluate_several(MODULE, found, overrides, config_paths, bench)
        return
    if not ckpt and not config_paths:
        raise ValueError("command line: no checkpoint, give ckpt=PATH (see --help)")

    from gp.eval import check_before_loading, evaluate, find_run, load_model, make_trainer, out_folder
    from gp.runs.copies import Copy, start_copies
    from gp.runs.launcher import follow_launcher, leave
    from gp.training.devices import check_devices

    path, config = find_run(ckpt, overrides, config_paths, bench)
    follow_launcher(config.trainer)
    check_devices(config.trainer)
    check_before_loading(path, config)
    out = out_folder(config, ckpt)
    if bench and config.eval.out is None:
        out = out.with_name(f"{out.name}-{bench.stem}")

    def work(copies: Sequence[Copy] = ()) -> None:
        trainer = make_trainer(config.trainer)
        evaluate(lambda: load_model(path, config), config, out, trainer=trainer, copies=copies)
        leave()

    work(start_copies(config.trainer, lambda: framed(work)))


def several(ckpt: str) -> list[str]:
    """The checkpoints that `ckpt=` names: parted by commas, each with wildcards or without.

    Raises:
        FileNotFoundError: wildcards that match nothing.
    """
    if Path(ckpt).exists():
        return [ckpt]
    named = []
    for part in filter(None, map(str.strip, ckpt.split(","))):
        matches = sorted(glob(part)) if has_magic(part) and not Path(part).exists() else [part]
        if not matches:
            raise FileNotFoundError(f"ckpt {part}: no file or folder matches")
        named += matches
    return list(dict.fromkeys(named))


def start_calibration(
    wanted: dict[str, str | None],
    bench: str | None,
    ckpt: str | None,
    overrides: Sequence[str],
    config_paths: Sequence[Path] | None,
) -> None:
    """Hands over to the calibration; ValueError for what does not go with it."""
    from gp.eval.calibrating import Promise, calibrate

    if not wanted["calibrate"]:
        raise ValueError("agreement= and confidence= go with calibrate=SPLIT")
    if bench or not ckpt or len(several(ckpt)) > 1:
        raise ValueError("calibrate= needs ckpt=PATH of one checkpoint, and no bench=")
    numbers = {key: number(key, text) for key, text in wanted.items() if key != "calibrate" and text}
    calibrate(MODULE, ckpt, Promise(wanted["calibrate"], **numbers), overrides, config_paths)


def number(key: str, text: str) -> float:
    """A number of the command line; ValueError names its key."""
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"{key}={text}: expected a number") from error


def take(key: str, settings: Sequence[str]) -> tuple[str | None, list[str]]:
    """Takes a key out of the settings: its value, of several the last one, and what is left."""
    given = [text.partition("=")[2] for text in settings if text.startswith(f"{key}=")]
    return (given[-1] if given else None), [text for text in settings if not text.startswith(f"{key}=")]


def split_settings(settings: Sequence[str]) -> tuple[str | None, list[str]]:
    """`key=value` texts -> the checkpoint, if one is given, and overrides of the config with short keys spelled out.

    Raises:
        ValueError: a text of another form.
    """
    ckpt, overrides = None, []
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"command line: expected key=value, got {text!r}")
        if key == "ckpt":
            ckpt = value
        elif key in LIST_KEYS:
            overrides.append(f"{LIST_KEYS[key]}=[{value.strip('[]')}]")
        else:
            overrides.append(f"{SHORT_KEYS.get(key, key)}={value}")
    return ckpt or None, overrides


if __name__ == "__main__":
    sys.exit(main())
