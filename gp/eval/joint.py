"""Several evaluations in one table and figure, with mean and spread of runs that differ by their seed only."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gp.config import load_config
from gp.eval.figures import COLORS, MARKERS
from gp.eval.finishing import SUMMARY
from gp.eval.names import place_of
from gp.eval.table import accuracy_text, budget_text, percent
from gp.runs.differences import differences
from gp.runs.folder import CONFIG
from gp.runs.resuming import FREE, kind_of
from gp.runs.writing import replacing, write_text

Row = dict[str, Any]

REPORT = "report.md"
SPREAD = "_std"
AVERAGED = (
    "keep_ratio", "cache_ratio", "compute_ratio", "kv_keep_ratio", "answer_accuracy", "answer_accuracy_unpruned",
    "agreement", "mask_precision", "mask_recall", "mask_f1", "mask_iou", "evidence_recall", "prefill_ratio",
    "decode_ratio", "peak_mib", "kv_cache_mib",
)  # fmt: skip
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
    mean: Row = {key: first[key] for key in ("split", "pruner", "budget", "matched", "num_samples")} | {
        "threshold": first.get("threshold")
    }
    mean |= {"run": f"mean of {len(members)}", "runs": list(labels)}
    for name in AVERAGED:
        values = [row[name] for row in members]
        known = None not in values
        mean[name] = round(statistics.fmean(values), 6) if known else None
        mean[name + SPREAD] = round(statistics.stdev(values), 6) if known else None
    return mean


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


def _cells(row: Row) -> list[str]:
    is_mean = "runs" in row

    def shown(name: str, show) -> str:
        if row[name] is None:
            return "-"
        return f"{show(row[name])} ± {show(row[name + SPREAD])}" if is_mean else show(row[name])

    accuracy = shown("answer_accuracy", lambda value: f"{100 * value:.2f}") if is_mean else accuracy_text(row)
    return [
        row["run"], row["pruner"], budget_text(row),
        shown("cache_ratio", percent), accuracy, shown("agreement", percent),
        shown("mask_iou", "{:.3f}".format), shown("prefill_ratio", "{:.2f}".format), str(row["num_samples"]),
    ]  # fmt: skip


def _print(rows: Sequence[Row], split: str, console: Console) -> None:
    table = Table(title=Text(f"split {split}"), title_justify="left", padding=(0, 1, 0, 0))
    for number, head in enumerate(HEADS):
        table.add_column(head, justify="left" if number < 3 else "right", no_wrap=number < 3)
    for row in rows:
        table.add_row(*map(Text, _cells(row)))
    console.print(table)


def _markdown(rows: Sequence[Row]) -> str:
    rule = ["---"] * 3 + ["---:"] * (len(HEADS) - 3)
    return "\n".join("| " + " | ".join(line) + " |" for line in (HEADS, rule, *map(_cells, rows)))


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
