"""At which decoder layers the answer passes: exact match when visual tokens are hidden behind layer K.

    python -m gp.embedded.making.growing.layers --kind color conjunction --num-questions 128

Behind layer K, counted from 0, the tokens after the images see the evidence's visual tokens alone, or as many random
ones. Where random ones do as well as the evidence, the answer has passed, and no comparison of methods means anything.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from gp import cli
from gp.backbones.processor import load_processor
from gp.backbones.qwen2_5_vl import Qwen2_5_VL
from gp.backbones.recording import record_calls
from gp.embedded import BASE_DIR
from gp.embedded.cards.layout import TOKEN_PX, box_coverage
from gp.embedded.cards.material import SPLITS
from gp.embedded.cards.samples import SAMPLE_KINDS, Sample, draw_sample
from gp.embedded.cards.scene import SceneBuilder
from gp.embedded.making.evaluate import chat, parse_size
from gp.embedded.making.growing.packing import Grid

Rows = dict[tuple[int | None, str], list[bool]]
"""Whether each answer is right, by (K, which visual tokens are left); K None: all of them are."""


def evidence_tokens(sample: Sample) -> np.ndarray:
    """Visual tokens of all images that touch the evidence, bool [V]."""
    touched = []
    for image, boxes in zip(sample.images, sample.boxes_xyxy_px, strict=True):
        rows, columns = image.height // TOKEN_PX, image.width // TOKEN_PX
        coverage = sum((box_coverage(box, rows, columns) for box in boxes), start=np.zeros((rows, columns)))
        touched.append(coverage.ravel() > 0)
    return np.concatenate(touched)


@contextmanager
def hidden(layers: Sequence[torch.nn.Module], is_hidden: torch.Tensor, first_row: int) -> Iterator[None]:
    """During the block, layers hide tokens of a sequence from those behind the images.

    Args:
        is_hidden: bool [L]. first_row: first token that does not see them.
    """
    length = len(is_hidden)
    mask = torch.ones(length, length, dtype=torch.bool).tril()
    mask[first_row:] &= ~is_hidden

    def hide(module: torch.nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        return args, {**kwargs, "attention_mask": mask[None, None]}

    with ExitStack() as stack:
        for layer in layers:
            stack.callback(layer.register_forward_pre_hook(hide, with_kwargs=True).remove)
        yield


class HidingReader:
    """Answers a question with visual tokens hidden, in float32 on the CPU."""

    def __init__(self, folder: str | Path):
        self.processor = load_processor(folder)
        self.model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
        self.decoder = Qwen2_5_VL(self.model).text_model

    @torch.inference_mode()
    def read(self, sample: Sample, last_layer: int, rng: np.random.Generator) -> Rows:
        """Whether the answer is right un-pruned, and for K = 0 to `last_layer` with evidence or random tokens alone."""
        text = self.processor.apply_chat_template(chat(sample), add_generation_prompt=True)
        text += f"{sample.question.answer}<|im_end|>"
        inputs = self.processor(images=[list(sample.images)], text=[text], return_tensors="pt")
        ids = inputs["input_ids"][0]
        num_labels = len(self.processor.tokenizer(f"{sample.question.answer}<|im_end|>").input_ids)
        visual = (ids == self.model.config.image_token_id).nonzero().flatten()
        evidence = torch.from_numpy(evidence_tokens(sample))
        drawn = torch.zeros_like(evidence)
        drawn[torch.from_numpy(rng.choice(len(drawn), size=int(evidence.sum()), replace=False))] = True
        with record_calls([self.decoder]) as calls:
            logits = self.model(**inputs).logits[0]
        rows: Rows = {(None, "all"): [_is_right(logits, ids, num_labels)]}
        ((_, kwargs),) = calls
        for layer in range(last_layer + 1):
            for name, kept in (("evidence", evidence), ("random", drawn)):
                is_hidden = torch.zeros(len(ids), dtype=torch.bool)
                is_hidden[visual[~kept]] = True
                with hidden(self.decoder.layers[layer + 1 :], is_hidden, int(visual[-1]) + 1):
                    states = self.decoder(**kwargs).last_hidden_state
                rows[layer, name] = [_is_right(self.model.lm_head(states)[0], ids, num_labels)]
        return rows


def _is_right(logits: torch.Tensor, ids: torch.Tensor, num_labels: int) -> bool:
    """Whether the last tokens are each the likeliest given those before, which is to say the greedy answer."""
    return bool((logits[-num_labels - 1 : -1].argmax(-1) == ids[-num_labels:]).all())


def print_table(
    folder: str | Path, split: str, kinds: Sequence[str], size: Grid, num_questions: int, last_layer: int
) -> None:
    """Prints exact match by K, over all kinds."""
    reader, builder = HidingReader(folder), SceneBuilder(split)
    total: Rows = {}
    for kind in kinds:
        for seed in range(num_questions):
            sample = draw_sample(builder, kind, *size, seed)
            for key, right in reader.read(sample, last_layer, np.random.default_rng(seed)).items():
                total.setdefault(key, []).extend(right)
    print(f"{split} {size[0]}x{size[1]} {' '.join(kinds)}, n = {len(total[None, 'all'])}")
    for (layer, name), right in total.items():
        share = sum(right) / len(right)
        error = (share * (1 - share) / len(right)) ** 0.5
        place = "un-pruned" if layer is None else f"K = {layer} {name}"
        print(f"{place:14} {share:.4f} (standard error {error:.4f})")


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table of a folder; returns the exit status, see `gp.cli.run`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, default=BASE_DIR, help="model folder (the embedded one)")
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument("--kind", nargs="+", choices=SAMPLE_KINDS, default=("color", "conjunction"))
    parser.add_argument("--size", type=parse_size, default=(16, 16), help="rows x columns of visual tokens (16x16)")
    parser.add_argument("--num-questions", type=int, default=128, help="of each kind")
    parser.add_argument("--last-layer", type=int, default=5, help="largest K")
    cli.add_traceback(parser)
    given = parser.parse_args(arguments)
    return cli.run(
        lambda: print_table(given.base, given.split, given.kind, given.size, given.num_questions, given.last_layer),
        given.traceback,
    )


if __name__ == "__main__":
    sys.exit(main())
