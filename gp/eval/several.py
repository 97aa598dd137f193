"""Several checkpoints, evaluated one after the other by the command for one, and put into one table."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from gp.eval.joint import config_of, join
from gp.eval.loading import find_run
from gp.eval.table import make_console
from gp.runs.folder import GLIMPSE
from gp.runs.lock import one_writer
from gp.runs.members import refuse_launcher, run_command

OUT = "eval.out"
LONGEST = 80  # letters of a folder's name


def evaluate_several(
    module: str,
    ckpts: Sequence[str],
    overrides: Sequence[str],
    config_paths: Sequence[Path] | None,
    bench: Path | None = None,
) -> None:
    """Evaluates each checkpoint into a folder of its own inside `eval.out`, then joins them.

    Args:
        module: of the command for one checkpoint.
        ckpts: as of `ckpt=`.
        overrides: of the command, short keys spelled out.
        config_paths: of the command.
        bench: of the command.

    Raises:
        FileNotFoundError: no such checkpoint, before the first is evaluated.
        ValueError: settings that are not accepted; or a launcher.
        gp.cli.Stop: an evaluation failed; those before it are kept.
    """
    refuse_launcher("ckpt=A,B")
    labels = labels_of(ckpts)
    given = dict(text.partition("=")[::2] for text in overrides)
    for ckpt in ckpts:
        find_run(ckpt, overrides, config_paths, bench)
    out = Path(given.pop(OUT, "") or Path("runs") / f"eval-{_short('+'.join(labels))}")
    paths = [text for path in config_paths or () for text in ("--config", str(path))]
    of_bench = [f"bench={bench}"] if bench else []
    rest = of_bench + [text for text in overrides if text.partition("=")[0] != OUT]
    with one_writer(out):
        for number, (ckpt, label) in enumerate(zip(ckpts, labels, strict=True), 1):
            what = f"checkpoint {number} of {len(ckpts)}, {label}"
            print(f"{what}: {out / label}", flush=True)
            arguments = [f"ckpt={ckpt}", *paths, *rest, f"{OUT}={out / label}"]
            run_command(module, arguments, what, "the same command goes on")
        folders = {label: out / label for label in labels}
        configs = {label: config_of(run_of(ckpt)) for label, ckpt in zip(labels, ckpts, strict=True)}
        join(folders, configs, out, make_console())


def run_of(ckpt: str) -> Path:
    """The folder of the run that a checkpoint is of: itself, or the one around its file or its trained parts."""
    path = Path(ckpt)
    return path.parent if path.is_file() or path.name == GLIMPSE else path


def labels_of(ckpts: Sequence[str]) -> list[str]:
    """A name for each checkpoint: its run's folder, with as many folders above it as it takes to tell them apart."""
    parts = [run_of(ckpt).parts for ckpt in ckpts]
    for depth in range(1, max(map(len, parts), default=1) + 1):
        labels = ["_".join(one[-depth:]) for one in parts]
        if len(set(labels)) == len(labels):
            return labels
    return [f"{label}_{Path(ckpt).stem}" for label, ckpt in zip(labels, ckpts, strict=True)]


def _short(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    return f"{text[: LONGEST - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
