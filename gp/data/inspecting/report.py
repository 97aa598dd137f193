"""Figures of a list of shards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from gp.boxes import evidence_mask, normalize_boxes
from gp.data.inspecting.reading import StoredRecord, inspected_records
from gp.data.inspecting.tokens import TokenCounter
from gp.data.manifest import MANIFEST, ShardEntry, check_shard, read_manifest
from gp.data.sample import FIELDS, BadSample, check_fields

AREA_GRID = 64  # cells per side; the union of boxes is measured on it where there are several
TOKEN_EDGES = (0, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, float("inf"))
AREA_EDGES = (0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
BAR = 40


@dataclass
class Inspection:
    """Figures of the shards that were read.

    Args:
        shards: number of them.
        checked: those that the manifest knows, all of which match it.
        samples: questions.
        images: records.
        bytes: size of the shards.
        groups: (data set, split) -> questions.
        tokens: number of visual tokens, one entry per image.
        areas: share of the image inside its boxes, one entry per question, 0..1.
        questions_an_image: count of questions -> number of images.
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


def inspect_shards(
    shards: Sequence[Path], count_tokens: TokenCounter, also: Callable[[StoredRecord], None] | None = None
) -> Inspection:
    """Reads all records, and checks every shard that the manifest beside it knows.

    Args:
        shards: local files.
        count_tokens: visual tokens of an image's size.
        also: is given every record.

    Raises:
        ValueError: a shard that is not what its manifest says, or not in the schema; names both, or shard and key.
    """
    report = Inspection()
    manifests = {folder: read_manifest(folder) for folder in {shard.parent for shard in shards}}
    console = Console(stderr=True)
    for shard in track(shards, "reading shards", console=console, disable=not console.is_terminal):
        manifest = manifests[shard.parent]
        entry = manifest.shards.get(shard.name) if manifest is not None else None
        if entry is not None:
            check_shard(shard, entry)
        before = report.samples, report.images
        for record in inspected_records(shard):
            _add(report, record, count_tokens)
            if also is not None:
                also(record)
        if entry is not None:
            _check_counts(shard, entry, report.samples - before[0], report.images - before[1])
        report.checked += entry is not None
        report.shards += 1
        report.bytes += shard.stat().st_size
    return report


def evidence_area(row: dict[str, Any]) -> float:
    """The share of the image inside the boxes of a question, overlaps counted once; 0..1."""
    boxes, size = row["boxes_xyxy_px"], (row["width"], row["height"])
    if len(boxes) == 1:
        x1, y1, x2, y2 = boxes[0]
        return (x2 - x1) * (y2 - y1) / (size[0] * size[1])
    return float(evidence_mask(normalize_boxes(boxes, *size), AREA_GRID, AREA_GRID).float().mean())


def print_report(report: Inspection, console: Console) -> None:
    console.print(
        f"{report.shards} shards, {report.bytes / 2**20:.1f} MiB: {report.samples} questions about "
        f"{report.images} images; {report.checked} shards match {MANIFEST} (size, SHA-256, counts)"
        + (f", {report.shards - report.checked} are not in one" if report.checked < report.shards else "")
    )
    table = Table("data set", "split", "questions")
    for (dataset, split), count in sorted(report.groups.items()):
        table.add_row(dataset, split, str(count))
    console.print(table)
    shared = ", ".join(f"{count}: {images}" for count, images in sorted(report.questions_an_image.items())[:8])
    console.print(f"images by their number of questions: {shared}")
    _print_histogram(console, "visual tokens per image", report.tokens, TOKEN_EDGES, "{:.0f}")
    _print_histogram(console, "evidence, share of the image", report.areas, AREA_EDGES, "{:.0%}")


def _add(report: Inspection, record: StoredRecord, count_tokens: TokenCounter) -> None:
    try:
        for row in record.rows:
            check_fields(row, record.where, FIELDS)
            report.groups[row["dataset"], row["split"]] += 1
            report.areas.append(evidence_area(row))
        report.tokens.append(count_tokens(record.size))
    except (BadSample, TypeError, ZeroDivisionError) as error:
        raise ValueError(f"{record.where}: not in the shards' schema: {error}") from error
    report.samples += len(record.rows)
    report.images += 1
    report.questions_an_image[len(record.rows)] += 1


def _check_counts(shard: Path, entry: ShardEntry, samples: int, images: int) -> None:
    if (samples, images) != (entry.samples, entry.images):
        raise ValueError(
            f"shard {shard}: {shard.parent / MANIFEST} says {entry.samples} questions and {entry.images} images, "
            f"the file has {samples} and {images}"
        )


def _print_histogram(console: Console, title: str, values: Sequence[float], edges: Sequence[float], form: str) -> None:
    if not values:
        return
    counts, _ = np.histogram(values, np.asarray(edges))
    median, high = np.quantile(values, [0.5, 0.9])
    console.print(
        f"\n{title}: median {_number(median)}, 90 % are below {_number(high)}, mean {_number(float(np.mean(values)))}"
    )
    for low, end, count in zip(edges, edges[1:], counts):
        if count:
            span = f"{form.format(low)} .. {form.format(end)}"
            console.print(f"{span:>16} {'#' * max(1, round(BAR * count / max(counts)))} {count}", highlight=False)


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.3f}"
