"""WebDataset shards of the embedded data, built once from scenes and checked ever after.

A sample is `{key}.jpg` (224 x 224 px) and `{key}.json` with `question`, `answer`, `boxes_xyxy_px` (lists of ints,
last pixel inclusive), `width`, `height`, `dataset` ("tiny"), `split`, `source_id`. One question per scene.

    train     14,336 samples, half of them kind color and half conjunction
    val        512, color          val_hard   512, conjunction
    test       1,024, color        test_hard  1,024, conjunction

Digit scans and photographs of train, val and test are disjoint (`gp.embedded.scenes`).
"""

import io
import json
import os
import shutil
import tarfile
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rich.progress import Progress

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
from gp.embedded.scenes import SceneBuilder
from gp.runs.passing_lock import passing_lock
from gp.runs.writing import naming

BUILDER_VERSION = 2
SEED = 20261122
JPEG_QUALITY = 92
DATASET = "tiny"


@dataclass(frozen=True)
class SplitSpec:
    """scene_split: of `gp.embedded.scenes`; kinds: taken in turn; sizes as numbers of samples and shards."""

    scene_split: str
    kinds: tuple[str, ...]
    num_samples: int
    num_shards: int


TINY_SPLITS = {
    "train": SplitSpec("train", ("color", "conjunction"), 14336, 28),
    "val": SplitSpec("val", ("color",), 512, 2),
    "val_hard": SplitSpec("val", ("conjunction",), 512, 2),
    "test": SplitSpec("test", ("color",), 1024, 4),
    "test_hard": SplitSpec("test", ("conjunction",), 1024, 4),
}


def ensure_tiny_shards(
    root: str | Path, splits: dict[str, SplitSpec] = TINY_SPLITS, check_hashes: bool = False
) -> dict[str, list[Path]]:
    """Build the shards under `root` unless they are there, check them, and return their paths.

    Safe when several processes call it at once: one builds, the others wait. An interrupted build leaves nothing
    behind at `root`. The same code, seed and Pillow version give the same bytes.

    Args:
        root: folder of the shards and their `manifest.json`; made if missing.
        splits: what to build; other than the default in tests only.
        check_hashes: also compare the SHA-256 of every shard, not only presence and size (a second or so).

    Returns:
        Split name to its shard paths, sorted.

    Raises:
        ValueError: the folder holds other files than this builder's, or a shard is missing or damaged; the message
            names it and says how to rebuild.
    """
    root = Path(root)
    root.parent.mkdir(parents=True, exist_ok=True)
    with passing_lock(root.parent / f".{root.name}.lock"):
        if not root.exists() or not any(root.iterdir()):
            _build(root, splits)
    return _checked_paths(root, splits, check_hashes)


def sample_record(split: str, spec: SplitSpec, index: int, builder: SceneBuilder) -> tuple[bytes, dict]:
    """Sample `index` of a split: its JPEG bytes and its JSON record."""
    scene = builder.build(SEED + index, spec.kinds[index % len(spec.kinds)])
    question = scene.questions[0]
    buffer = io.BytesIO()
    scene.image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    record = {
        "question": question.text,
        "answer": question.answer,
        "boxes_xyxy_px": [list(box) for box in question.boxes_xyxy_px],
        "width": scene.image.width,
        "height": scene.image.height,
        "dataset": DATASET,
        "split": split,
        "source_id": scene.source_id,
    }
    return buffer.getvalue(), record


def _build(root: Path, splits: dict[str, SplitSpec]) -> None:
    """Write everything into a temporary neighbour folder, then rename it to `root`."""
    temporary = Path(tempfile.mkdtemp(prefix=f".{root.name}.", dir=root.parent))
    try:
        total = sum(spec.num_samples for spec in splits.values())
        with Progress() as progress, ThreadPoolExecutor(os.cpu_count()) as pool:
            task = progress.add_task(f"building {root}", total=total)
            jobs = {
                split: [
                    pool.submit(_write_shard, temporary, split, spec, shard, lambda: progress.advance(task))
                    for shard in range(spec.num_shards)
                ]
                for split, spec in splits.items()
            }
            try:
                entries = {split: [job.result() for job in shard_jobs] for split, shard_jobs in jobs.items()}
            except BaseException:
                pool.shutdown(cancel_futures=True)  # an interrupt must not wait for shards that nobody will use
                raise
        write_manifest(temporary, _manifest(entries))
        temporary.chmod(0o755)  # mkdtemp makes it private
        temporary.replace(root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_shard(folder: Path, split: str, spec: SplitSpec, shard: int, advance) -> tuple[str, ShardEntry]:
    """Write one tar and return its name and its manifest entry."""
    bounds = [spec.num_samples * i // spec.num_shards for i in (shard, shard + 1)]
    path = folder / f"{split}-{shard:06d}.tar"
    builder = SceneBuilder(spec.scene_split)
    with naming(path), tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for index in range(*bounds):
            jpeg, record = sample_record(split, spec, index, builder)
            _add_file(tar, f"{index:06d}.jpg", jpeg)
            _add_file(tar, f"{index:06d}.json", json.dumps(record).encode())
            advance()
    samples = bounds[1] - bounds[0]
    return path.name, ShardEntry(split, samples, samples, path.stat().st_size, sha256_of(path))


def _manifest(entries: dict[str, list[tuple[str, ShardEntry]]]) -> Manifest:
    """Makes the manifest of split -> its shards; what the bytes depend on stands with each set."""
    made = {"source": _source(), "complete": True}
    counts = {split: sum(entry.samples for _, entry in shards) for split, shards in entries.items()}
    sets = {split: {"samples": count, "images": count, **made} for split, count in counts.items()}
    return Manifest({name: entry for shards in entries.values() for name, entry in shards}, sets)


def _source() -> dict:
    return {"builder": "tiny", "version": BUILDER_VERSION, "seed": SEED}


def _add_file(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    # TarInfo's defaults (time 0, owner 0, mode 644) make the archive independent of when and by whom it is built.
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def _checked_paths(root: Path, splits: dict[str, SplitSpec], check_hashes: bool) -> dict[str, list[Path]]:
    """Compare the folder with its manifest and return the shard paths of every split."""
    remedy = f"delete the folder {root} and run the command again to rebuild it"
    place = manifest_place(root)
    try:
        manifest = read_manifest(root)
    except (OSError, ValueError) as error:
        raise ValueError(f"{error}; {remedy}") from error
    if manifest is None:
        raise ValueError(f"{place} is missing; {remedy}")
    found = {name: info.get("source") for name, info in manifest.sets.items()}
    if found != (expected := {name: _source() for name in splits}):
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
