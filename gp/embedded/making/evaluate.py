"""Exact match of the embedded base by kind of question and size, through transformers' own `generate`.

    python -m gp.embedded.making.evaluate --kind color zoom --size 16x16 20x20 --num-questions 512

Prints the share of answers that are right as a whole; for kinds that show one scene twice, halftone numbers apart.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from gp import cli
from gp.backbones.processor import load_processor
from gp.embedded import BASE_DIR
from gp.embedded.cards.material import SPLITS
from gp.embedded.cards.questions import PLACES
from gp.embedded.cards.samples import SAMPLE_KINDS, ZOOM_KINDS, Sample, draw_sample
from gp.embedded.cards.scene import SceneBuilder
from gp.embedded.making.growing.packing import Grid
from gp.flags import KeyValueHelp, as_flags

BATCH_SIZE = 16
MAX_NEW_TOKENS = 4


class Answerer:
    """Answers samples greedily with a Qwen2.5-VL folder, un-pruned, in float32 on the CPU."""

    def __init__(self, folder: str | Path):
        self.processor = load_processor(folder)
        self.model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()

    @torch.inference_mode()
    def answer(self, samples: Sequence[Sample]) -> list[str]:
        """Answers of a batch, words apart by spaces."""
        texts = [self.processor.apply_chat_template(chat(sample), add_generation_prompt=True) for sample in samples]
        images = [list(sample.images) for sample in samples]
        inputs = self.processor(images=images, text=texts, padding=True, return_tensors="pt")
        ids = self.model.generate(**inputs, do_sample=False, max_new_tokens=MAX_NEW_TOKENS)
        answers = self.processor.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return [answer.strip() for answer in answers]


def chat(sample: Sample) -> list[dict]:
    """The conversation up to the question, as messages for the chat template."""
    question = sample.question
    asked = [text for text, _ in question.history] + [question.text]
    pictures = [{"type": "image"}] * len(sample.images)
    messages = [{"role": "user", "content": [*pictures, {"type": "text", "text": asked[0]}]}]
    for (_, answer), text in zip(question.history, asked[1:], strict=True):
        messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": text}]
    return messages


def exact_matches(answerer: Answerer, builder: SceneBuilder, kind: str, size: Grid, num: int) -> dict[str, list[bool]]:
    """Whether each of the first `num` samples of a kind and size is answered rightly, by the kind's parts."""
    groups: dict[str, list[bool]] = {}
    for start in range(0, num, BATCH_SIZE):
        seeds = range(start, min(start + BATCH_SIZE, num))
        samples = [draw_sample(builder, kind, *size, seed) for seed in seeds]
        for sample, answer in zip(samples, answerer.answer(samples), strict=True):
            is_halftone = kind in ZOOM_KINDS and sample.question.evidence[0].ink == "halftone"
            name = f"{kind} (halftone)" if is_halftone else kind
            groups.setdefault(name, []).append(answer == sample.question.answer)
    return groups


def evaluate_folder(
    folder: str | Path, split: str, kinds: Sequence[str], sizes: Sequence[Grid], num_questions: int
) -> None:
    """Prints exact match of a folder for each kind and size; zoom and glance need even sizes.

    A pair of pictures ("first", "second") is shown at half the size in each direction.
    """
    if num_questions < 1:
        raise ValueError(f"--num-questions {num_questions}: expected 1 or more")
    answerer, builder = Answerer(folder), SceneBuilder(split)
    for size in sizes:
        for kind in kinds:
            shown = (size[0] // 2, size[1] // 2) if kind in PLACES else size
            for name, right in exact_matches(answerer, builder, kind, shown, num_questions).items():
                share = sum(right) / len(right)
                error = (share * (1 - share) / len(right)) ** 0.5
                place = f"{shown[0]}x{shown[1]}"
                print(f"{split} {place:6} {name:18} {share:.4f} (standard error {error:.4f}), n = {len(right)}")


def parse_size(text: str) -> Grid:
    """Rows and columns of "16x16"."""
    rows, columns = text.split("x")
    return int(rows), int(columns)


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluates a folder; returns the exit status, see `gp.cli.run`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=KeyValueHelp)
    parser.add_argument("--base", type=Path, default=BASE_DIR, help="model folder (the embedded one)")
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument("--kind", nargs="+", choices=SAMPLE_KINDS, default=SAMPLE_KINDS, help="kinds of question (all)")
    parser.add_argument(
        "--size", nargs="+", type=parse_size, default=[(16, 16)], help="rows x columns of visual tokens (16x16)"
    )
    parser.add_argument("--num-questions", type=int, default=512, help="of each kind and size")
    cli.add_traceback(parser)
    options = parser.parse_args(as_flags(parser, arguments))
    return cli.run(
        lambda: evaluate_folder(options.base, options.split, options.kind, options.size, options.num_questions),
        options.traceback,
    )


if __name__ == "__main__":
    sys.exit(main())
