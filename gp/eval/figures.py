"""The curve of the report: answer accuracy against the budget that was met."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gp.eval.names import place_of
from gp.eval.table import accuracy_text, budget_text, percent
from gp.pruners import NoPruner
from gp.runs.writing import replacing

# told apart by all, and by their markers in print
COLORS = (
    *("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"),
    *("#8C564B", "#332288", "#882255", "#999933", "#000000", "#7F7F7F"),
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "d")
OWN = {"marker": "*", "markersize": 12}
LEGEND = (
    "Along: share of visual entries in the KV cache after prefill, mean over layers, as realised. Bars and band: 95 % "
    "bootstrap interval over questions. Stars: the method's own decision; hollow: as many tokens of each prompt as "
    "glimpse kept. Dashed: without pruning."
)


def accuracy_curve(rows: Sequence[dict[str, Any]], path: Path) -> Path:
    """Writes the figure of one split as PNG; returns the path."""
    figure, _ = draw(rows)
    FigureCanvasAgg(figure)  # no window, no global state of pyplot
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        figure.savefig(unfinished, dpi=150, format="png")
    return path


def draw(rows: Sequence[dict[str, Any]]) -> tuple[Figure, dict[str, str]]:
    """Draws one line per pruner over its budgets, a star for its own decision, and the un-pruned accuracy.

    Args:
        rows: those of one split, as in `summary.json`.

    Returns:
        The figure, and for the id of every point in it what it shows, with its numbers.
    """
    figure = Figure(figsize=(7.6, 4.4), layout="constrained")
    axes = figure.add_subplot()
    _draw_unpruned(axes, rows)
    notes: dict[str, str] = {}
    for pruner in dict.fromkeys(row["pruner"] for row in rows if row["pruner"] != NoPruner.name):
        _draw_pruner(axes, [row for row in rows if row["pruner"] == pruner], notes)
    axes.set_xlabel("visual entries in the KV cache (%)")
    axes.set_ylabel("answers that match exactly (%)")
    axes.set_xlim(left=0)
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, -2), min(high, 102))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize="small")
    return figure, notes


def _draw_unpruned(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    axes.axhline(
        100 * rows[0]["answer_accuracy_unpruned"], color="grey", linestyle="--", linewidth=1, label="un-pruned"
    )
    for row in rows:
        if row["pruner"] == NoPruner.name:
            low, high = row["answer_accuracy_ci95"]
            axes.axhspan(100 * low, 100 * high, color="grey", alpha=0.12, linewidth=0)


def _draw_pruner(axes: Axes, rows: Sequence[dict[str, Any]], notes: dict[str, str]) -> None:
    """The rows of one pruner; its colour and marker are the same in every figure."""
    number = place_of(rows[0]["pruner"]) - 1  # without `none`
    style = {"color": COLORS[number % len(COLORS)], "marker": MARKERS[number % len(MARKERS)], "markersize": 5}
    budgeted = sorted((row for row in rows if row["budget"] is not None), key=lambda row: row["cache_ratio"])
    shown = {"linewidth": 1.2} if budgeted else {"linestyle": "none", **({} if rows[0]["matched"] else OWN)}
    axes.plot([], [], label=rows[0]["pruner"], **{**style, **shown})
    line = [[100 * row[key] for row in budgeted] for key in ("cache_ratio", "answer_accuracy")]
    axes.plot(*line, color=style["color"], linewidth=1.2)
    for row in rows:
        x, y = 100 * row["cache_ratio"], 100 * row["answer_accuracy"]
        low, high = row["answer_accuracy_ci95"]
        bar = [[max(y - 100 * low, 0)], [max(100 * high - y, 0)]]
        axes.errorbar([x], [y], yerr=bar, fmt="none", ecolor=style["color"], elinewidth=0.9, capsize=2)
        is_own = row["budget"] is None and not row["matched"]
        hollow = {"markerfacecolor": "white"} if row["matched"] else {}
        point = f"point-{len(notes)}"
        axes.plot([x], [y], linestyle="none", gid=point, **{**style, **(OWN if is_own else {}), **hollow})
        notes[point] = _note(row)


def _note(row: dict[str, Any]) -> str:
    budget = f"budget {budget_text(row)}" if row["budget"] is not None else budget_text(row)
    return f"{row['pruner']}, {budget}: cache {percent(row['cache_ratio'])} %, accuracy {accuracy_text(row)} %"
