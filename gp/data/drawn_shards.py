"""Shards whose samples are drawn, built once, whole or not at all, and checked ever after.

A sample is `{key}.jpg` and `{key}.json` with `question`, `answer`, `boxes_xyxy_px` (lists of ints, last pixel
inclusive), `width`, `height`, `dataset`, `split`, `source_id`.
"""

import io
import json
import multiprocessing
import shutil
import signal
import tarfile
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.progress import Progress

from gp.boxes import evidence_mask, normalize_boxes
from gp.data.manifest import (
    Manifest,
    ShardEntry,
    check_shard,
    check_size,
    manifest_place,
    read_manifest,
    sha256_of,
    write_manifest,
)
from gp.measure.machine import usable_cores
from gp.runs.passing_lock import passing_lock
from gp.runs.writing import naming

Drawer = Callable[[int], tuple[bytes, dict[str, Any]]]
"""Number of a sample in its set, from 0, to its JPEG bytes and its JSON record."""


@dataclass(frozen=True)
class DrawnSet:
    """One set of shards.

    Args:
        start: makes a drawer, one for each shard; it travels to another process, so it is a function of a module.
        num_samples, num_shards: its size.
        source: what the bytes depend on, JSON; a folder made from another source is refused.
        token_px: side of a visual token in pixels; if given, the manifest tells the mean share of visual tokens that
            the evidence touches.
    """

    start: Callable[[], Drawer]
    num_samples: int
    num_shards: int
    source: dict[str, Any] = field(default_factory=dict)
    token_px: int | None = None


def ensure_shards(root: Path, sets: dict[str, DrawnSet], check_hashes: bool = False) -> dict[str, list[Path]]:
    """Builds the shards under `root` unless they are there, checks them, and returns their paths.

    Safe when several processes call it at once: one builds, the others wait. An interrupted build leaves nothing
    behind at `root`. The same code, source and Pillow version give the same bytes.

    Args:
        root: folder of the shards and their `manifest.json`; made if missing.
        sets: name -> what to build.
        check_hashes: also compare the SHA-256 of every shard, not only presence and size (a second or so).

    Returns:
        Set name to its shard paths, sorted.

    Raises:
        ValueError: the folder holds other files than this builder's, or a shard is missing or damaged; the message
            names it and says how to rebuild.
    """
    root.parent.mkdir(parents=True, exist_ok=True)
    with passing_lock(root.parent / f".{root.name}.lock"):
        if not root.exists() or not any(root.iterdir()):
            _build(root, sets)
    return _checked_paths(root, sets, check_hashes)


def _build(root: Path, sets: dict[str, DrawnSet]) -> None:
    """Write everything into a temporary neighbour folder, then rename it to `root`."""
    temporary = Path(tempfile.mkdtemp(prefix=f".{root.name}.", dir=root.parent))
    try:
        written = _write_shards(temporary, sets, f"building {root}")
        write_manifest(temporary, _manifest(sets, written))
        temporary.chmod(0o755)  # mkdtemp makes it private
        temporary.replace(root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _ignore_interrupts() -> None:
    """Leaves Ctrl-C, which reaches all processes of a terminal, to the one that started the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@dataclass(frozen=True)
class _Written:
    """A shard that lies on disk; evidence: summed over its questions, share of visual tokens, 0 if it is not told."""

    name: str
    entry: ShardEntry
    evidence: float


def _write_shards(folder: Path, sets: dict[str, DrawnSet], title: str) -> dict[str, list[_Written]]:
    """Writes all shards, each in one of as many processes as there are cores: drawing holds Python's lock."""
    shards = [(name, one, shard) for name, one in sets.items() for shard in range(one.num_shards)]
    kind = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
    workers = max(1, min(usable_cores(), len(shards)))
    with ProcessPoolExecutor(workers, multiprocessing.get_context(kind), initializer=_ignore_interrupts) as pool:
        jobs = [pool.submit(_write_shard, folder, *one) for one in shards]  # forks before the bar starts its thread
        try:
            with Progress() as progress:
                task = progress.add_task(title, total=sum(one.num_samples for one in sets.values()))
                for job in as_completed(jobs):
                    progress.advance(task, job.result().entry.samples)
        except BaseException:
            pool.shutdown(cancel_futures=True)  # an interrupt must not wait for shards that nobody will use
            raise
    written: dict[str, list[_Written]] = {name: [] for name in sets}
    for (name, _, _), job in zip(shards, jobs, strict=True):
        written[name].append(job.result())
    return written


def _write_shard(folder: Path, name: str, one: DrawnSet, shard: int) -> _Written:
    """Write one tar."""
    bounds = [one.num_samples * i // one.num_shards for i in (shard, shard + 1)]
    path = folder / f"{name}-{shard:06d}.tar"
    draw, evidence = one.start(), 0.0
    with naming(path), tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for index in range(*bounds):
            jpeg, record = draw(index)
            evidence += _evidence_share(record, one.token_px) if one.token_px else 0.0
            _add_file(tar, f"{index:06d}.jpg", jpeg)
            _add_file(tar, f"{index:06d}.json", json.dumps(record).encode())
    samples = bounds[1] - bounds[0]
    entry = ShardEntry(name, samples, samples, path.stat().st_size, sha256_of(path))
    return _Written(path.name, entry, evidence)


def _evidence_share(record: dict[str, Any], token_px: int) -> float:
    """Share of the visual tokens that the boxes touch, as the evidence mask of training has it."""
    boxes = normalize_boxes(record["boxes_xyxy_px"], record["width"], record["height"])
    mask = evidence_mask(boxes, record["height"] // token_px, record["width"] // token_px)
    return float(mask.double().mean())


def _manifest(sets: dict[str, DrawnSet], written: dict[str, list[_Written]]) -> Manifest:
    """Makes the manifest of set -> its shards; what the bytes depend on stands with each set."""
    infos = {}
    for name, shards in written.items():
        count = sum(shard.entry.samples for shard in shards)
        infos[name] = {"samples": count, "images": count, "source": sets[name].source, "complete": True}
        if sets[name].token_px:
            infos[name]["evidence_share"] = round(sum(shard.evidence for shard in shards) / count, 4)
    return Manifest({shard.name: shard.entry for shards in written.values() for shard in shards}, infos)


def _add_file(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    # TarInfo's defaults (time 0, owner 0, mode 644) make the archive independent of when and by whom it is built.
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def _checked_paths(root: Path, sets: dict[str, DrawnSet], check_hashes: bool) -> dict[str, list[Path]]:
    """Compare the folder with its manifest and return the shard paths of every set."""
    remedy = f"delete the folder {root} and run the command again to rebuild it"
    place = manifest_place(root)
    try:
        manifest = read_manifest(root)
    except (OSError, ValueError) as error:
        raise ValueError(f"{error}; {remedy}") from error
    if manifest is None:
        raise ValueError(f"{place} is missing; {remedy}")
    found = {name: info.get("source") for name, info in manifest.sets.items()}
    if found != (expected := {name: one.source for name, one in sets.items()}):
        raise ValueError(f"{place}: expected the sets {expected}, found {found}; {remedy}")
    paths: dict[str, list[Path]] = {}
    for name, entry in sorted(manifest.shards.items()):
        path = root / name
        if not path.is_file():
            raise ValueError(f"shard {path}: {place} lists it, but it is missing; {remedy}")
        try:
            (check_shard if check_hashes else check_size)(path, entry)
        except ValueError as error:
            raise ValueError(f"{error}; {remedy}") from error
        paths.setdefault(entry.set, []).append(path)
    return paths
