"""Several evaluations in one table and figure, with mean and spread of runs that differ by their seed only."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console

from gp.config import load_config
from gp.config.schema import SCORERS
from gp.eval.figures import COLORS, MARKERS
from gp.eval.finishing import SUMMARY
from gp.eval.lines import markdown, print_lines
from gp.eval.names import place_of
from gp.eval.table import accuracy_text, budget_text, percent
from gp.runs.differences import differences
from gp.runs.folder import CONFIG
from gp.runs.resuming import FREE, kind_of
from gp.runs.writing import replacing, write_text

Row = dict[str, Any]

REPORT = "report.md"
SPREAD = "_std"
NAMES = ("split", "pruner", "budget", "matched", "threshold", "num_samples")  # what tells rows apart: no figures
NOT_AVERAGED = (*NAMES, "difference_ci95", "difference_p")  # a mean of p is no p
NUM_TEXT_COLUMNS = 3
HEADS = ("run", "method", "budget", "cache %", "accuracy %", "agree %", "mask IoU", "prefill time", "n")
LEGEND = (
    "Single runs: 95 % bootstrap interval over questions. Means: over runs that differ by their seed only, with the "
    "standard deviation between them (n - 1 in the denominator); what `none` spreads by is not training."
)


def join(folders: Mapping[str, Path], configs: Mapping[str, Path | None], out: Path, console: Console) -> list[Row]:
    """Writes `summary.json`, `report.md` and a figure per split of several evaluations, and prints the table.

    Args:
        folders: label -> folder of a finished evaluation.
        configs: label -> the config file of its run; None: not known, and no part of any mean.
        out: of the joint files.
        console: the table goes there.

    Returns:
        All rows, each with the label of its run as `run`, followed by the means: these have `runs`, their labels, and
        beside every figure its standard deviation as `NAME_std`.

    Raises:
        FileNotFoundError: an evaluation that was not finished.
    """
    rows = [{"run": label, **row} for label, folder in folders.items() for row in _summary(folder)]
    means = [mean for labels in same_but_seed(configs) for mean in means_of(rows, labels)]
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / SUMMARY, json.dumps(rows + means, indent=1) + "\n")
    parts = [f"# {len(folders)} runs", *(f"- {label}: `{folder}`" for label, folder in folders.items())]
    for split in dict.fromkeys(row["split"] for row in rows):
        of_split = [row for row in rows + means if row["split"] == split]
        _print(of_split, split, console)
        _draw([row for row in rows if row["split"] == split], out / f"accuracy-{split}.png")
        parts += [f"\n## Split `{split}`\n", _markdown(of_split), f"\n{LEGEND}\n", f"![accuracy](accuracy-{split}.png)"]
    write_text(out / REPORT, "\n".join(parts) + "\n")
    console.print(f"report: {out / REPORT}", soft_wrap=True, highlight=False, markup=False)
    return rows + means


def same_but_seed(configs: Mapping[str, Path | None]) -> list[list[str]]:
    """Groups of two or more labels whose runs differ by `seed` and by names of folders only."""
    settings = {label: asdict(load_config(path)) for label, path in configs.items() if path is not None}
    groups: list[list[str]] = []
    for label, given in settings.items():
        group = next((group for group in groups if _alike(settings[group[0]], given)), None)
        if group is None:
            groups.append([label])
        else:
            group.append(label)
    return [group for group in groups if len(group) > 1]


def means_of(rows: Iterable[Row], labels: Sequence[str]) -> list[Row]:
    """Mean and standard deviation over some runs, of every row that all of them have."""
    kinds: dict[tuple, list[Row]] = {}
    for row in rows:
        if row["run"] in labels:
            kinds.setdefault(
                (row["split"], row["pruner"], row["budget"], row["matched"], row.get("threshold")), []
            ).append(row)
    return [_mean(members, labels) for members in kinds.values() if len(members) == len(labels)]


def _mean(members: Sequence[Row], labels: Sequence[str]) -> Row:
    first = members[0]
    mean: Row = {key: first.get(key) for key in NAMES}
    mean |= {"run": f"mean of {len(members)}", "runs": list(labels)}
    for name in figures_of(members):
        values = [row[name] for row in members]
        known = None not in values
        mean[name] = round(statistics.fmean(values), 6) if known else None
        mean[name + SPREAD] = round(statistics.stdev(values), 6) if known else None
    return mean


def figures_of(members: Sequence[Row]) -> list[str]:
    """Keys of all rows whose values are numbers, or null where something was not measured: scorers of any name, too."""
    common = [key for key in members[0] if key not in NOT_AVERAGED and all(key in row for row in members)]
    return [key for key in common if all(_is_figure(row[key]) for row in members)]


def _is_figure(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _summary(folder: Path) -> list[Row]:
    path = folder / SUMMARY
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file: this evaluation was not finished")
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        assert isinstance(rows, list)
    except (ValueError, AssertionError) as error:
        raise ValueError(f"{path}: not the summary of an evaluation; delete it and evaluate again") from error
    return rows


def _alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two runs' weights depend on the same settings, but for the seed."""
    return all(change.key == "seed" or kind_of(change.key) == FREE for change in differences(one, other))


def config_of(run: Path) -> Path | None:
    """The config in a run's folder, if it is one."""
    return run / CONFIG if (run / CONFIG).is_file() else None


def _names(row: Row) -> list[str]:
    return [row["run"], row["pruner"], budget_text(row)]


def _shown(row: Row, name: str, show: Callable[[float], str]) -> str:
    """A figure, of a mean with its spread."""
    if row[name] is None:
        return "-"
    return f"{show(row[name])} ± {show(row[name + SPREAD])}" if "runs" in row else show(row[name])


def _cells(row: Row) -> list[str]:
    is_mean = "runs" in row
    accuracy = _shown(row, "answer_accuracy", lambda value: f"{100 * value:.2f}") if is_mean else accuracy_text(row)
    return [
        *_names(row),
        _shown(row, "cache_ratio", percent), accuracy, _shown(row, "agreement", percent),
        _shown(row, "mask_iou", "{:.3f}".format), _shown(row, "prefill_ratio", "{:.2f}".format),
        str(row["num_samples"]),
    ]  # fmt: skip


def _scored(rows: Sequence[Row]) -> list[str]:
    """Scorers that all rows have beside exact match."""
    return [name for name in SCORERS if all(name in row for row in rows)]


def _score_cells(row: Row, scorers: Sequence[str]) -> list[str]:
    return [_shown(row, name, percent) for name in scorers]


def _print(rows: Sequence[Row], split: str, console: Console) -> None:
    print_lines([HEADS, *map(_cells, rows)], f"split {split}", console, NUM_TEXT_COLUMNS)
    if scorers := _scored(rows):
        heads = [*HEADS[:NUM_TEXT_COLUMNS], *(f"{name} %" for name in scorers)]
        lines = [heads, *([*_names(row), *_score_cells(row, scorers)] for row in rows)]
        print_lines(lines, f"split {split}, scores", console, NUM_TEXT_COLUMNS)


def _markdown(rows: Sequence[Row]) -> str:
    scorers = _scored(rows)
    heads = [*HEADS, *(f"{name} %" for name in scorers)]
    return markdown([heads, *([*_cells(row), *_score_cells(row, scorers)] for row in rows)], NUM_TEXT_COLUMNS)


def _draw(rows: Sequence[Row], path: Path) -> None:
    """Accuracy over the realised budget: a colour for each run, a marker for each method."""
    figure = Figure(figsize=(7.6, 4.4), layout="constrained")
    axes = figure.add_subplot()
    labels, pruners = (list(dict.fromkeys(row[key] for row in rows)) for key in ("run", "pruner"))
    for row in rows:
        x, y = 100 * row["cache_ratio"], 100 * row["answer_accuracy"]
        low, high = (100 * side for side in row["answer_accuracy_ci95"])
        color = COLORS[labels.index(row["run"]) % len(COLORS)]
        marker = MARKERS[place_of(row["pruner"]) % len(MARKERS)]
        bar = [[max(y - low, 0)], [max(high - y, 0)]]
        axes.errorbar([x], [y], yerr=bar, color=color, marker=marker, markersize=5, linewidth=0.9, capsize=2)
    for number, label in enumerate(labels):
        axes.plot([], [], color=COLORS[number % len(COLORS)], linewidth=3, label=label)
    for pruner in pruners:
        marker = MARKERS[place_of(pruner) % len(MARKERS)]
        axes.plot([], [], color="grey", marker=marker, linestyle="none", label=pruner)
    axes.set_xlabel("visual entries in the KV cache (%)")
    axes.set_ylabel("answers that match exactly (%)")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize="small")
    FigureCanvasAgg(figure)
    with replacing(path) as unfinished:
        figure.savefig(unfinished, dpi=150, format="png")
