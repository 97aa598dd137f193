"""An endless, seeded stream of scene batches for the pretraining of the embedded model."""

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import IterableDataset

from gp.embedded.making.scenes import COLORS_RGB, IMAGE_SIZE_PX, SHAPES, Card, Scene, SceneBuilder

TOKEN_PX = 28
GRID_SIDE = IMAGE_SIZE_PX // TOKEN_PX
NUM_TOKENS = GRID_SIDE * GRID_SIDE
IGNORE = -100
ANSWER_LENGTH = 3  # two digits and the end token
COLOR_CLASSES = ("background", *COLORS_RGB)
SHAPE_CLASSES = ("background", *SHAPES)


def box_coverage(box_xyxy_px: tuple[int, int, int, int]) -> np.ndarray:
    """Share of each visual token's area inside the box (last pixel inclusive), float64 [64] in raster order."""
    x1, y1, x2, y2 = box_xyxy_px
    starts = np.arange(GRID_SIDE) * TOKEN_PX
    across = np.clip(np.minimum(starts + TOKEN_PX, x2 + 1) - np.maximum(starts, x1), 0, None)
    down = np.clip(np.minimum(starts + TOKEN_PX, y2 + 1) - np.maximum(starts, y1), 0, None)
    return np.outer(down, across).reshape(-1) / TOKEN_PX**2


def dense_targets(cards: tuple[Card, ...]) -> np.ndarray:
    """Classes of every visual token, int64 [4, 64]: colour, shape, left digit, right digit.

    A token belongs to the card that covers at least half of it. Where two cards cover half each, or cards cover less
    than half, all four classes are -100 (ignored). A bare token is background (class 0) and has no digits (-100).
    """
    coverage = np.stack([box_coverage(card.box_xyxy_px) for card in cards])
    targets = np.full((4, NUM_TOKENS), IGNORE, dtype=np.int64)
    targets[:2, coverage.sum(axis=0) == 0] = 0
    order = np.sort(coverage, axis=0)
    runner_up = order[-2] if len(cards) > 1 else np.zeros(NUM_TOKENS)
    clear = (order[-1] >= 0.5) & (order[-1] > runner_up)
    for token in np.flatnonzero(clear):
        card = cards[int(coverage[:, token].argmax())]
        look = (COLOR_CLASSES.index(card.color), SHAPE_CLASSES.index(card.shape))
        targets[:, token] = (*look, *card.digits)
    return targets


class SceneStream(IterableDataset):
    """Yields whole batches (dicts of tensors); batch `i` depends on the seed and `i` only.

    Args:
        builder: scene source.
        tokenizer: the embedded model's.
        steps: numbers of the batches to yield.
        batch_size: scenes per batch.
        seed: the stream's.
        conjunction_share: share of the scenes of kind conjunction, the others being of kind color; None: all dense.
        questions_per_scene: questions taken of each scene; a scene with fewer repeats its first ones.

    A batch holds `step` int; `images` uint8 [B, 3, 224, 224]; `targets` int64 [B, 4, 64] (see `dense_targets`);
    unless dense also `text_ids` int64 [B, Q, T] (question, end of turn, assistant header, answer; padded on the right
    with -1), `prompt_lengths` int64 [B, Q] (tokens before the answer) and `evidence` bool [B, Q, 64].
    """

    def __init__(self, builder: SceneBuilder, tokenizer, steps: range, batch_size: int, seed: int,
                 conjunction_share: float | None, questions_per_scene: int = 6):  # fmt: skip
        super().__init__()
        self.builder = builder
        self.tokenizer = tokenizer
        self.steps = steps
        self.batch_size = batch_size
        self.seed = seed
        self.conjunction_share = conjunction_share
        self.questions_per_scene = questions_per_scene

    def __iter__(self) -> Iterator[dict]:
        for step in self.steps:
            yield self.batch(step)

    def batch(self, step: int) -> dict:
        """Batch number `step`."""
        rng = np.random.default_rng([self.seed, step])
        seeds = rng.integers(2**40, size=self.batch_size)
        if self.conjunction_share is None:
            kinds = ["dense"] * self.batch_size
        else:
            is_hard = rng.random(self.batch_size) < self.conjunction_share
            kinds = ["conjunction" if hard else "color" for hard in is_hard]
        scenes = [self.builder.build(int(seed), kind) for seed, kind in zip(seeds, kinds, strict=True)]
        images = np.stack([np.asarray(scene.image) for scene in scenes])
        batch = {
            "step": step,
            "images": torch.from_numpy(images).permute(0, 3, 1, 2),
            "targets": torch.from_numpy(np.stack([dense_targets(scene.cards) for scene in scenes])),
        }
        if self.conjunction_share is not None:
            batch.update(self._pack_questions(scenes))
        return batch

    def _pack_questions(self, scenes: list[Scene]) -> dict:
        rows, evidence = [], []
        for scene in scenes:
            for index in range(self.questions_per_scene):
                question = scene.questions[index % len(scene.questions)]
                rows.append(encode_question(self.tokenizer, question.text, question.answer))
                evidence.append(sum(box_coverage(box) for box in question.boxes_xyxy_px) > 0)
        shape = (len(scenes), self.questions_per_scene)
        text_ids = np.full((len(rows), max(len(row) for row in rows)), -1, dtype=np.int64)
        for target, row in zip(text_ids, rows, strict=True):
            target[: len(row)] = row
        lengths = np.array([len(row) - ANSWER_LENGTH for row in rows], dtype=np.int64)
        return {
            "text_ids": torch.from_numpy(text_ids.reshape(*shape, -1)),
            "prompt_lengths": torch.from_numpy(lengths.reshape(shape)),
            "evidence": torch.from_numpy(np.stack(evidence).reshape(*shape, NUM_TOKENS)),
        }


def encode_question(tokenizer, question: str, answer: str) -> list[int]:
    """Token ids of what follows the image: question, end of turn, assistant header, answer, end token."""
    text = f"{question}<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>"
    return tokenizer(text, add_special_tokens=False).input_ids
