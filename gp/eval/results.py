"""Results on disk, one JSON line per sample, appended as they come: what was computed survives a kill.

    samples/{split}-{pruner}-{budget}.jsonl                       one process
    samples/{split}-{pruner}-{budget}.rank{rank}of{world}.jsonl   several; read back as one

Only the last line of a file can be half written (a kill while writing); it is dropped. Lines of several parts are
joined by the samples' ids, so an evaluation may go on with another number of processes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from gp.eval.plan import Method
from gp.runs.writing import naming


@dataclass(frozen=True)
class Result:
    """Answer and counts of one method on one sample.

    Args:
        id: of the sample.
        number: its position in the split, from 0.
        dataset, source_id, image_name, question, answer: as in the shard.
        prediction: decoded text without special tokens.
        num_new_tokens: tokens generated, the one that ends the answer included.
        correct: True if prediction and answer match exactly, see `gp.metrics.exact_match`.
        num_visual, num_kept: visual tokens of the prompt, and those that the last layer saw.
        visual_run, visual_cached: visual tokens that the prefill worked on, and in the KV cache after it; mean over
            the layers.
        tp, fp, fn: visual tokens kept inside the evidence, kept outside it, and dropped inside it; on the
            smaller grid if the method made the images smaller; with crops, what lies behind a kept token of either.
        kv_kept, kv_full: entries of the KV cache after pruning, and of the un-pruned prompt; text included, mean over
            the layers.
        prefill_s, decode_s: the sample's share of the time of its batch.
        calibration: of the row `glimpse` without a budget: `gp.metrics.calibration_counts` of the importance that it
            predicted; None elsewhere, and in lines of earlier versions.
        num_images: of the prompt; lines of earlier versions, which do not say it, are of one.
        num_crops: parts of its images that were seen again; None: the method takes none.
        num_encoded: visual tokens that left the vision tower, copies and crops included; 0 in lines of earlier
            versions.
        in_crops: of the visual tokens that are evidence, those inside a crop; None like `num_crops`.
    """

    id: str
    number: int | None
    dataset: str
    source_id: str
    image_name: str
    question: str
    answer: str
    prediction: str
    num_new_tokens: int
    correct: bool
    num_visual: int
    num_kept: int
    visual_run: float
    visual_cached: float
    tp: int
    fp: int
    fn: int
    kv_kept: float
    kv_full: int
    prefill_s: float
    decode_s: float
    num_images: int = 1
    num_crops: int | None = None
    num_encoded: int = 0
    in_crops: int | None = None
    calibration: list[list[int]] | None = None


def result_path(folder: Path, split: str, method: Method, rank: int = 0, world: int = 1) -> Path:
    """File that process `rank` of `world` writes."""
    part = f".rank{rank}of{world}" if world > 1 else ""
    return folder / f"{split}-{method.label}{part}.jsonl"


def read_results(folder: Path, split: str, method: Method) -> dict[str, Result]:
    """Finished samples of a row, by id, from all its files.

    Raises:
        ValueError: a line that is not a result and not the last of its file; the message names file and line.
    """
    name = re.compile(re.escape(f"{split}-{method.label}") + r"(\.rank\d+of\d+)?\.jsonl")
    paths = sorted(path for path in folder.glob("*.jsonl") if name.fullmatch(path.name))
    return {result.id: result for path in paths for result in _read_file(path)}


def append_results(path: Path, results: Iterable[Result]) -> None:
    """Appends one line per result, all in one write."""
    lines = [json.dumps(asdict(result), ensure_ascii=False) + "\n" for result in results]
    with naming(path), path.open("a", encoding="utf-8") as file:
        file.write("".join(lines))


def drop_half_line(path: Path) -> None:
    """Cuts off what a kill left of a last line, so that the next one starts on its own."""
    if not path.is_file():
        return
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)


def _read_file(path: Path) -> list[Result]:
    lines = path.read_bytes().split(b"\n")[:-1]  # behind the last line break there is nothing, or half a line
    results = []
    for number, line in enumerate(lines, start=1):
        try:
            results.append(Result(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}, line {number}: not a result ({error}); delete the file to redo it") from error
    return results
