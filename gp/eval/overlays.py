"""Example images of the report: which visual tokens each method kept, and what it answered then."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from gp.boxes import Frame
from gp.data.batch import Batch
from gp.data.painting import paint_sample
from gp.data.sample import Sample
from gp.eval.plan import UNPRUNED, Method
from gp.eval.results import Result
from gp.eval.runner import prefill_batch
from gp.model import GlimpseModel
from gp.runs.writing import replacing

FOLDER = "figures"
LEGEND = (
    "Dropped tokens are darkened, evidence boxes outlined. A method that makes the image smaller drops none of what is "
    "left: its pictures are not darkened."
)


@dataclass(frozen=True)
class Painted:
    """One method on one example: its picture (path relative to the report) and its result."""

    method: Method
    picture: str
    result: Result


@dataclass(frozen=True)
class Example:
    """One sample of the report, with the answer that the un-pruned model gave."""

    sample: Sample
    unpruned: Result
    painted: list[Painted]


def paint_examples(
    model: GlimpseModel,
    batches: Sequence[Batch],
    results: Mapping[Method, Mapping[str, Result]],
    count: int,
    seed: int,
    num_keep: Mapping[str, int],
    out: Path,
    split: str,
) -> list[Example]:
    """Paints the first samples of a split under every pruner, each at its first budget.

    Args:
        model: on its device.
        batches: first ones of the split, with images.
        results: row -> id -> result, complete.
        count: number of examples.
        seed: for methods that draw.
        num_keep: for matched methods: tokens to keep of each sample, by id.
        out: folder of the report; pictures go to its subfolder `figures`.
        split: for the file names.
    """
    shown = first_of_pruners(results)
    examples: list[Example] = []
    for batch in batches:
        wanted = batch.samples[: count - len(examples)]
        if not wanted:
            break
        kept = {m: prefill_batch(model, batch, m, seed, num_keep).seen_masks for m in shown}
        for row, sample in enumerate(wanted):
            stem = f"{FOLDER}/{split}-{len(examples):03d}"
            painted = []
            for method, masks in kept.items():
                picture = f"{stem}-{method.label}.png"
                paint(sample, masks[row], batch.frames[row], out / picture)
                painted.append(Painted(method, picture, results[method][sample.id]))
            examples.append(Example(sample, results[UNPRUNED][sample.id], painted))
    return examples


def first_of_pruners(methods: Iterable[Method]) -> list[Method]:
    """The first row of every pruner that prunes."""
    first: dict[str, Method] = {}
    for method in methods:
        if method != UNPRUNED:
            first.setdefault(method.pruner, method)
    return list(first.values())


def describe(painted: Painted) -> str:
    """What the picture of one method shows, for those who do not see it."""
    result = painted.result
    return (
        f"{painted.method.pruner} kept {result.num_kept} of {result.num_visual} visual tokens (others are darkened) "
        f"and answered {result.prediction or 'nothing'!r} to {result.question!r}"
    )


def paint(sample: Sample, keep_mask: Tensor, frame: Frame, path: Path) -> None:
    """Writes the picture of a sample with its image as PNG, see `gp.data.painting.paint_sample`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        paint_sample(sample, keep_mask, frame).save(unfinished, "PNG")
