"""WebDataset shards of the embedded data, built once from scenes and checked ever after.

A sample is `{key}.jpg` (224 x 224 px) and `{key}.json` with `question`, `answer`, `boxes_xyxy_px` (lists of ints,
last pixel inclusive), `width`, `height`, `dataset` ("tiny"), `split`, `source_id`. One question a scene.

    train     14,336 samples, half of them kind color and half conjunction
    val        512, color          val_hard   512, conjunction
    test       1,024, color        test_hard  1,024, conjunction

Digit scans and photographs of train, val and test are disjoint (`gp.data.scenes`).
"""

import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from rich.progress import Progress

from gp.data.scenes import SceneBuilder

BUILDER_VERSION = 2
SEED = 20261122
JPEG_QUALITY = 92
MANIFEST_NAME = "manifest.json"
DATASET = "tiny"


@dataclass(frozen=True)
class SplitSpec:
    """scene_split: of `gp.data.scenes`; kinds: taken in turn; sizes as numbers of samples and shards."""

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
    with FileLock(root.parent / f".{root.name}.lock"):
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
        manifest = {"builder_version": BUILDER_VERSION, "seed": SEED, "splits": entries}
        (temporary / MANIFEST_NAME).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        temporary.chmod(0o755)  # mkdtemp makes it private
        temporary.replace(root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_shard(folder: Path, split: str, spec: SplitSpec, shard: int, advance) -> dict:
    """Write one tar and return its manifest entry."""
    bounds = [spec.num_samples * i // spec.num_shards for i in (shard, shard + 1)]
    path = folder / f"{split}-{shard:06d}.tar"
    builder = SceneBuilder(spec.scene_split)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for index in range(*bounds):
            jpeg, record = sample_record(split, spec, index, builder)
            _add_file(tar, f"{index:06d}.jpg", jpeg)
            _add_file(tar, f"{index:06d}.json", json.dumps(record).encode())
            advance()
    return {
        "file": path.name,
        "sha256": _sha256(path),
        "num_samples": bounds[1] - bounds[0],
        "bytes": path.stat().st_size,
    }


def _add_file(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    # TarInfo's defaults (time 0, owner 0, mode 644) make the archive independent of when and by whom it is built.
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _checked_paths(root: Path, splits: dict[str, SplitSpec], check_hashes: bool) -> dict[str, list[Path]]:
    """Compare the folder with its manifest and return the shard paths of every split."""
    remedy = f"delete the folder {root} and run the command again to rebuild it"
    try:
        manifest = json.loads((root / MANIFEST_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{root / MANIFEST_NAME} cannot be read ({error}); {remedy}") from error
    found = (manifest.get("builder_version"), manifest.get("seed"), sorted(manifest.get("splits", {})))
    if found != (expected := (BUILDER_VERSION, SEED, sorted(splits))):
        raise ValueError(f"{root}: expected builder version, seed and splits {expected}, found {found}; {remedy}")
    paths: dict[str, list[Path]] = {}
    for split, entries in manifest["splits"].items():
        for entry in entries:
            path = root / entry["file"]
            size = path.stat().st_size if path.is_file() else None
            if size != entry["bytes"]:
                got = "it is missing" if size is None else f"got {size} bytes"
                raise ValueError(f"shard {path}: expected {entry['bytes']} bytes, {got}; {remedy}")
            if check_hashes and (digest := _sha256(path)) != entry["sha256"]:
                raise ValueError(f"shard {path}: expected SHA-256 {entry['sha256']}, got {digest}; {remedy}")
            paths.setdefault(split, []).append(path)
    return {split: sorted(split_paths) for split, split_paths in paths.items()}
