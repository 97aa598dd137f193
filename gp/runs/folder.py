"""The folder of a run: what it holds, who may write into it, and where a resumed run goes on.

config.yaml   resolved config, written before any work
run.json      commit, versions, command, and at the end the final figures
last.ckpt     everything needed to go on
best-*.ckpt   the same of the best validations, if asked for
tb/           TensorBoard events
glimpse/      the trained parts, for `gp.from_pretrained`
eval/         results of `evaluate.py`
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from gp.config import TrainConfig
from gp.measure.machine import code_commit, library_versions
from gp.runs.differences import Difference, differences
from gp.runs.writing import write_text

CONFIG, INFO, LAST, EVENTS, GLIMPSE, EVAL = "config.yaml", "run.json", "last.ckpt", "tb", "glimpse", "eval"
BEST = "best-*.ckpt"
FREE_KEYS = ("ckpt", "name", "runs_dir")  # do not change what is trained, nor do those of the section `eval`


def run_folder(config: TrainConfig) -> Path:
    """`{runs_dir}/{name}`."""
    return Path(config.runs_dir) / config.name


def find_checkpoint(config: TrainConfig) -> Path | None:
    """What `ckpt` names: None, the run's own `last.ckpt`, or a path.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if config.ckpt is None:
        return None
    path = run_folder(config) / LAST if config.ckpt == "last" else Path(config.ckpt)
    if not path.is_file():
        raise FileNotFoundError(f"ckpt={config.ckpt}: there is no checkpoint {path}; leave ckpt out to start anew")
    return path


def check_folder(config: TrainConfig, ckpt: Path | None) -> list[str]:
    """Whether this run may use its folder; changes nothing.

    A new run may start in an empty folder, or over one of exactly the same settings, whose results will be removed.
    A run that goes on from its own checkpoint may change settings.

    Args:
        config: of the run.
        ckpt: where it goes on, if it does.

    Returns:
        Notices for the user.

    Raises:
        ValueError: the folder holds a run of other settings; the message names the first key that differs.
    """
    folder = run_folder(config)
    there = _settings_there(folder)
    if there is None:
        return []
    changes = changed_settings(there, asdict(config))
    is_own = ckpt is not None and ckpt.resolve().parent == folder.resolve()
    if changes and not is_own:
        raise ValueError(
            f"{folder} holds a run with {changes[0]}; choose another folder with name=..., "
            f"or go on with that run with ckpt=last"
        )
    if is_own:
        return [f"resumes with {change}" for change in changes]
    return [f"starts over: {folder} held a run of the same settings"]


def is_new_run(config: TrainConfig, ckpt: Path | None) -> bool:
    """Whether the run does not go on from its own folder's checkpoint, so that results there are of another run."""
    return ckpt is None or ckpt.resolve().parent != run_folder(config).resolve()


def claim_folder(
    config: TrainConfig, ckpt: Path | None, step: int = 0, max_steps: int = 0, keep_trained: bool = False
) -> None:
    """Writes `config.yaml` and `run.json` before any work; called on the first process only, after `check_folder`.

    Args:
        config: of the run.
        ckpt: where it goes on; without one, results of an earlier run of the same settings are removed.
        step: optimizer steps that the checkpoint has done.
        max_steps: of the whole run; if there are more to come, results of an evaluation of the older weights are set
            aside.
        keep_trained: what an earlier run has trained stays, until `remove_trained` is called.
    """
    folder = run_folder(config)
    if is_new_run(config, ckpt):
        _remove(folder, (INFO, EVENTS))
        if not keep_trained:
            remove_trained(folder)
    elif step < max_steps:
        _set_aside_evaluation(folder, step)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / CONFIG, OmegaConf.to_yaml(OmegaConf.create(asdict(config))))
    write_info(folder, {**code_version(), "command": " ".join(sys.argv), "started": _now(), "resumed_at_step": step})


def remove_trained(folder: Path) -> None:
    """Removes what an earlier run in this folder has trained, and the evaluation of it."""
    _remove(folder, (LAST, GLIMPSE, EVAL, *(path.name for path in folder.glob(BEST))))


def give_up(folder: Path) -> None:
    """Lets another run have a folder in which nothing was trained yet, with whatever settings."""
    if not (folder / LAST).exists():
        (folder / CONFIG).unlink(missing_ok=True)


def changed_settings(there: dict[str, Any], here: dict[str, Any]) -> list[Difference]:
    """Lists the settings that shape the training and differ."""
    found = differences(there, here)
    return [one for one in found if one.key not in FREE_KEYS and not one.key.startswith(f"{EVAL}.")]


def write_info(folder: Path, info: dict[str, Any]) -> None:
    """Adds to `run.json`."""
    path = folder / INFO
    there = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    write_text(path, json.dumps({**there, **info}, indent=2) + "\n")


def finish(folder: Path, step: int, figures: dict[str, float]) -> None:
    """Notes the end of a run and its last figures; without new ones (nothing was left to do) the old ones stay."""
    write_info(folder, {"finished": _now(), "step": step, **({"figures": figures} if figures else {})})


def code_version() -> dict[str, Any]:
    """Commit of this code (None outside its git repository), whether files were changed since, and libraries."""
    return {**code_commit(), "versions": library_versions()}


def _settings_there(folder: Path) -> dict[str, Any] | None:
    """The settings that the folder was made with; None for a new one."""
    path = folder / CONFIG
    if not path.is_file():
        if (folder / LAST).exists():
            raise ValueError(f"{folder} holds {LAST} but no {CONFIG}: choose another folder with name=...")
        return None
    there: Any = OmegaConf.to_container(OmegaConf.load(path))
    if not isinstance(there, dict):
        raise ValueError(f"{path} holds no settings: choose another folder with name=...")
    return there


def _remove(folder: Path, names: Sequence[str]) -> None:
    for name in names:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _set_aside_evaluation(folder: Path, step: int) -> None:
    """Renames the results of an evaluation of the weights of an optimizer step, before they change."""
    if (folder / EVAL).is_dir():
        aside = folder / f"{EVAL}-step-{step}"
        shutil.rmtree(aside, ignore_errors=True)
        (folder / EVAL).rename(aside)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
