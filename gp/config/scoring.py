"""What `evaluate.py score=FOLDER` takes: the section `judge` of YAML files, and `judge.KEY=VALUE`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gp.config.judge import SECTION, JudgeConfig, check_judge
from gp.config.load import COMMAND_LINE, merge_options, parse_overrides, read_yaml


@dataclass
class ScoreConfig:
    """What `evaluate.py score=FOLDER` takes."""

    judge: JudgeConfig = field(default_factory=JudgeConfig)


def load_judge(overrides: Sequence[str], paths: Sequence[Path] = ()) -> JudgeConfig:
    """Reads the section `judge` of YAML files, later ones win, and of `judge.KEY=VALUE`, which win over them.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an unknown or missing key, or a value that it does not take; names it and where it comes from.
    """
    given = parse_overrides(overrides)
    if others := [key for key in given if key != SECTION]:
        raise ValueError(
            f"{COMMAND_LINE}: score= reads answers that are there and takes {SECTION}.* only, got {others[0]!r}: "
            "answers of another checkpoint, split or method are another evaluation"
        )
    files = {f"config {path}": read_yaml(path) for path in paths}
    judge: JudgeConfig = merge_options(ScoreConfig, {**files, COMMAND_LINE: given}).judge
    check_judge(judge)
    return judge
