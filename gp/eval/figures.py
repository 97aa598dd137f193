"""The curve of the report: answer accuracy against the share of visual tokens kept."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gp.pruners import NoPruner

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C564B")  # told apart by all

PLOTTED = ("keep_ratio", "answer_accuracy", "answer_accuracy_se")


def accuracy_curve(rows: Sequence[dict[str, Any]], path: Path) -> Path:
    """Draws one line a pruner over its budgets, a star for its own decision, and the un-pruned accuracy.

    Args:
        rows: of one split, as in `summary.json`.
        path: of the PNG.

    Returns:
        The path.
    """
    figure = Figure(figsize=(6.4, 4.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)  # no window, no global state of pyplot
    axes = figure.add_subplot()
    unpruned = 100 * rows[0]["answer_accuracy_unpruned"]
    axes.axhline(unpruned, color="grey", linestyle="--", linewidth=1, label="un-pruned")
    colors = cycle(COLORS)
    for pruner in dict.fromkeys(row["pruner"] for row in rows if row["pruner"] != NoPruner.name):
        _draw_pruner(axes, pruner, [row for row in rows if row["pruner"] == pruner], next(colors))
    axes.set_xlabel("visual tokens kept (%)")
    axes.set_ylabel("answers that match exactly (%)")
    axes.set_xlim(left=0)
    axes.set_ylim(-2, 102)
    axes.grid(alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def _draw_pruner(axes, pruner: str, rows: list[dict[str, Any]], color: str) -> None:
    budgeted = sorted((row for row in rows if row["budget"] is not None), key=lambda row: row["keep_ratio"])
    own = [row for row in rows if row["budget"] is None]
    label = pruner
    for chosen, style in ((budgeted, {"marker": "o", "markersize": 4}), (own, {"marker": "*", "markersize": 11})):
        if not chosen:
            continue
        x, y, error = ([100 * row[key] for row in chosen] for key in PLOTTED)
        axes.errorbar(x, y, yerr=error, color=color, linewidth=1.2, capsize=2, label=label, **style)
        label = None  # one entry a pruner
