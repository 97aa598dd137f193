"""Figures of a list of shards, and everything that is wrong with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from gp.boxes import evidence_mask, normalize_boxes
from gp.data.inspecting.reading import inspected_samples
from gp.data.inspecting.tokens import TokenCounter
from gp.data.manifest import MANIFEST, Manifest, ShardEntry, check_shard, read_manifest
from gp.data.sample import BadSample, Sample
from gp.data.skipping import SkipCounter

AREA_GRID = 64  # cells per side; the union of boxes is measured on it where there are several
TOKEN_EDGES = (0, 16, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, float("inf"))
AREA_EDGES = (0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
BAR = 40
FEW_TOKENS = 16


@dataclass
class Inspection:
    """Figures of the shards that were read.

    Args:
        shards: number of them.
        checked: those that the manifest knows, all of which match it.
        samples: usable questions.
        images: records.
        bytes: size of the shards.
        groups: (data set, split) -> usable questions.
        tokens: number of visual tokens, one entry per image with a usable question.
        areas: share of the image inside its boxes, one entry per usable question, 0..1.
        questions_an_image: count of questions -> number of images.
        skips: questions that training and evaluation would skip.
        damaged: shards that cannot be read to their end or do not match their manifest, and why.
    """

    shards: int = 0
    checked: int = 0
    samples: int = 0
    images: int = 0
    bytes: int = 0
    groups: Counter[tuple[str, str]] = field(default_factory=Counter)
    tokens: list[int] = field(default_factory=list)
    areas: list[float] = field(default_factory=list)
    questions_an_image: Counter[int] = field(default_factory=Counter)
    skips: SkipCounter = field(default_factory=lambda: SkipCounter(1.0))
    damaged: list[str] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.damaged and not self.skips.skipped


def inspect_shards(
    shards: Sequence[Path], count_tokens: TokenCounter, also: Callable[[Sample], None] | None = None
) -> Inspection:
    """Reads all records, and checks every shard that the manifest beside it knows; what is wrong is in the result.

    Args:
        shards: local files.
        count_tokens: visual tokens of an image's size.
        also: is given the first usable question of every image.

    Raises:
        ValueError: a manifest that is none.
    """
    report = Inspection()
    manifests = {folder: read_manifest(folder) for folder in {shard.parent for shard in shards}}
    console = Console(stderr=True)
    for shard in track(shards, "reading shards", console=console, disable=not console.is_terminal):
        report.shards += 1
        try:
            report.checked += _inspect(report, shard, manifests[shard.parent], count_tokens, also)
        except (ValueError, OSError) as error:
            report.damaged.append(str(error))
    return report


def evidence_area(sample: Sample) -> float:
    """The share of the image inside the boxes of a question, overlaps counted once; 0..1."""
    boxes, size = sample.boxes_xyxy_px, (sample.width, sample.height)
    if len(boxes) == 1:
        x1, y1, x2, y2 = boxes[0]
        return (x2 - x1) * (y2 - y1) / (size[0] * size[1])
    return float(evidence_mask(normalize_boxes(boxes, *size), AREA_GRID, AREA_GRID).float().mean())


def print_report(report: Inspection, console: Console) -> None:
    """Figures first, then what is wrong."""
    beside = report.shards - report.checked - len(report.damaged)
    _say(
        console,
        f"{report.shards} shards, {report.bytes / 2**20:.1f} MiB: {report.samples} questions about "
        f"{report.images} images; {report.checked} shards match {MANIFEST} (size, SHA-256, counts)"
        + (f", {beside} are not in one" if beside else ""),
    )
    table = Table("data set", "split", "questions")
    for (dataset, split), count in sorted(report.groups.items()):
        table.add_row(Text(dataset), Text(split), str(count))
    console.print(table)
    shared = ", ".join(f"{count}: {images}" for count, images in sorted(report.questions_an_image.items()))
    _say(console, f"images by their number of questions: {shared or 'none'}")
    _print_histogram(console, "visual tokens per image", report.tokens, TOKEN_EDGES, "{:.0f}")
    _print_histogram(console, "evidence, share of the image", report.areas, AREA_EDGES, "{:.0%}")
    if few := sum(tokens < FEW_TOKENS for tokens in report.tokens):
        _say(console, f"\nwarning: {few} images have fewer than {FEW_TOKENS} visual tokens: little can be pruned")
    _print_problems(console, report)


def _inspect(
    report: Inspection,
    shard: Path,
    manifest: Manifest | None,
    count_tokens: TokenCounter,
    also: Callable[[Sample], None] | None,
) -> bool:
    """Adds one shard; True if a manifest knows it. ValueError or OSError if it is damaged."""
    report.bytes += shard.stat().st_size
    entry = manifest.shards.get(shard.name) if manifest is not None else None
    samples = images = 0
    for _, questions in groupby(inspected_samples(shard), key=lambda found: found[1]):
        found = [question for question, _ in questions]
        images, samples = images + 1, samples + len(found)
        usable = [question for question in found if isinstance(question, Sample)]
        for question in found:
            if isinstance(question, BadSample):
                report.skips.bad(question)
        _add(report, usable, len(found), count_tokens)
        if usable and also is not None:
            also(usable[0])
    if entry is not None:
        check_shard(shard, entry)
        _check_counts(shard, entry, samples, images)
    return entry is not None


def _add(report: Inspection, usable: Sequence[Sample], num_questions: int, count_tokens: TokenCounter) -> None:
    """One image and its usable questions."""
    report.images += 1
    report.questions_an_image[num_questions] += 1
    report.samples += len(usable)
    report.skips.good(len(usable))
    for sample in usable:
        report.groups[sample.dataset, sample.split] += 1
        report.areas.append(evidence_area(sample))
    if usable and usable[0].image is not None:
        report.tokens.append(count_tokens(usable[0].image.size))


def _check_counts(shard: Path, entry: ShardEntry, samples: int, images: int) -> None:
    if (samples, images) != (entry.samples, entry.images):
        raise ValueError(
            f"shard {shard}: {shard.parent / MANIFEST} says {entry.samples} questions and {entry.images} images, "
            f"the file has {samples} and {images}"
        )


def _print_problems(console: Console, report: Inspection) -> None:
    if report.skips.skipped:
        _say(console, f"\nwrong: {report.skips.summary()}")
    for message in report.damaged:
        _say(console, f"\nwrong: {message}")


def _print_histogram(console: Console, title: str, values: Sequence[float], edges: Sequence[float], form: str) -> None:
    if not values:
        return
    counts, _ = np.histogram(values, np.asarray(edges))
    median, high = np.quantile(values, [0.5, 0.9])
    mean = _number(float(np.mean(values)))
    _say(console, f"\n{title}: median {_number(median)}, 90 % are below {_number(high)}, mean {mean}")
    filled = np.flatnonzero(counts)
    for place in range(filled[0], filled[-1] + 1):  # empty ones between others, too
        span = f"{form.format(edges[place])} .. {form.format(edges[place + 1])}"
        bar = "#" * (max(1, round(BAR * counts[place] / max(counts))) if counts[place] else 0)
        _say(console, f"{span:>16} {bar} {counts[place]}")


def _say(console: Console, text: str) -> None:
    """Names of files may hold what rich takes for markup."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.3f}"
