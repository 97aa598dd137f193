"""The work of one process on images: read, check, and append to the shards that are its own."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gp.data.building.images import checked_image
from gp.data.building.rows import fitted_row
from gp.data.building.shard_file import ShardFile, ShardState
from gp.data.building.sources import Found, Source
from gp.data.sample import BadSample

SPARE_FILES = 64
SMALL_PX = 16 * 28 * 28  # of fewer than 16 visual tokens of Qwen2.5-VL there is little to prune


@dataclass(frozen=True)
class PackWork:
    """Facts that all processes of a build have to know.

    Args:
        source: where the images are read from.
        paths: the unfinished shards.
        states: one per shard.
        decode: see `checked_image`.
        max_pixels: see `checked_image`.
    """

    source: Source
    paths: Sequence[Path]
    states: Sequence[ShardState]
    decode: bool
    max_pixels: int | None


@dataclass(frozen=True, slots=True)
class Task:
    """One image and its questions for a shard."""

    shard: int
    found: Found
    rows: list[bytes]


@dataclass
class PackReport:
    """The outcome of some tasks.

    Args:
        tasks: number of them.
        samples: questions written.
        image_bytes: read.
        skipped: what was wrong with each image or question, and how many questions it cost.
    """

    tasks: int = 0
    samples: int = 0
    image_bytes: int = 0
    skipped: list[tuple[BadSample, int]] = field(default_factory=list)


class Packer:
    """Writes the shards `share`, `share` + `of`, ... of a build.

    Raises:
        ValueError: more shards than the system lets a process open, or one that is not as it was left.
    """

    def __init__(self, work: PackWork, share: int = 0, of: int = 1):
        self.work = work
        numbers = range(share, len(work.paths), of)
        _allow_open_files(len(numbers))
        self.shards = {number: ShardFile(work.paths[number], work.states[number]) for number in numbers}

    def pack(self, task: Task, report: PackReport) -> None:
        """One image; questions that cannot be used are noted in the report and in the shard's state."""
        shard = self.shards[task.shard]
        report.tasks += 1
        report.image_bytes += task.found.size
        try:
            data = self.work.source.read(task.found)
            image = checked_image(data, task.found.key, self.work.decode, self.work.max_pixels)
        except BadSample as error:
            self._skip(shard, report, error, len(task.rows))
            return
        fitted = []
        for row in task.rows:
            try:
                fitted.append(fitted_row(row, image.size, task.found.key))
            except BadSample as error:
                self._skip(shard, report, error, 1)
        if fitted:
            if image.size[0] * image.size[1] < SMALL_PX:
                shard.state.small += 1
            shard.add(image.data, image.suffix, fitted)
            report.samples += len(fitted)

    def states(self) -> dict[int, ShardState]:
        """State of every shard."""
        return {number: shard.left_here() for number, shard in self.shards.items()}

    def finish(self) -> dict[int, ShardState]:
        """Ends all shards and waits until they are on the disk, for all of them at the same time."""
        for shard in self.shards.values():
            shard.end()
        return {number: shard.close() for number, shard in self.shards.items()}

    def _skip(self, shard: ShardFile, report: PackReport, error: BadSample, count: int) -> None:
        shard.state.skipped[error.reason] += count
        report.skipped.append((error, count))


def _allow_open_files(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + SPARE_FILES
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise ValueError(
            f"{count} shards would be open at once in one process, the system allows {hard - SPARE_FILES}: "
            "give larger shards (shard_samples, shard_mib) or more workers"
        )
    if needed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
