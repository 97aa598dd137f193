"""Exact match of a Qwen2.5-VL folder on the embedded data, through transformers' own `generate`.

    python -m gp.embedded.making.evaluate gp/embedded/base --split test --num-questions 1024

Prints the share of answers that are right as a whole, and of single digits.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from gp import cli
from gp.backbones.processor import load_processor
from gp.data.batch import Collator
from gp.data.sample import Sample, parse_record
from gp.data.shards import Record
from gp.data.tiny_shards import TINY_SPLITS, SplitSpec, sample_record
from gp.embedded import BASE_DIR
from gp.embedded.scenes import SceneBuilder


@dataclass(frozen=True)
class ExactMatch:
    """exact: share of whole answers right, 0..1. digit: share of single digits right, by place, 0..1."""

    exact: float
    digit: float
    num_questions: int


@torch.inference_mode()
def evaluate_folder(folder: str | Path, split: str, num_questions: int, batch_size: int = 32) -> ExactMatch:
    """Answer the first questions of a split of the tiny shards greedily.

    The samples are the shards' own (same bytes), drawn afresh, so no shards are needed.

    Args:
        folder: a Qwen2.5-VL model folder with processor; run in float32 on the CPU.
        split: one of `TINY_SPLITS`.
        num_questions: at most the size of the split.

    Raises:
        ValueError: unknown split, or more questions than it has.
    """
    if split not in TINY_SPLITS or not 0 < num_questions <= TINY_SPLITS[split].num_samples:
        sizes = {name: spec.num_samples for name, spec in TINY_SPLITS.items()}
        raise ValueError(f"expected a split and a number of questions within {sizes}, got {split!r}, {num_questions}")
    spec = TINY_SPLITS[split]
    builder = SceneBuilder(spec.scene_split)
    processor = load_processor(folder)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    collator = Collator(processor)
    num_exact = num_digits = 0
    for start in range(0, num_questions, batch_size):
        indices = range(start, min(start + batch_size, num_questions))
        samples = [_sample(split, spec, index, builder) for index in indices]
        inputs = collator(samples).inputs
        output_ids = model.generate(**inputs, do_sample=False, max_new_tokens=4)[:, inputs["input_ids"].shape[1] :]
        answers = processor.batch_decode(output_ids, skip_special_tokens=True)
        for answer, sample in zip(map(str.strip, answers), samples, strict=True):
            num_exact += answer == sample.answer
            pairs = zip(answer.split(), sample.answer.split(), strict=False)
            num_digits += sum(got == expected for got, expected in pairs)
    return ExactMatch(num_exact / num_questions, num_digits / (2 * num_questions), num_questions)


def _sample(split: str, spec: SplitSpec, index: int, builder: SceneBuilder) -> Sample:
    """Sample `index` as reading it from its shard would give it."""
    jpeg, record = sample_record(split, spec, index, builder)
    return parse_record(Record(str(index), split, str(index), {"jpg": jpeg, "json": json.dumps(record).encode()}))


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluates a folder; returns the exit status, see `gp.cli.run`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=BASE_DIR, help="model folder (the embedded one)")
    parser.add_argument("--split", choices=sorted(TINY_SPLITS), default="test")
    parser.add_argument("--num-questions", type=int, default=512)
    cli.add_traceback(parser)
    options = parser.parse_args(arguments)
    return cli.run(lambda: run(options.folder, options.split, options.num_questions), options.traceback)


def run(folder: Path, split: str, num_questions: int) -> None:
    """Prints both shares."""
    result = evaluate_folder(folder, split, num_questions)
    error = (result.exact * (1 - result.exact) / result.num_questions) ** 0.5
    print(
        f"{split}: exact match {result.exact:.4f} (standard error {error:.4f}), "
        f"single digits {result.digit:.4f}, n = {result.num_questions}"
    )


if __name__ == "__main__":
    sys.exit(main())
