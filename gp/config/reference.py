"""Every option in words, from the schema: for `--help`, and as a page.

python -m gp.config.reference > docs/options.md
"""

from __future__ import annotations

import inspect
from typing import Any

from omegaconf import MISSING

from gp.config.load import SCHEMAS
from gp.config.scoring import ScoreConfig
from gp.config.table import Option, options_of, sections_of

TITLE = """# Options

Each is a key of a config, or `section.key=value` on the command line. What a config leaves out has its default. NaN and
infinity are refused everywhere. The source is [`gp/config/schema.py`](../gp/config/schema.py); this page is written by
`python -m gp.config.reference > docs/options.md`, and `python train.py --help` lists the same. Building shards has
options of its own: `python shards/build.py --help`.
"""
WIDTH = 33  # of the column of keys in --help


def help_text(*tasks: str) -> str:
    """Lists all options of some tasks, one line each, by section."""
    return "\n\n".join(f"options of task {task}:\n\n{describe_schema(SCHEMAS[task])}" for task in tasks)


def judge_text() -> str:
    """The same of a judge."""
    return f"options with score=FOLDER:\n\n{describe_schema(ScoreConfig)}"


def describe_schema(schema: type) -> str:
    """Lists all options of a schema, one line each, by section."""
    blocks = []
    for section, part in sections_of(schema).items():
        title = [f"  {section}: {_summary(part)}"] if section else []
        blocks.append("\n".join([*title, *map(_line, _options_in(schema, section))]))
    return "\n\n".join(filter(None, blocks))


def page() -> str:
    """The reference page, in Markdown."""
    parts = [TITLE]
    pages = {f"Task `{task}`": schema for task, schema in SCHEMAS.items()}
    for title, schema in {**pages, "`evaluate.py score=FOLDER`": ScoreConfig}.items():
        parts.append(f"## {title}\n")
        for section, part in sections_of(schema).items():
            rows = [_row(one) for one in _options_in(schema, section)]
            if not rows:
                continue
            if section:
                parts.append(f"### `{section}`\n\n{_summary(part)}\n")
            parts.append("\n".join(["| key | default | values | meaning |", "|---|---|---|---|", *rows]) + "\n")
    return "\n".join(parts)


def as_yaml(value: Any) -> str:
    """A default as one would write it in YAML."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"[{', '.join(map(as_yaml, value))}]" if isinstance(value, list) else str(value)


def default_of(one: Option) -> str:
    """`required`, or the default."""
    return "required" if one.default == MISSING else as_yaml(one.default)


def _options_in(schema: type, section: str) -> list[Option]:
    return [one for one in options_of(schema) if one.key.rpartition(".")[0] == section]


def _line(one: Option) -> str:
    choices = f": {', '.join(one.rule.choices)}" if one.rule.choices else ""
    shown = default_of(one)
    return f"  {one.key:{WIDTH}}{one.rule.help}{choices} ({shown if shown == 'required' else f'default {shown}'})"


def _row(one: Option) -> str:
    cells = (f"`{one.key}`", f"`{default_of(one)}`", one.takes, one.rule.help.replace("|", "\\|"))
    return f"| {' | '.join(cells)} |"


def _summary(part: type) -> str:
    return " ".join(inspect.getdoc(part).split())


if __name__ == "__main__":
    print(page(), end="")
