"""The folder of a run: what it holds, who may write into it, and where a resumed run goes on.

config.yaml   resolved config, written before any work
run.json      commit, versions, command, and at the end the final figures
last.ckpt     everything needed to go on
best-*.ckpt   the same of the best validations, if asked for
tb/           TensorBoard events
glimpse/      the trained parts, for `gp.from_pretrained`
adapter/      of task grpo: the trained adapter, for `gp.from_pretrained` and `model.adapter`
base/         of a pretraining: the trained base; vision.ckpt is the end of its first stage, pretrain.log its figures,
              or tower.ckpt, joint.ckpt, final.ckpt and logs of the same names, instead of last.ckpt
eval/         results of `evaluate.py`
.writer.*     lock of the one process that writes here, and who it is (`gp.runs.lock`)
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from gp.cli import command_line
from gp.config import TrainConfig
from gp.config.pretrain import PretrainConfig
from gp.config.pretrain_cards import CardsPretrainConfig
from gp.measure.machine import code_commit, library_versions
from gp.runs.writing import write_text

CONFIG, INFO, LAST, EVENTS, GLIMPSE, EVAL = "config.yaml", "run.json", "last.ckpt", "tb", "glimpse", "eval"
ADAPTER = "adapter"
BEST = "best-*.ckpt"
BASE, VISION, LOG = "base", "vision.ckpt", "pretrain.log"
STAGES = ("tower", "joint", "final", "count")  # of a pretraining on cards, each with a checkpoint and a log
STAGE_CHECKPOINTS = tuple(f"{stage}.ckpt" for stage in STAGES)
LOGS = (LOG, *(f"{stage}.log" for stage in STAGES))
RESULTS = (
    LAST,
    GLIMPSE,
    ADAPTER,
    EVAL,
    BEST,
    BASE,
    VISION,
    *STAGE_CHECKPOINTS,
)  # what a run was made for: only `overwrite=true` removes them

RunConfig = TrainConfig | PretrainConfig | CardsPretrainConfig


def run_folder(config: RunConfig) -> Path:
    """`{runs_dir}/{name}`."""
    return Path(config.runs_dir) / config.name


def find_checkpoint(config: RunConfig) -> Path | None:
    """What `ckpt` names: None, the run's own `last.ckpt` ("last"; "auto": if there is one), or a path.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if config.ckpt is None:
        return None
    own = _own_checkpoint(config)
    if config.ckpt == "auto":
        return own if own.is_file() else None
    path = own if config.ckpt == "last" else Path(config.ckpt)
    if not path.is_file():
        raise FileNotFoundError(f"ckpt={config.ckpt}: there is no checkpoint {path}; leave ckpt out to start anew")
    return path


def _own_checkpoint(config: RunConfig) -> Path:
    """Where the run's own folder goes on: the newest stage's of a pretraining on cards, else `last.ckpt`."""
    folder = run_folder(config)
    if isinstance(config, CardsPretrainConfig):
        begun = [folder / name for name in STAGE_CHECKPOINTS if (folder / name).is_file()]
        return begun[-1] if begun else folder / STAGE_CHECKPOINTS[0]
    return folder / LAST


def check_folder(config: RunConfig, ckpt: Path | None) -> list[str]:
    """Refuses to start in a folder with results; changes nothing.

    Args:
        config: of the run.
        ckpt: where it goes on, if it does.

    Returns:
        Notices for the user.

    Raises:
        ValueError: the folder holds results of another run, and `overwrite` does not say that they may go.
    """
    folder = run_folder(config)
    found = [name for name in RESULTS if any(folder.glob(name))]
    if not found or not is_new_run(config, ckpt):
        return []
    if config.overwrite:
        return [f"overwrites {', '.join(found)} of the run before in {folder}"]
    go_on = "ckpt=auto to go on with it, " if {LAST, *STAGE_CHECKPOINTS} & set(found) else ""
    raise ValueError(
        f"{folder} holds {', '.join(found)} of a run: give {go_on}name=... for another folder, "
        "or overwrite=true to remove them and start anew"
    )


def is_new_run(config: RunConfig, ckpt: Path | None) -> bool:
    """Whether the run does not go on from its own folder's checkpoint, so that results there are of another run."""
    return ckpt is None or ckpt.resolve().parent != run_folder(config).resolve()


def claim_folder(
    config: RunConfig, ckpt: Path | None, step: int = 0, max_steps: int = 0, keep_trained: bool = False
) -> None:
    """Writes `config.yaml` and `run.json` before any work; called on the first process only, after `check_folder`.

    Args:
        config: of the run.
        ckpt: where it goes on; without one, results of an earlier run are removed.
        step: optimizer steps that the checkpoint has done.
        max_steps: of the whole run; if there are more to come, results of an evaluation of the older weights are set
            aside.
        keep_trained: what an earlier run has trained stays, until `remove_trained` is called.
    """
    folder = run_folder(config)
    if is_new_run(config, ckpt):
        _remove(folder, (INFO, EVENTS, *LOGS))
        if not keep_trained:
            remove_trained(folder)
    elif step < max_steps:
        _set_aside_evaluation(folder, step)
    folder.mkdir(parents=True, exist_ok=True)
    settings = {**asdict(config), "overwrite": False}  # who repeats the run from this file has to say it again
    write_text(folder / CONFIG, OmegaConf.to_yaml(OmegaConf.create(settings)))
    write_info(folder, {**code_version(), "command": command_line(), "started": _now(), "resumed_at_step": step})


def remove_trained(folder: Path) -> None:
    """Removes what an earlier run in this folder has trained, and the evaluation of it."""
    _remove(folder, [path.name for name in RESULTS for path in folder.glob(name)])


def write_info(folder: Path, info: dict[str, Any]) -> None:
    """Adds to `run.json`."""
    path = folder / INFO
    there = read_info(folder)
    write_text(path, json.dumps({**there, **info}, indent=2) + "\n")


def read_info(folder: Path) -> dict[str, Any]:
    """Contents of `run.json`, {} without one; ValueError names a file that is damaged."""
    path = folder / INFO
    if not path.is_file():
        return {}
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(there, dict):
            raise ValueError("no object")
    except ValueError as error:
        raise ValueError(f"{path}: not the description of a run ({error}); delete it") from error
    return there


def finish(folder: Path, step: int, figures: dict[str, float]) -> None:
    """Notes the end of a run and its last figures; without new ones (nothing was left to do) the old ones stay."""
    write_info(folder, {"finished": _now(), "step": step, **({"figures": figures} if figures else {})})


def code_version() -> dict[str, Any]:
    """Commit of this code (None outside its git repository), whether files were changed since, and libraries."""
    return {**code_commit(), "versions": library_versions()}


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
