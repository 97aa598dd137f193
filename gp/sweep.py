"""A sweep: its runs one after the other, each by the very command that a user would give, and one table at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from gp.config import TrainConfig, load_config
from gp.eval.finishing import SUMMARY
from gp.eval.joint import join
from gp.eval.names import check_names
from gp.eval.table import make_console
from gp.runs.differences import differences
from gp.runs.folder import CONFIG, LAST, read_info, run_folder
from gp.runs.members import refuse_launcher, run_command
from gp.runs.resuming import FREE, kind_of
from gp.runs.sweep import Member

AUTO = "auto"


@dataclass(frozen=True)
class Run:
    """One run of a sweep: what tells it from the others, its command line, and what that resolves to."""

    label: str
    overrides: list[str]
    config: TrainConfig


def sweep(module: str, config_paths: Sequence[Path], members: Sequence[Member]) -> None:
    """Trains every member, in order; those that are finished are skipped where the command says `ckpt=auto`.

    Args:
        module: of the command for one run.
        config_paths: of the command.
        members: see `gp.runs.sweep.members_of`.

    Raises:
        ValueError: a member whose settings are not accepted, before the first is trained; or a launcher.
        gp.cli.Stop: a member failed; those before it are kept.
    """
    refuse_launcher("sweep")
    runs = [_run_of(config_paths, member) for member in members]
    given = [text for path in config_paths for text in ("--config", str(path))]
    for number, run in enumerate(runs, 1):
        what = f"run {number} of {len(runs)}, {run.label}"
        if run.config.ckpt == AUTO and is_finished(run.config):
            print(f"{what}: finished before, in {run_folder(run.config)}", flush=True)
            continue
        print(f"{what}: {run_folder(run.config)}", flush=True)
        run_command(module, [*given, *run.overrides], what, "the same command with ckpt=auto goes on")
    if all(run.config.eval.after_training for run in runs):
        folders = {run.label: _evaluation(run.config) for run in runs}
        configs: dict[str, Path | None] = {run.label: run_folder(run.config) / CONFIG for run in runs}
        sweep_name = _name(config_paths, members[0])
        join(folders, configs, Path(runs[0].config.runs_dir) / f"{sweep_name}-sweep", make_console())


def is_finished(config: TrainConfig) -> bool:
    """Whether a run of these very settings has trained to its end and, if it is to, been evaluated."""
    folder = run_folder(config)
    if not (folder / CONFIG).is_file() or not (folder / LAST).is_file():
        return False
    if "finished" not in read_info(folder):
        return False
    if config.eval.after_training and not (_evaluation(config) / SUMMARY).is_file():
        return False
    changes = differences(asdict(load_config(folder / CONFIG)), asdict(config))
    return all(kind_of(one.key) == FREE and not one.key.startswith("eval.") for one in changes)


def _run_of(config_paths: Sequence[Path], member: Member) -> Run:
    overrides = [*member.overrides, f"name={member.name(_name(config_paths, member))}"]
    config = load_config(config_paths, overrides)
    if not isinstance(config, TrainConfig):
        raise ValueError(f"sweep: expected task glimpse, got {config.task}")
    check_names(config.eval)
    return Run(member.label, overrides, config)


def _name(config_paths: Sequence[Path], member: Member) -> str:
    return load_config(config_paths, member.overrides).name


def _evaluation(config: TrainConfig) -> Path:
    return Path(config.eval.out) if config.eval.out else run_folder(config) / "eval"
