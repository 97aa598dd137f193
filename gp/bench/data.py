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
import json
import multiprocessing
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator
from itertools import cycle, islice
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from gp.backbones.processor import load_processor
from gp.config.schema import DataConfig
from gp.data.batch import Batch, Collator
from gp.data.datamodule import GlimpseDataModule
from gp.data.manifest import ShardEntry, sha256_of, update_manifest
from gp.data.shards import read_records
from gp.embedded import BASE_DIR, MATERIAL_DIR

PREFETCHED = 2  # batches a worker, torch's default
SHARD_SIZE = 128  # samples
MARKS = 10  # printed lines of --memory


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--width", type=int, default=640, help="of the images, pixels (640)")
    parser.add_argument("--height", type=int, default=480, help="of the images, pixels (480)")
    parser.add_argument("--mixed", action="store_true", help="images of many sizes, from a quarter of these sides up")
    parser.add_argument("--batch", type=int, default=8, help="samples a batch (8)")
    parser.add_argument("--workers", type=int, default=1, help="processes of each loader (1); 0: in this process")
    parser.add_argument("--batches", type=int, default=6, help="timed batches of a round (6)")
    parser.add_argument("--rounds", type=int, default=15, help="of each loader (15)")
    parser.add_argument("--deliver", action="store_true", help="the bound's workers hand their pixel values over, too")
    parser.add_argument("--bucket-batches", type=int, default=1, help="data.bucket_batches (1)")
    parser.add_argument("--max-pixels", type=int, default=1280 * 28 * 28, help="of the image processor (1003520)")
    parser.add_argument("--memory", action="store_true", help="resident memory of a long stream instead")
    parser.add_argument("--samples", type=int, default=100_000, help="of --memory (100000)")
    parser.add_argument("--json", type=Path, help="write the figures here, too")


def run(options: argparse.Namespace) -> int:
    """Prints a table and one line of JSON."""
    for name in ("width", "height", "batch", "batches", "rounds", "samples"):
        if getattr(options, name) < 1:
            print(f"error: --{name} must be at least 1, got {getattr(options, name)}", file=sys.stderr)
            return 2
    with tempfile.TemporaryDirectory() as folder:
        figures = (measure_memory if options.memory else measure_speed)(Path(folder), options)
    print(json.dumps(figures))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


def measure_speed(folder: Path, options: argparse.Namespace) -> dict:
    """Samples a second and worker of both loaders in turn, and their ratio."""
    write_shards(folder, SHARD_SIZE * 2, photos(options.width, options.height, options.mixed))
    collator = Collator(load_processor(BASE_DIR), max_pixels=options.max_pixels)
    config = data_config(folder, options.batch, options.workers, options.bucket_batches)
    bound = Bound(sorted(map(str, folder.glob("*.tar"))), collator, options.batch, options.deliver)
    loaders = {
        "loader": map(_as_training_uses_it, GlimpseDataModule(config, collator).train_dataloader()),
        "bound": iter(DataLoader(bound, batch_size=None, num_workers=options.workers)),
    }
    padding = _padding(islice(loaders["loader"], options.batches * options.rounds))
    per_s: dict[str, list[float]] = {name: [] for name in loaders}
    for number in range(-1, options.rounds):  # one round of warm-up
        for name, batches in loaders.items():
            speed = _speed(batches, options) / max(options.workers, 1)
            if number >= 0:
                per_s[name].append(speed)
    ratios = [ours / theirs for ours, theirs in zip(per_s["loader"], per_s["bound"], strict=True)]
    _print_speed(per_s, ratios, padding, options)
    return {
        "width": options.width,
        "height": options.height,
        "batch": options.batch,
        "workers": options.workers,
        "deliver": options.deliver,
        "samples_per_s_and_worker": {name: statistics.median(values) for name, values in per_s.items()},
        "padding": padding,
        "ratio": statistics.median(ratios),
        "ratio_quartiles": _quartiles(ratios),
    }


def measure_memory(folder: Path, options: argparse.Namespace) -> dict:
    """Resident memory of this process and its workers while an epoch of small samples streams by."""
    console = Console()
    console.print(f"writing {options.samples:,} samples ...")
    write_shards(folder, options.samples, photos(56, 28)[:1], samples_a_shard=2000)
    collator = Collator(load_processor(BASE_DIR))
    config = data_config(folder, options.batch, options.workers, options.bucket_batches)
    done, marks, start_s = 0, [], time.perf_counter()
    table = Table("samples", "this process, MiB", "each worker, MiB", "samples / s")
    for batch in GlimpseDataModule(config, collator).train_dataloader():
        done += len(batch)
        if done * MARKS >= (len(marks) + 1) * options.samples:
            workers = [rss_mib(process.pid) for process in multiprocessing.active_children()]
            marks.append({"samples": done, "rss_mib": rss_mib(), "workers_rss_mib": workers})
            speed = done / (time.perf_counter() - start_s)
            table.add_row(
                f"{done:,}", f"{rss_mib():.0f}", ", ".join(f"{value:.0f}" for value in workers), f"{speed:.0f}"
            )
            print(f"{done:,} samples, {speed:.0f} a second", file=sys.stderr)
        if done >= options.samples:
            break
    console.print(table)
    return {"samples": options.samples, "batch": options.batch, "workers": options.workers, "marks": marks}


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
        with tarfile.open(path, "w") as tar:
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
                for suffix, content in (("jpg", images[number % len(images)]), ("json", json.dumps(fields).encode())):
                    info = tarfile.TarInfo(f"{number:07d}.{suffix}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
        entries[path.name] = ShardEntry("bench", len(numbers), len(numbers), path.stat().st_size, sha256_of(path))
    update_manifest(folder, "bench", entries, {"samples": samples, "images": samples, "complete": True})


def rss_mib(pid: int | str = "self") -> float:
    """Resident memory of a process, MiB (Linux)."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) / 2**10


def _as_training_uses_it(batch: Batch) -> Batch:
    """What the training process does with a batch before the model sees it, on its device (here: the CPU)."""
    moved = batch.to("cpu")
    _ = moved.inputs  # made when first asked for
    return moved


def _speed(batches: Iterator, options: argparse.Namespace) -> float:
    """Samples a second, once what was read ahead is gone."""
    for _ in range((PREFETCHED + 1) * options.workers):
        next(batches)
    start_s, count = time.perf_counter(), 0
    for _ in range(options.batches):
        count += len(next(batches))
    return count / (time.perf_counter() - start_s)


def _padding(batches: Iterable[Batch]) -> float:
    """Share of padding in the prompts, 0..1."""
    masks = [batch.inputs["attention_mask"] for batch in batches]
    return 1 - sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks)


def _print_speed(
    per_s: dict[str, list[float]], ratios: list[float], padding: float, options: argparse.Namespace
) -> None:
    title = f"{options.width} x {options.height} px, batches of {options.batch}, {options.workers} workers each"
    table = Table("", "samples / s and worker", "quartiles", title=title)
    for name, label in (("loader", "training loader"), ("bound", "JPEG decoding + image processor")):
        low, high = _quartiles(per_s[name])
        table.add_row(label, f"{statistics.median(per_s[name]):.1f}", f"{low:.1f} .. {high:.1f}")
    low, high = _quartiles(ratios)
    table.add_row("loader / bound", f"{statistics.median(ratios):.2f} x", f"{low:.2f} .. {high:.2f} x")
    table.add_row("padding in the loader's prompts", f"{100 * padding:.1f} %", "")
    Console(width=110).print(table)


def _quartiles(values: list[float]) -> list[float]:
    if len(values) < 2:
        return [values[0], values[0]]
    low, _, high = statistics.quantiles(values, n=4)
    return [low, high]
