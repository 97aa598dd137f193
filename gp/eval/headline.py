"""The report in a sentence or three: what pruning costs and what it saves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gp.eval.scores import figure_of
from gp.eval.sets_table import means_of_sets, name_of
from gp.eval.table import percent, points
from gp.pruners import GlimpsePruner, NoPruner, OraclePruner

Row = dict[str, Any]

MOST_SPLITS = 3  # with more sets than this their mean is said instead


def headline(rows: Sequence[Row], scores: Mapping[str, str]) -> list[str]:
    """Sentences about the row that users look for first; none where nothing but `none` and `oracle` was run.

    Args:
        rows: of `summary.json`.
        scores: split -> its scorer.
    """
    if len(scores) > MOST_SPLITS:
        means = {name_of(mean): mean for mean in means_of_sets(rows, scores)}
        shown = _shown(list(means.values()))
        unpruned = means.get(NoPruner.name)
        if shown is None or unpruned is None:
            return []
        said = f"Mean of {len(scores)} sets: {name_of(shown)} scores {_kept(shown['score'], shown['keep_ratio'])}"
        return [f"{said}; without pruning {percent(unpruned['score'])} %."]
    return [_sentence(split, [row for row in rows if row["split"] == split], scores[split]) for split in scores]


def _sentence(split: str, rows: Sequence[Row], scorer: str) -> str:
    shown, key = _shown(rows), figure_of(scorer)
    unpruned = next(row for row in rows if row["pruner"] == NoPruner.name)
    if shown is None:
        return f"{split}: without pruning {percent(unpruned[key])} % ({scorer}, {unpruned['num_samples']} questions)."
    said = f"{split}: {name_of(shown)} scores {_kept(shown[key], shown['keep_ratio'])}"
    said += f" ({scorer}, {shown['num_samples']} questions); without pruning {percent(unpruned[key])} %"
    if shown["reference"] == unpruned_label(rows) and shown["difference"] is not None:
        low, high = shown["difference_ci95"]
        said += f", a difference of {points(shown['difference'])} points [{points(low)}, {points(high)}]"
    if shown["prefill_ratio"] is not None:
        said += f". A prefill takes {shown['prefill_ratio']:.2f} of the un-pruned time"
    return f"{said}."


def unpruned_label(rows: Sequence[Row]) -> str | None:
    """How rows name the un-pruned one as their reference."""
    return next((row["reference"] for row in rows if str(row["reference"]).startswith(NoPruner.name)), None)


def _shown(rows: Sequence[Row]) -> Row | None:
    """The row of `glimpse`'s own decision, else its first one, else the first one of another method that prunes."""
    pruned = [row for row in rows if row["pruner"] not in (NoPruner.name, OraclePruner.name)]
    ranks = (
        lambda row: row["pruner"] == GlimpsePruner.name and row["budget"] is None and row.get("threshold") is None,
        lambda row: row["pruner"] == GlimpsePruner.name,
        lambda row: True,
    )
    return next((row for is_wanted in ranks for row in pruned if is_wanted(row)), None)


def _kept(score: float, keep_ratio: float) -> str:
    return f"{percent(score)} % with {percent(keep_ratio)} % of the visual tokens"
