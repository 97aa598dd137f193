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
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gp.bench.options import add_repeats, check_at_least, check_choice, read_numbers
from gp.bench.report import BenchReport, TextTable, machine
from gp.bench.rounds import in_turn
from gp.data.building import BuildConfig
from gp.data.building.build import build
from gp.data.building.options import CHECKS
from gp.measure.peak_memory import MIB, family, forget_peak, resident_peak_mib
from gp.measure.spread import Spread, ratio
from gp.measure.stopwatch import timed_s

DIFFERENT = 64  # drawn images; the archive repeats them under other names
MARKS = (0.0, 0.1, 0.5, 1.0)
WAYS = ("tar", "copy", "build")
PIECE = "synthetic.tar.{:02d}"
OUT, COPY = "out", "copy"  # in the temporary folder: what a pass writes

Case = tuple[float, str]  # share of wanted images, check
Action = Callable[[list[Path]], Any]  # passes over the pieces


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--mib", type=int, default=1024, help="size of the archive (1024)")
    parser.add_argument("--pieces", type=int, default=13, help="it is cut into (13)")
    parser.add_argument("--width", type=int, default=640, help="of an image, pixels; 3/4 of it high (640)")
    parser.add_argument("--keep", default="0.02,1", help="shares of wanted images, with commas (0.02,1)")
    parser.add_argument("--check", default="decode,header", help="checks of images, with commas (decode,header)")
    add_repeats(parser, 5)
    parser.add_argument("--workers", type=int, help="processes of the build (one a CPU)")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made (the system's place for it)")
    parser.add_argument("--warm", action="store_true", help="leave the archive in the system's cache")
    parser.add_argument("--memory", type=int, metavar="N", help="peak memory of a build of N samples instead")


def run(options: argparse.Namespace) -> BenchReport:
    """Measures everything."""
    check_at_least(1, options, ("mib", "pieces", "width", "repeats"))
    cases = read_cases(options)
    with tempfile.TemporaryDirectory(prefix="gp-bench-", dir=options.folder) as folder:
        figures, table = memory(options, Path(folder)) if options.memory else speed(options, cases, Path(folder))
    return BenchReport(machine(), figures, [table])


def read_cases(options: argparse.Namespace) -> list[Case]:
    """Every share with every check; OptionError for what cannot be."""
    shares, checks = read_numbers("--keep", options.keep, float, most=1), options.check.split(",")
    for check in checks:
        check_choice("--check", check, CHECKS)
    return [(keep, check) for keep in shares for check in checks]


def speed(options: argparse.Namespace, cases: list[Case], folder: Path) -> tuple[dict[str, Any], TextTable]:
    """Speeds of all ways, interleaved, for every share and check."""
    images = drawn_images(options.width)
    count = max(1, int(options.mib * MIB / statistics.mean(len(data) + 1024 for data in images)))
    pieces = write_archive(folder / "pieces", images, count, options.pieces)
    mib = sum(piece.stat().st_size for piece in pieces) / MIB
    rows = {keep: write_annotations(folder / f"{keep:g}.jsonl", count, keep, options.width) for keep in dict(cases)}
    passes = {}
    for keep, check in cases:
        config = build_config(folder, rows[keep], check, options.workers)
        for way, action in _actions(config, folder / COPY, keep).items():
            passes[keep, check, way] = partial(pass_s, action, pieces, options.warm, folder)
    seconds = in_turn(passes, options.repeats, "passes", warm_up=0)
    results = [_result(case, mib, seconds) for case in cases]
    figures = {"mib": mib, "images": count, "warm": options.warm, "results": results}
    return figures, speed_table(results, mib, count, options)


def memory(options: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], TextTable]:
    """Peak resident memory of the processes of one build, MiB, when it was so far."""
    pieces = write_archive(folder / "pieces", drawn_images(64), options.memory, options.pieces)
    annotations = write_annotations(folder / "all.jsonl", options.memory, 1.0, 64)
    config = build_config(folder, annotations, "decode", options.workers)
    peaks: dict[str, list[float]] = {}

    def watch(fraction: float, samples: int, image_bytes: int) -> None:
        if not peaks:
            for pid in family():
                forget_peak(pid)
        for mark in MARKS:
            if fraction >= mark and f"{mark:.0%}" not in peaks:
                peaks[f"{mark:.0%}"] = [resident_peak_mib(pid) for pid in family()]

    build(config, watch)
    table = TextTable(
        f"Peak resident memory, {options.memory} samples", ("of the pass", "main process, MiB", "workers, MiB")
    )
    for mark, (main, *workers) in peaks.items():
        table.add(mark, f"{main:.0f}", ", ".join(f"{worker:.0f}" for worker in workers))
    mib = sum(piece.stat().st_size for piece in pieces) / MIB
    return {"samples": options.memory, "mib": mib, "peak_mib": peaks}, table


def drawn_images(width: int) -> list[bytes]:
    """JPEGs of smooth colours with noise: about as many bytes per pixel as photographs."""
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
            tar.members.clear()  # type: ignore[attr-defined]  # or it remembers every file
    size = -(-whole.stat().st_size // num_pieces)
    pieces: list[Path] = []
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
        out=str(folder / OUT),
        check=check,
        workers=workers,
    )


def pass_s(action: Action, pieces: list[Path], warm: bool, folder: Path) -> float:
    """Seconds of one pass; what earlier writing left to do is done before, and what the pass wrote is removed."""
    os.sync()
    for piece in () if warm else pieces:
        drop_from_cache(piece)
    seconds = timed_s(partial(action, pieces), "cpu")
    shutil.rmtree(folder / OUT, ignore_errors=True)
    (folder / COPY).unlink(missing_ok=True)
    return seconds


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


def speed_table(results: list[dict[str, Any]], mib: float, count: int, options: argparse.Namespace) -> TextTable:
    title = f"{mib:.0f} MiB in {options.pieces} pieces, {count} images, {'warm' if options.warm else 'cold'} cache"
    columns = ("wanted", "check", *(f"{way}, MiB/s" for way in WAYS), "build / tar", "build / copy")
    table = TextTable(title, columns)
    for result in results:
        speeds = [f"{result[f'{way}_mib_s']:.0f}" if f"{way}_mib_s" in result else "" for way in WAYS]
        ratios = [_shown(result[way]) if way in result else "" for way in ("build_to_tar", "build_to_copy")]
        table.add(f"{result['keep']:.0%}", result["check"], *speeds, *ratios)
    return table


def _actions(config: BuildConfig, copy: Path, keep: float) -> dict[str, Action]:
    """Actions to time, in this order; copying everything is no bound for taking a part."""
    actions = {
        "tar": read_with_tar,
        "copy": lambda pieces: copy_with_tar(pieces, copy),
        "build": lambda _: build(config),
    }
    return {way: action for way, action in actions.items() if way != "copy" or keep == 1}


def _result(case: Case, mib: float, seconds: Mapping[tuple[float, str, str], list[float]]) -> dict[str, Any]:
    keep, check = case
    result: dict[str, Any] = {"keep": keep, "check": check}
    for way in (way for *of, way in seconds if tuple(of) == case):
        values = seconds[keep, check, way]
        result[f"{way}_mib_s"] = mib / Spread.from_values(values).median
        if way != "build":
            result[f"build_to_{way}"] = ratio(values, seconds[keep, check, "build"])
    return result


def _shown(speed_up: Spread) -> str:
    return f"{speed_up.median:.2f} ({speed_up.low:.2f} .. {speed_up.high:.2f})"


def _spread(count: int, keep: float) -> Iterator[int]:
    """A share of the numbers below `count`, evenly."""
    return (number for number in range(count) if int((number + 1) * keep) > int(number * keep))
