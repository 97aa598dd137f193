"""The training loader against what JPEG decoding and the image processor alone take on the same images.

Throughput: a loader with workers reads shards and makes batches, as training does; a second loader with as many workers
only decodes the same images and runs the image processor on them. The two are timed in turn (A B A B ...) in one run;
median, quartiles, and the median of the pairwise ratios (loader / bound; above 1 where leaving the normalising to the
training process saves more than everything else costs).
The loader's time includes the training process's own share, normalising the pixel values; here that runs on the CPU,
too. A worker hands its batches to the training process through shared memory, which is work as well; with --deliver the
bound's workers do so with the image processor's pixel values.

--memory: streams many small samples through the training loader and prints the resident memory of this process and of
its workers along the way. Both write their shards into a temporary folder.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import sys
import tempfile
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from PIL import Image
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from webdataset import TarWriter

from gp.backbones.processor import load_processor
from gp.bench.options import add_repeats, check_at_least
from gp.bench.report import BenchReport, TextTable, machine
from gp.bench.rounds import in_turn
from gp.config.schema import DataConfig
from gp.data.batch import Batch, Collator
from gp.data.datamodule import GlimpseDataModule
from gp.data.manifest import ShardEntry, sha256_of, update_manifest
from gp.data.shards import read_records
from gp.embedded import BASE_DIR, MATERIAL_DIR
from gp.measure.peak_memory import resident_mib
from gp.measure.spread import Spread, ratio
from gp.measure.stopwatch import Stopwatch

PREFETCHED = 2  # batches per worker, torch's default
SHARD_SIZE = 128  # samples
MARKS = 10  # printed lines of --memory


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--width", type=int, default=640, help="of the images, pixels (640)")
    parser.add_argument("--height", type=int, default=480, help="of the images, pixels (480)")
    parser.add_argument("--mixed", action="store_true", help="images of many sizes, from a quarter of these sides up")
    parser.add_argument("--batch", type=int, default=8, help="samples per batch (8)")
    parser.add_argument("--workers", type=int, default=1, help="processes of each loader (1); 0: in this process")
    parser.add_argument("--batches", type=int, default=6, help="timed batches of a round (6)")
    add_repeats(parser, 15)
    parser.add_argument("--deliver", action="store_true", help="the bound's workers hand their pixel values over, too")
    parser.add_argument("--bucket-batches", type=int, default=1, help="data.bucket_batches (1)")
    parser.add_argument("--max-pixels", type=int, default=1280 * 28 * 28, help="of the image processor (1003520)")
    parser.add_argument("--memory", action="store_true", help="resident memory of a long stream instead")
    parser.add_argument("--samples", type=int, default=100_000, help="of --memory (100000)")


def run(options: argparse.Namespace) -> BenchReport:
    """Measures everything."""
    check_at_least(1, options, ("width", "height", "batch", "batches", "repeats", "samples"))
    check_at_least(0, options, ("workers",))
    with tempfile.TemporaryDirectory() as folder:
        figures, table = (measure_memory if options.memory else measure_speed)(Path(folder), options)
    shared = {name: getattr(options, name) for name in ("width", "height", "batch", "workers", "deliver")}
    return BenchReport(machine(), {**shared, **figures}, [table])


def measure_speed(folder: Path, options: argparse.Namespace) -> tuple[dict[str, Any], TextTable]:
    """Samples per second and worker of both loaders in turn, and their ratio."""
    write_shards(folder, SHARD_SIZE * 2, photos(options.width, options.height, options.mixed))
    collator = Collator(load_processor(BASE_DIR), max_pixels=options.max_pixels)
    config = data_config(folder, options.batch, options.workers, options.bucket_batches)
    bound = Bound(sorted(map(str, folder.glob("*.tar"))), collator, options.batch, options.deliver)
    loaders: dict[str, Iterator[Any]] = {
        "loader": map(_as_training_uses_it, GlimpseDataModule(config, collator).train_dataloader()),
        "bound": iter(DataLoader(bound, batch_size=None, num_workers=options.workers)),
    }
    padding = _padding(islice(loaders["loader"], options.batches * options.repeats))
    ways = {name: partial(_speed, batches, options) for name, batches in loaders.items()}
    per_s = in_turn(ways, options.repeats, "loaders")
    speeds = {name: Spread.from_values(values) for name, values in per_s.items()}
    against_bound = ratio(per_s["loader"], per_s["bound"])
    figures = {"samples_per_s_and_worker": speeds, "padding": padding, "ratio": against_bound}
    return figures, _speed_table(speeds, against_bound, padding, options)


def measure_memory(folder: Path, options: argparse.Namespace) -> tuple[dict[str, Any], TextTable]:
    """Resident memory of this process and its workers while an epoch of small samples streams by."""
    print(f"writing {options.samples:,} samples ...", file=sys.stderr)
    write_shards(folder, options.samples, photos(56, 28)[:1], samples_a_shard=2000)
    collator = Collator(load_processor(BASE_DIR))
    config = data_config(folder, options.batch, options.workers, options.bucket_batches)
    done, seconds, watch = 0, 0.0, Stopwatch("cpu")
    marks: list[dict[str, Any]] = []
    table = TextTable("Resident memory", ("samples", "this process, MiB", "each worker, MiB", "samples / s"))
    for batch in GlimpseDataModule(config, collator).train_dataloader():
        done += len(batch)
        if done * MARKS >= (len(marks) + 1) * options.samples:
            workers = [resident_mib(str(process.pid)) for process in multiprocessing.active_children()]
            marks.append({"samples": done, "rss_mib": resident_mib(), "workers_rss_mib": workers})
            seconds += watch.lap()
            cells = (f"{marks[-1]['rss_mib']:.0f}", ", ".join(f"{value:.0f}" for value in workers))
            table.add(f"{done:,}", *cells, f"{done / seconds:.0f}")
            print(f"{done:,} samples, {done / seconds:.0f} per second", file=sys.stderr)
        if done >= options.samples:
            break
    return {"samples": options.samples, "marks": marks}, table


class Bound(IterableDataset):
    """Decodes the images of shards over and over and runs the stock image processor on them, nothing else."""

    def __init__(self, shards: list[str], collator: Collator, batch_size: int, deliver: bool = False):
        records = [record for shard in shards for record in read_records(shard, "s")]
        self.images = [record.files["jpg"] for record in records]
        self.collator = collator
        self.batch_size = batch_size
        self.deliver = deliver

    def __iter__(self) -> Iterator[list]:
        worker = get_worker_info()
        images = cycle(self.images[worker.id if worker else 0 :] + self.images[: worker.id if worker else 0])
        options = self.collator.pixel_limits
        while True:
            decoded = [Image.open(io.BytesIO(content)).convert("RGB") for content in islice(images, self.batch_size)]
            made = self.collator.processor.image_processor(images=decoded, return_tensors="pt", **options)
            yield [made["pixel_values"] if self.deliver else None, *[None] * (self.batch_size - 1)]


def data_config(folder: Path, batch: int, workers: int, bucket_batches: int) -> DataConfig:
    """Trains on all shards of a folder."""
    return DataConfig(
        root=str(folder),
        train=["*.tar"],
        val=["*.tar"],
        test={},
        batch_size=batch,
        num_workers=workers,
        bucket_batches=bucket_batches,
    )


def photos(width: int, height: int, mixed: bool = False) -> list[bytes]:
    """The embedded photographs as JPEGs of one size, or of one each, from a quarter of both sides to the whole."""
    contents, paths = [], sorted((MATERIAL_DIR / "photos").glob("*.jpg"))
    for number, path in enumerate(paths, start=1):
        scale = 1 / 4 + 3 / 4 * number / len(paths) if mixed else 1
        with Image.open(path) as image:
            buffer = io.BytesIO()
            image.convert("RGB").resize((int(width * scale), int(height * scale))).save(buffer, "JPEG", quality=90)
        contents.append(buffer.getvalue())
    return contents


def write_shards(folder: Path, samples: int, images: list[bytes], samples_a_shard: int = SHARD_SIZE) -> None:
    """Shards with a manifest; the images in turn, each with a question and a box."""
    sizes = [Image.open(io.BytesIO(image)).size for image in images]
    entries = {}
    for shard, begin in enumerate(range(0, samples, samples_a_shard)):
        numbers = range(begin, min(begin + samples_a_shard, samples))
        path = folder / f"bench-{shard:06d}.tar"
        with TarWriter(str(path)) as tar:
            for number in numbers:
                width, height = sizes[number % len(images)]
                fields = {
                    "question": "what number is on the green card ?",
                    "answer": f"{number % 10} {number // 10 % 10}",
                    "boxes_xyxy_px": [[0, 0, width // 2, height // 2]],
                    "width": width,
                    "height": height,
                    "dataset": "bench",
                    "split": "train",
                    "source_id": str(number),
                }
                tar.write({"__key__": f"{number:07d}", "jpg": images[number % len(images)], "json": fields})
        entries[path.name] = ShardEntry("bench", len(numbers), len(numbers), path.stat().st_size, sha256_of(path))
    update_manifest(folder, "bench", entries, {"samples": samples, "images": samples, "complete": True})


def _as_training_uses_it(batch: Batch) -> Batch:
    """Does what the training process does with a batch before the model sees it, on its device (here: the CPU)."""
    moved = batch.to("cpu")
    _ = moved.inputs  # made when first asked for
    return moved


def _speed(batches: Iterator[Any], options: argparse.Namespace) -> float:
    """Samples per second and worker, once what was read ahead is gone."""
    for _ in range((PREFETCHED + 1) * options.workers):
        next(batches)
    watch, count = Stopwatch("cpu"), 0
    for _ in range(options.batches):
        count += len(next(batches))
    return count / watch.lap() / max(options.workers, 1)


def _padding(batches: Iterable[Batch]) -> float:
    """Share of padding in the prompts, 0..1."""
    masks = [batch.inputs["attention_mask"] for batch in batches]
    return 1 - sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks)


def _speed_table(
    speeds: dict[str, Spread], against_bound: Spread, padding: float, options: argparse.Namespace
) -> TextTable:
    title = f"{options.width} x {options.height} px, batches of {options.batch}, {options.workers} workers each"
    table = TextTable(title, ("", "samples / s and worker", "quartiles"))
    for name, label in (("loader", "training loader"), ("bound", "JPEG decoding + image processor")):
        table.add(label, f"{speeds[name].median:.1f}", f"{speeds[name].low:.1f} .. {speeds[name].high:.1f}")
    quartiles = f"{against_bound.low:.2f} .. {against_bound.high:.2f} x"
    table.add("loader / bound", f"{against_bound.median:.2f} x", quartiles)
    table.add("padding in the loader's prompts", f"{100 * padding:.1f} %", "")
    return table
