"""The curves of the report: the score of exact answers against the budget that was met, and against measured speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
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
FORMATS = ("png", "pdf", "svg")
LEAST_POINTS = 5  # percentage points that the axis of accuracy spans where all rows have the same
UNDATED = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}  # the same rows give the same file
LEGEND = (
    "Along: share of visual entries in the KV cache after prefill, mean over layers, as realised. Bars and band: 95 % "
    "bootstrap interval over questions. Stars: the method's own decision; hollow: as many tokens of each prompt as "
    "glimpse kept. Dashed: without pruning."
)
SPEED_LEGEND = (
    "The same rows as users feel them. Left: questions a second, measured in this run on the same batches in turn, "
    "each question prefilled and answered with 8 tokens. Right: time of the prefill / without pruning, less is faster."
)

RELIABILITY_LEGEND = (
    "Calibration of the predicted importance: visual tokens by the probability that glimpse gives them, in bins of 10 "
    "points; circles grow with the number of tokens. On the dashed line a prediction means what it says. ECE: mean "
    "distance from it over tokens."
)


@dataclass(frozen=True)
class Axis:
    """What is drawn along one panel.

    Args:
        key: of the rows.
        label: with its unit.
        scale: what the figure of a row is multiplied by.
        has_unpruned: whether the un-pruned row is a point there, too.
    """

    key: str
    label: str
    scale: float = 1.0
    has_unpruned: bool = True


BUDGET = Axis("cache_ratio", "visual entries in the KV cache (%)", 100, has_unpruned=False)
SPEED = (Axis("questions_per_s", "questions a second"), Axis("prefill_ratio", "prefill time / un-pruned"))


def save(figure: Figure, stem: Path) -> Path:
    """Writes a figure as PNG, PDF and SVG beside each other; returns the path of the PNG.

    Args:
        figure: to draw.
        stem: path without suffix.
    """
    FigureCanvasAgg(figure)  # no window, no global state of pyplot
    stem.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": "gp", "svg.fonttype": "none"}):
        for name in FORMATS:
            with replacing(stem.with_name(f"{stem.name}.{name}")) as unfinished:
                figure.savefig(unfinished, dpi=150, format=name, metadata=UNDATED[name])
    return stem.with_name(f"{stem.name}.png")


def draw(rows: Sequence[dict[str, Any]]) -> tuple[Figure, dict[str, str]]:
    """Accuracy against the realised budget: a line per pruner over its budgets, a star for its own decision, and the
    un-pruned accuracy.

    Args:
        rows: those of one split, as in `summary.json`.

    Returns:
        The figure, and for the id of every point in it what it shows, with its numbers.
    """
    return _draw(rows, [BUDGET])


def draw_speed(rows: Sequence[dict[str, Any]]) -> tuple[Figure, dict[str, str]] | None:
    """Accuracy against questions a second, and against the prefill's time; None where no time was measured.

    Arguments and results as of `draw`.
    """
    timed = [row for row in rows if all(row[axis.key] is not None for axis in SPEED)]
    return _draw(timed, SPEED) if timed else None


def draw_reliability(curve: Mapping[str, Sequence[float]]) -> tuple[Figure, dict[str, str]]:
    """Share of evidence against predicted importance, a point per bin that holds tokens, as large as it is full.

    Args:
        curve: `predicted`, `observed` and `tokens` of each bin, see `gp.metrics.Calibration`.

    Returns:
        As `draw`.
    """
    figure = Figure(figsize=(5.2, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 100], [0, 100], color="grey", linestyle="--", linewidth=1)
    total = sum(curve["tokens"])
    notes: dict[str, str] = {}
    bins = [one for one in zip(curve["predicted"], curve["observed"], curve["tokens"], strict=True) if one[2]]
    axes.plot([100 * one[0] for one in bins], [100 * one[1] for one in bins], color=COLORS[1], linewidth=1.2)
    for predicted, observed, tokens in bins:
        point, size = f"point-{len(notes)}", 4 + 10 * (tokens / total) ** 0.5
        axes.plot([100 * predicted], [100 * observed], "o", color=COLORS[1], markersize=size, gid=point)
        notes[point] = f"{percent(predicted)} % predicted, {percent(observed)} % evidence, {int(tokens)} tokens"
    axes.set_xlabel("predicted importance (%)")
    axes.set_ylabel("tokens that are evidence (%)")
    axes.grid(alpha=0.3)
    return figure, notes


def _draw(rows: Sequence[dict[str, Any]], along: Sequence[Axis]) -> tuple[Figure, dict[str, str]]:
    figure = Figure(figsize=(7.6 if len(along) == 1 else 10.4, 4.4), layout="constrained")
    notes: dict[str, str] = {}
    panels = figure.subplots(1, len(along), squeeze=False, sharey=True)[0]
    for axes, axis in zip(panels, along, strict=True):
        _draw_unpruned(axes, rows)
        pruners = dict.fromkeys(row["pruner"] for row in rows)
        for pruner in (name for name in pruners if axis.has_unpruned or name != NoPruner.name):
            _draw_pruner(axes, axis, [row for row in rows if row["pruner"] == pruner], notes)
        axes.set_xlabel(axis.label)
        axes.set_xlim(left=0)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("answers that match exactly (%)")
    low, high = panels[0].get_ylim()
    middle, half = (low + high) / 2, max((high - low) / 2, LEAST_POINTS / 2)
    panels[0].set_ylim(max(middle - half, -2), min(middle + half, 102))
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize="small")
    return figure, notes


def _draw_unpruned(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    axes.axhline(
        100 * rows[0]["answer_accuracy_unpruned"], color="grey", linestyle="--", linewidth=1, label="un-pruned"
    )
    for row in rows:
        if row["pruner"] == NoPruner.name:
            low, high = row["answer_accuracy_ci95"]
            axes.axhspan(100 * low, 100 * high, color="grey", alpha=0.12, linewidth=0)


def _draw_pruner(axes: Axes, axis: Axis, rows: Sequence[dict[str, Any]], notes: dict[str, str]) -> None:
    """The rows of one pruner; its colour and marker are the same in every figure."""
    number = place_of(rows[0]["pruner"]) - 1  # without `none`
    style = {"color": COLORS[number % len(COLORS)], "marker": MARKERS[number % len(MARKERS)], "markersize": 5}
    decides = rows[0]["pruner"] != NoPruner.name and not rows[0]["matched"]
    if rows[0]["pruner"] == NoPruner.name:
        style |= {"color": "grey", "marker": "o"}
    budgeted = sorted((row for row in rows if row["budget"] is not None), key=lambda row: row[axis.key])
    shown = {"linewidth": 1.2} if budgeted else {"linestyle": "none", **(OWN if decides else {})}
    axes.plot([], [], label=rows[0]["pruner"], **{**style, **shown})
    line = [[axis.scale * row[axis.key] for row in budgeted], [100 * row["answer_accuracy"] for row in budgeted]]
    axes.plot(*line, color=style["color"], linewidth=1.2)
    for row in rows:
        x, y = axis.scale * row[axis.key], 100 * row["answer_accuracy"]
        low, high = row["answer_accuracy_ci95"]
        bar = [[max(y - 100 * low, 0)], [max(100 * high - y, 0)]]
        axes.errorbar([x], [y], yerr=bar, fmt="none", ecolor=style["color"], elinewidth=0.9, capsize=2)
        is_own = decides and row["budget"] is None and not row["matched"]
        hollow = {"markerfacecolor": "white"} if row["matched"] else {}
        point = f"point-{len(notes)}"
        axes.plot([x], [y], linestyle="none", gid=point, **{**style, **(OWN if is_own else {}), **hollow})
        notes[point] = _note(row, axis)


def _note(row: dict[str, Any], axis: Axis) -> str:
    budget = f"budget {budget_text(row)}" if row["budget"] is not None else budget_text(row)
    speed = "" if axis == BUDGET else f", {axis.label} {row[axis.key]:.3g}"
    return f"{row['pruner']}, {budget}: cache {percent(row['cache_ratio'])} %{speed}, accuracy {accuracy_text(row)} %"
