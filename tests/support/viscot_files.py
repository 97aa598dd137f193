"""Visual-CoT in small: real annotations, images drawn for them at a small scale, as a folder and as a split tar."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

from PIL import Image, ImageDraw

from gp.data.building import BuildConfig
from gp.data.building.annotations import read_annotations
from gp.data.building.keys import FOLDERS, image_key
from gp.data.skipping import SkipCounter

HERE = Path(__file__).resolve().parents[1] / "data" / "viscot"
SETS = ("cub", "dude", "sroie", "vsr")
BENCHMARKS = ("dude", "gqa", "textcap", "visual7w", "vsr")
SCALE = 16
IMAGES = {f"gqa/{number}.jpg": bytes([number]) * (300 * number) for number in range(1, 9)}  # for archives; not JPEGs


def training_rows(name: str) -> list[dict]:
    return [json.loads(line) for line in (HERE / f"{name}_cot_train.head.jsonl").read_text().splitlines()]


def training_images(*names: str) -> dict[str, bytes]:
    """Key -> a JPEG of the right shape, a sixteenth of the published size, for every row of these sets."""
    sizes = {}
    for name in names:
        for row in training_rows(name):
            key = f"{FOLDERS.get(row['dataset'], row['dataset'])}/{row['image']}"
            sizes[key] = (row["width"] // SCALE, row["height"] // SCALE)
    return {key: drawn(*size, key) for key, size in sizes.items()}


def benchmark_images(*names: str) -> dict[str, bytes]:
    """Key -> a JPEG of the size that the entry's two boxes imply."""
    images = {}
    for name in names:
        for entry in json.loads((HERE / f"benchmark_{name}.head.json").read_text()):
            key = image_key(entry["image"][0])
            images.setdefault(key, drawn(*implied_size(entry), key))
    return images


def implied_size(entry: dict) -> tuple[int, int]:
    """Width and height for which the padded box is the pixel box: there is padding on one axis only."""
    x2, y2 = json.loads(entry["image"][1].split("###")[1])[2:]
    padded_x2, padded_y2 = json.loads(entry["conversations"][1]["value"])[2:]
    side = max(x2 / padded_x2, y2 / padded_y2)
    left, top = padded_x2 * side - x2, padded_y2 * side - y2
    return round(side - 2 * left), round(side - 2 * top)


def drawn(width: int, height: int, text: str = "", kind: str = "JPEG") -> bytes:
    """A picture that differs from every other."""
    number = sum(ord(letter) * (position + 1) for position, letter in enumerate(text))
    image = Image.new("RGB", (max(1, width), max(1, height)), (number % 251, number % 241, number % 239))
    ImageDraw.Draw(image).line([(0, 0), (width, number % max(1, height))], fill=(255, 255, 0))
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=70)
    return buffer.getvalue()


def write_folder(folder: Path, images: dict[str, bytes]) -> Path:
    for key, data in images.items():
        path = folder / "cot" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def tar_bytes(images: dict[str, bytes], prefix: str = "cot/") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        tar.addfile(_directory(prefix.rstrip("/") or "."))
        for key, data in images.items():
            info = tarfile.TarInfo(prefix + key)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def write_pieces(folder: Path, whole: bytes, count: int = 3, name: str = "cot_images_{:02d}") -> list[Path]:
    """Cuts the bytes anywhere, as `split` does."""
    folder.mkdir(parents=True, exist_ok=True)
    size = -(-len(whole) // count)
    paths = []
    for number in range(count):
        path = folder / name.format(number)
        path.write_bytes(whole[number * size : (number + 1) * size])
        paths.append(path)
    return paths


def annotation(*names: str) -> list[str]:
    return [str(HERE / f"{name}_cot_train.head.jsonl") for name in names]


def config(tmp_path: Path, images: Path | list[Path], **changes) -> BuildConfig:
    """A build of the vsr excerpt into `out`, in this process."""
    entries = [str(path) for path in (images if isinstance(images, list) else [images])]
    given = {"name": "v", "annotations": annotation("vsr"), "images": entries, "out": str(tmp_path / "out")}
    return BuildConfig(**{**given, "workers": 0, "max_skipped_fraction": 0.0, **changes})


def records(shard: Path) -> list[tuple[bytes, list[dict]]]:
    """Every record of a shard, read by tarfile alone: the image's bytes and its questions."""
    with tarfile.open(shard) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar.getmembers()}
    found = {}
    for name, data in files.items():
        found.setdefault(name.partition(".")[0], {})[name.partition(".")[2]] = data
    out = []
    for parts in found.values():
        rows = json.loads(parts.pop("json"))
        (image,) = parts.values()
        out.append((image, rows if isinstance(rows, list) else [rows]))
    return out


def questions(folder: Path, pattern: str = "*.tar") -> list[dict]:
    return [row for shard in sorted(folder.glob(pattern)) for _, rows in records(shard) for row in rows]


def _directory(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE
    return info


def got(source, wanted=IMAGES, position=0) -> dict[str, bytes]:
    """Reads the wanted images of a source: key -> bytes."""
    return {found.key: source.read(found) for found in source.walk(wanted, position)}


def read(*paths, limit: float = 1.0):
    """Reads annotations; also returns the counter of bad lines."""
    counter = SkipCounter(limit)
    return read_annotations([Path(path) for path in paths], counter), counter
