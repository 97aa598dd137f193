"""Building shards from a split tar, against reading that tar and, where all of it is wanted, against copying it.

Makes a synthetic split tar in a temporary folder and passes over it in turn (tar, copy, build, tar ...) in one run:

- tar: `cat PIECES | tar -xOf - > /dev/null`, the bound of a build that takes a small part;
- copy: `cat PIECES | tar -xOf - > FILE; sync FILE`, on the disk of the shards: reading and writing every byte once, the
  bound of a build that takes everything;
- build: `gp.data.building`, which also checks and hashes what is wanted, and waits for the disk in the end.

Before each pass the pieces are dropped from the system's cache (Linux), as a real archive of 128 GB would not be in
it; --warm leaves them there. Reported: MiB/s of archive passed over, medians, and medians and quartiles of the
pairwise ratios build / tar and build / copy. Several shares of wanted images can be given: drawing 22,000 questions of
GQA, whose images are small, takes about 0.02 of the bytes.

--memory N instead builds N samples about N small images, and prints the peak resident memory, since the pass over the
archive began, of the main process and of its workers at 10, 50 and 100 % of the pass (Linux).
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from gp.data.building import BuildConfig, build

DIFFERENT = 64  # drawn images; the archive repeats them under other names
MARKS = (0.1, 0.5, 1.0)
WAYS = ("tar", "copy", "build")
PIECE = "synthetic.tar.{:02d}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--mib", type=int, default=1024, help="size of the archive (1024)")
    parser.add_argument("--pieces", type=int, default=13, help="it is cut into (13)")
    parser.add_argument("--width", type=int, default=640, help="of an image, pixels; 3/4 of it high (640)")
    parser.add_argument("--keep", default="0.02,1", help="shares of wanted images, with commas (0.02,1)")
    parser.add_argument("--check", default="decode,header", help="checks of images, with commas (decode,header)")
    parser.add_argument("--rounds", type=int, default=5, help="measured passes of each way (5)")
    parser.add_argument("--workers", type=int, help="processes of the build (one a CPU)")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made (the system's place for it)")
    parser.add_argument("--warm", action="store_true", help="leave the archive in the system's cache")
    parser.add_argument("--memory", type=int, metavar="N", help="peak memory of a build of N samples instead")
    parser.add_argument("--json", type=Path, help="write the figures here, too")


def run(options: argparse.Namespace) -> int:
    """Prints a table and one line of JSON."""
    with tempfile.TemporaryDirectory(prefix="gp-bench-", dir=options.folder) as folder:
        figures = memory(options, Path(folder)) if options.memory else speed(options, Path(folder))
    print(json.dumps(figures))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


def speed(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Speeds of all ways, interleaved, for every share and check."""
    images = drawn_images(options.width)
    count = max(1, int(options.mib * 2**20 / statistics.mean(len(data) + 1024 for data in images)))
    pieces = write_archive(folder / "pieces", images, count, options.pieces)
    mib = sum(piece.stat().st_size for piece in pieces) / 2**20
    cases = [(float(keep), check) for keep in options.keep.split(",") for check in options.check.split(",")]
    shares = {keep for keep, _ in cases}
    rows = {keep: write_annotations(folder / f"{keep:g}.jsonl", count, keep, options.width) for keep in shares}
    seconds: dict[Any, dict[str, list[float]]] = {case: {way: [] for way in WAYS} for case in cases}
    for _ in range(options.rounds):
        for keep, check in cases:
            config = build_config(folder, rows[keep], check, options.workers)
            for way, action in _actions(config, folder / "copy", keep).items():
                seconds[keep, check][way].append(timed(action, pieces, options.warm))
            shutil.rmtree(config.out)
            (folder / "copy").unlink(missing_ok=True)
    results = [_result(case, mib, seconds[case]) for case in cases]
    print_speeds(results, mib, count, options)
    return {"mib": mib, "images": count, "cpus": os.cpu_count(), "warm": options.warm, "results": results}


def memory(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Peak resident memory of the processes of one build, MiB, when it was so far."""
    images = drawn_images(64)
    pieces = write_archive(folder / "pieces", images, options.memory, options.pieces)
    config = build_config(
        folder, write_annotations(folder / "all.jsonl", options.memory, 1.0, 64), "decode", options.workers
    )
    peaks: dict[str, list[float]] = {}

    def watch(fraction: float, samples: int, image_bytes: int) -> None:
        if not peaks:
            forget_peaks()
            peaks["0%"] = peak_mib_of_processes()
        for mark in MARKS:
            if fraction >= mark:
                peaks.setdefault(f"{mark:.0%}", peak_mib_of_processes())

    build(config, watch)
    table = Table(
        "of the pass", "main process, MiB", "workers, MiB", title=f"peak resident memory, {options.memory} samples"
    )
    for mark, (main, *workers) in peaks.items():
        table.add_row(mark, f"{main:.0f}", ", ".join(f"{worker:.0f}" for worker in workers))
    Console(width=100).print(table)
    return {"samples": options.memory, "mib": sum(p.stat().st_size for p in pieces) / 2**20, "peak_mib": peaks}


def drawn_images(width: int) -> list[bytes]:
    """JPEGs of smooth colours with noise: about as many bytes a pixel as photographs."""
    rng = np.random.default_rng(0)
    height = width * 3 // 4
    images = []
    for _ in range(DIFFERENT):
        coarse = rng.integers(0, 256, (max(2, height // 16), max(2, width // 16), 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
        noisy = (smooth + rng.integers(-12, 13, smooth.shape, dtype=np.int16)).clip(0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noisy).save(buffer, "JPEG", quality=85)
        images.append(buffer.getvalue())
    return images


def write_archive(folder: Path, images: list[bytes], count: int, num_pieces: int) -> list[Path]:
    """A tar of `count` images, cut into pieces of one size as `split` does."""
    folder.mkdir()
    whole = folder / "whole.tar"
    with tarfile.open(whole, "w", format=tarfile.GNU_FORMAT) as tar:
        for number in range(count):
            info = tarfile.TarInfo(f"cot/synthetic/{number:08d}.jpg")
            info.size = len(images[number % len(images)])
            tar.addfile(info, io.BytesIO(images[number % len(images)]))
            tar.members.clear()
    size = -(-whole.stat().st_size // num_pieces)
    pieces = []
    with whole.open("rb") as file:
        while block := file.read(size):
            pieces.append(folder / PIECE.format(len(pieces)))
            pieces[-1].write_bytes(block)
    whole.unlink()
    os.sync()  # what is not on the disk yet cannot be dropped from the cache
    return pieces


def write_annotations(path: Path, count: int, keep: float, width: int) -> Path:
    """One question about each wanted image."""
    with path.open("w", encoding="utf-8") as file:
        for number in _spread(count, keep):
            row = {"question": "what is here ?", "answer": "noise", "image": f"{number:08d}.jpg"}
            frame = {"width": width, "height": width * 3 // 4, "bboxs": [[1, 1, width // 2, width // 4]]}
            file.write(json.dumps({**row, **frame, "dataset": "synthetic", "split": "train"}) + "\n")
    return path


def build_config(folder: Path, annotations: Path, check: str, workers: int | None) -> BuildConfig:
    return BuildConfig(
        name="synthetic",
        annotations=[str(annotations)],
        images=[str(folder / "pieces")],
        out=str(folder / "out"),
        check=check,
        workers=workers,
    )


def timed(action: Any, pieces: list[Path], warm: bool) -> float:
    """Seconds; what earlier writing left to do is done before."""
    os.sync()
    for piece in () if warm else pieces:
        drop_from_cache(piece)
    start_s = time.perf_counter()
    action(pieces)
    return time.perf_counter() - start_s


def read_with_tar(pieces: list[Path]) -> None:
    """`cat PIECES | tar -xOf - > /dev/null`."""
    with subprocess.Popen(["cat", *map(str, pieces)], stdout=subprocess.PIPE) as cat:
        subprocess.run(["tar", "-xOf", "-"], stdin=cat.stdout, stdout=subprocess.DEVNULL, check=True)


def copy_with_tar(pieces: list[Path], target: Path) -> None:
    """`cat PIECES | tar -xOf - > FILE; sync FILE`."""
    with target.open("wb") as file, subprocess.Popen(["cat", *map(str, pieces)], stdout=subprocess.PIPE) as cat:
        subprocess.run(["tar", "-xOf", "-"], stdin=cat.stdout, stdout=file, check=True)
        os.fsync(file.fileno())


def drop_from_cache(path: Path) -> None:
    if hasattr(os, "posix_fadvise"):
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def forget_peaks() -> None:
    """Makes the present use of this process and its children the peak so far."""
    for pid in _processes():
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_mib_of_processes() -> list[float]:
    """High-water marks of the resident sets of this process and its children, MiB."""
    return [_peak_mib(pid) for pid in _processes()]


def print_speeds(results: list[dict[str, Any]], mib: float, count: int, options: argparse.Namespace) -> None:
    title = f"{mib:.0f} MiB in {options.pieces} pieces, {count} images, {'warm' if options.warm else 'cold'} cache"
    columns = ("wanted", "check", *(f"{way}, MiB/s" for way in WAYS), "build / tar", "build / copy")
    table = Table(*columns, title=title)
    for result in results:
        speeds = [f"{result[f'{way}_mib_s']:.0f}" if f"{way}_mib_s" in result else "" for way in WAYS]
        ratios = [_shown(result[way]) if way in result else "" for way in ("build_to_tar", "build_to_copy")]
        table.add_row(f"{result['keep']:.0%}", result["check"], *speeds, *ratios)
    Console(width=120, file=sys.stdout).print(table)


def _actions(config: BuildConfig, copy: Path, keep: float) -> dict[str, Any]:
    """What is timed, in this order; copying everything is no bound for taking a part."""
    actions = {
        "tar": read_with_tar,
        "copy": lambda pieces: copy_with_tar(pieces, copy),
        "build": lambda _: build(config),
    }
    return {way: action for way, action in actions.items() if way != "copy" or keep == 1}


def _result(case: tuple[float, str], mib: float, seconds: dict[str, list[float]]) -> dict[str, Any]:
    result: dict[str, Any] = {"keep": case[0], "check": case[1]}
    for way in WAYS:
        if seconds[way]:
            result[f"{way}_mib_s"] = mib / statistics.median(seconds[way])
    for way in ("tar", "copy"):
        if seconds[way]:
            result[f"build_to_{way}"] = _ratio(seconds[way], seconds["build"])
    return result


def _ratio(bound_s: list[float], build_s: list[float]) -> dict[str, float]:
    """Of the speeds, pass by pass."""
    ratios = [bound / build for bound, build in zip(bound_s, build_s)]
    low, high = statistics.quantiles(ratios, n=4)[::2] if len(ratios) > 1 else ratios * 2
    return {"median": statistics.median(ratios), "low": low, "high": high}


def _shown(ratio: dict[str, float]) -> str:
    return f"{ratio['median']:.2f} ({ratio['low']:.2f} .. {ratio['high']:.2f})"


def _spread(count: int, keep: float) -> Iterator[int]:
    """A share of the numbers below `count`, evenly."""
    return (number for number in range(count) if int((number + 1) * keep) > int(number * keep))


def _processes() -> list[str]:
    return ["self", *Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def _peak_mib(pid: str) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 2**10
