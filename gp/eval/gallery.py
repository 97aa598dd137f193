"""Questions whose answer pruning changed, those first that lost most of their evidence, with what was kept."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gp.data.batch import Batch
from gp.eval.overlays import FOLDER, Example, Painted, first_of_pruners, paint
from gp.eval.plan import UNPRUNED, Method
from gp.eval.results import Result
from gp.eval.runner import prefill_batch
from gp.metrics import exact_match
from gp.model import GlimpseModel

LEGEND = (
    "Questions that are answered otherwise than without pruning, by exact match, those first that lost most of their "
    "evidence: the share of evidence tokens that were dropped. Each method at its first budget. Dropped tokens are "
    "darkened, evidence boxes outlined."
)


@dataclass(frozen=True)
class Failures:
    """What pruning changed in one row.

    Args:
        method: the row.
        num_changed, num_samples: questions whose answer changed, of all.
        shown: the first of them, painted, each under this method alone.
    """

    method: Method
    num_changed: int
    num_samples: int
    shown: list[Example]


def evidence_lost(result: Result) -> float:
    """Share of the evidence tokens that were dropped, 0..1; 0 where there is none."""
    return result.fn / max(result.tp + result.fn, 1)


def changed(results: Mapping[Method, Mapping[str, Result]], method: Method) -> list[str]:
    """Ids of the questions whose answer a row changed, in the order of the gallery: most evidence lost first."""
    row, unpruned = results[method], results[UNPRUNED]
    ids = [key for key in row if key in unpruned and not exact_match(row[key].prediction, unpruned[key].prediction)]
    return sorted(ids, key=lambda key: (-evidence_lost(row[key]), key))


def paint_failures(
    model: GlimpseModel,
    load: Callable[[Collection[int]], Iterable[Batch]],
    results: Mapping[Method, Mapping[str, Result]],
    count: int,
    seed: int,
    num_keep: Mapping[str, int],
    out: Path,
    split: str,
) -> list[Failures]:
    """Paints the first failures of every pruner at its first budget.

    Args:
        model: on its device.
        load: gives the samples of the split with these numbers, each as a batch with its image.
        results: row -> id -> result, complete.
        count: of failures per pruner; 0: none is painted, and nothing is loaded.
        seed: for methods that draw.
        num_keep: for matched methods: tokens to keep of each sample, by id.
        out: folder of the report; pictures go to its subfolder `figures`.
        split: for the file names.
    """
    ids = {method: changed(results, method) for method in first_of_pruners(results)}
    wanted = {method: keys[:count] for method, keys in ids.items()}
    numbers = {results[method][key].number for method, keys in wanted.items() for key in keys}
    painted: dict[tuple[Method, str], Example] = {}
    for batch in load(numbers) if numbers else ():
        sample = batch.samples[0]
        for method in (method for method, keys in wanted.items() if sample.id in keys):
            masks = prefill_batch(model, batch, method, seed, num_keep).seen_masks
            picture = f"{FOLDER}/{split}-changed-{method.label}-{wanted[method].index(sample.id):03d}.png"
            paint(sample, masks[0], batch.frames[0], out / picture)
            one = Painted(method, picture, results[method][sample.id])
            painted[method, sample.id] = Example(sample.without_image(), results[UNPRUNED][sample.id], [one])
    return [
        Failures(method, len(keys), len(results[method]), [painted[method, key] for key in wanted[method]])
        for method, keys in ids.items()
    ]


def as_entries(split: str, failures: Iterable[Failures]) -> list[dict[str, Any]]:
    """The gallery as plain data: of each row what changed, and of each question shown its answers and picture."""
    return [
        {
            "split": split,
            **asdict(one.method),
            "num_changed": one.num_changed,
            "num_samples": one.num_samples,
            "shown": [_entry(example) for example in one.shown],
        }
        for one in failures
    ]


def _entry(example: Example) -> dict[str, Any]:
    (painted,) = example.painted
    result = painted.result
    return {
        "id": result.id,
        "question": result.question,
        "answer": result.answer,
        "unpruned": example.unpruned.prediction,
        "pruned": result.prediction,
        "evidence_lost": round(evidence_lost(result), 6),
        "num_kept": result.num_kept,
        "num_visual": result.num_visual,
        "picture": painted.picture,
    }
