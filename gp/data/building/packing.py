"""The pass over the images: every wanted one goes to the crew, and the journal follows."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from gp.data.building.crew import Crew
from gp.data.building.journal import Journal, SavePoint
from gp.data.building.options import BuildConfig
from gp.data.building.packer import PackWork, Task
from gp.data.building.sampling import Plan
from gp.data.building.shard_file import ShardState
from gp.data.building.sources import Source
from gp.data.sample import BadSample
from gp.data.skipping import SkipCounter
from gp.progress import Progress

TICK_S = 0.1

Watcher = Callable[[float, int, int], None]  # share done, questions written, bytes of images read


@dataclass
class Packing:
    """One pass, or the rest of one.

    Args:
        config: the build's.
        source: where the images are read from.
        plan: images to take, and the shard of each.
        journal: the build's.
        crew: not started.
        skips: counts questions, good and bad.
        checkpoint_every_s: seconds of work that a kill may cost.
        watch: is told how far the pass is.
    """

    config: BuildConfig
    source: Source
    plan: Plan
    journal: Journal
    crew: Crew
    skips: SkipCounter
    checkpoint_every_s: float
    watch: Watcher | None = None

    def run(self) -> list[ShardState]:
        """Packs what is not packed yet; returns the ended shards, in the plan's order.

        Raises:
            ValueError: a damaged archive, an unfinished build that was changed, or too many unusable questions.
        """
        self.progress = self._begin()
        if self.progress.packed:
            return self.progress.shards
        self.samples = self.image_bytes = 0
        self.crew.start(self._work())
        self._walk()
        ended = self.crew.finish()
        self._count()
        shards = [ended[number] for number in range(len(ended))]
        self._count_missing(shards)
        self.journal.save(SavePoint(self.progress.position, self.progress.seen, shards, packed=True))
        return shards

    def _begin(self) -> SavePoint:
        """Returns the place that an earlier attempt got to, or the beginning."""
        self.journal.folder.mkdir(exist_ok=True)
        progress = self.journal.load()
        if progress is None:
            fresh = [ShardState() for _ in self.plan.shard_sets]
            progress = SavePoint(0, bytearray(len(self.plan.images)), fresh)
            self.journal.save(progress)
        self.journal.clean({path.name for path in self._paths()})
        for shard in progress.shards:
            self.skips.good(shard.samples)
            self.skips.add_earlier(shard.skipped)
        return progress

    def _work(self) -> PackWork:
        decode = self.config.check == "decode"
        return PackWork(self.source, self._paths(), self.progress.shards, decode, self.config.max_pixels)

    def _paths(self) -> list[Path]:
        return [self.journal.shard_path(number) for number in range(len(self.plan.shard_sets))]

    def _walk(self) -> None:
        images, progress = self.plan.images, self.progress
        missing = len(images) - sum(progress.seen)
        saved_s = tick_s = time.monotonic()
        pending: SavePoint | None = None
        label, console = f"{self.config.name} -> {self.config.out}", Console(stderr=True)
        self.started_s = time.monotonic()
        with Progress(label, total=1.0, is_share=True, console=console) as display:
            for found in self.source.walk(images, progress.position) if missing else ():
                progress.position = found.position
                now_s = time.monotonic()
                if now_s - tick_s >= min(TICK_S, self.checkpoint_every_s):
                    tick_s = now_s
                    self._tell(display, self.source.fraction(found.position))
                    pending, saved = self._saved(pending)
                    saved_s = now_s if saved else saved_s
                    if pending is None and now_s - saved_s >= self.checkpoint_every_s:
                        pending = SavePoint(found.position, bytearray(progress.seen), [])
                        self.crew.ask_states()
                wanted = images[found.key]
                if progress.seen[wanted.number]:
                    continue
                progress.seen[wanted.number] = 1
                self.crew.submit(Task(wanted.shard, found, wanted.rows))
                missing -= 1
                if not missing:
                    break
            while pending is not None:
                time.sleep(0.001)
                self._count()
                pending, _ = self._saved(pending)
            self._tell(display, 1.0)

    def _tell(self, display: Progress, fraction: float) -> None:
        self._count()
        passed_s = max(time.monotonic() - self.started_s, 1e-9)
        rate = f"{self.image_bytes / 2**20 / passed_s:.0f} MiB/s {self.samples / passed_s:.0f} questions/s"
        display.update(rate, completed=fraction)
        if self.watch is not None:
            self.watch(fraction, self.samples, self.image_bytes)

    def _count(self) -> None:
        """Takes the crew's reports."""
        for report in self.crew.reports():
            self.samples += report.samples
            self.image_bytes += report.image_bytes
            self.skips.good(report.samples)
            for error, count in report.skipped:
                self.skips.bad(error, count)

    def _saved(self, pending: SavePoint | None) -> tuple[SavePoint | None, bool]:
        """Writes the journal if the crew has answered; returns what is still pending, and True if it was written."""
        if pending is None or (states := self.crew.states()) is None:
            return pending, False
        pending.shards = [states[number] for number in range(len(states))]
        self.journal.save(pending)
        return None, True

    def _count_missing(self, shards: list[ShardState]) -> None:
        """Questions whose image never came."""
        for key, wanted in self.plan.images.items():
            if not self.progress.seen[wanted.number]:
                shards[wanted.shard].skipped["image not found"] += len(wanted.rows)
                lost = BadSample("image not found", key, f"in {', '.join(self.config.images)}")
                self.skips.bad(lost, len(wanted.rows))
        self.skips.finish(self.plan.num_questions)
