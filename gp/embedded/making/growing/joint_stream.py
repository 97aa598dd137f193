"""Batches of the joint stage: scenes of one size with several questions each, packed behind their images."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import IterableDataset

from gp.embedded.cards.layout import TOKEN_PX, box_coverage
from gp.embedded.cards.looks import COLORS_RGB, SHAPES
from gp.embedded.cards.questions import MAX_COUNT, Question, ask, ask_in_picture, ask_to_read, readable
from gp.embedded.cards.samples import CROPS, SAMPLE_KINDS
from gp.embedded.cards.scene import NUM_CARDS, Card, Scene, SceneBuilder
from gp.embedded.cards.views import crop, crop_box, draw_crop, half_copy
from gp.embedded.making.growing.blocks import IGNORE, NOTHING, Block, build_block
from gp.embedded.making.growing.dense import dense_targets
from gp.embedded.making.growing.images import sometimes_through_jpeg, to_tensor
from gp.embedded.making.growing.packing import Grid
from gp.embedded.making.growing.plans import PHASES_OF_STAGES, SIZES, TASKS, Size, Task, tasks_of

ATTRIBUTES = (*COLORS_RGB, *SHAPES, *map(str, range(10)))  # words by which questions name cards
MAX_ASKED = 2
MAX_CARDS = NUM_CARDS[1]
NAME_TWO = ("color_of", "side")  # kinds that name two digits or two colours
LARGE_CARDS = 0.6  # share of large cards in a scene made of them
GLANCE_SHARE = 1 / 3  # of the questions about a half-size copy, those that have no crop


class JointStream(IterableDataset):
    """Yields whole batches (dicts); batch `i` depends on the seed and `i` only.

    Args:
        builder: scene source.
        tokenizer: of the base.
        steps: numbers of the batches to yield.
        seed: the stream's.
        only: a setting and a size, whose tasks are taken in turn; None: all are drawn by their shares.
        late_from: step from which tasks have the second of their two shares.
        phases: indices of these in PHASES.
        large: share of the scenes most of whose cards are made large, with large ink.
        noise_size: width of the vectors put in before answers; 0: nothing is put in and no position jumps.

    A batch has
        grids: rows and columns of the prefix's images. images: uint8 [B, 3, H, W] for each, targets: int64 [B, 4, V].
        crops: uint8 [B * Q, 3, h, w] or None.
        ids, labels: int64 [B, Q, T], positions: int64 [B, Q, 3, T], see `Block`; ids NOTHING where there is no token.
        last: int64 [B, Q], see `Block`. kinds: int64 [B, Q], indices of SAMPLE_KINDS. is_halftone: bool [B, Q].
        evidence: bool [B, Q, visual tokens of the prefix]. crop_evidence: bool [B, Q, T].
        parts: bool [B, Q, 2, visual tokens of the prefix], what either half of the heads is to look at: the first and
            the other card of a question for a side; the evidence and its last mark of one for how many; else twice
            the evidence.
        marks: bool [B, visual tokens of the prefix], see `_mark`. chains: int64 [B, MAX_CARDS, 3], see `_chain`.
        asked: int64 [B, Q, MAX_ASKED], indices of ATTRIBUTES. words: int64 of that shape, where in the block they are,
            for NAME_TWO. counts: int64 [B, Q], answers to questions for how many. All -100 elsewhere.
        columns: float32 [B, Q, 2], shapes: [B, Q, 3], see `_columns` and `_shapes`; nan elsewhere.
        noise: float32 [B, Q, noise_size], noise_scale, is_near: [B, Q], see `joint_forward.inserted_vectors`.
    """

    def __init__(self, builder: SceneBuilder, tokenizer, steps: range, seed: int,
                 only: tuple[str, Size] | None = None, noise_size: int = 0, late_from: int = 0,
                 phases: tuple[int, int] = PHASES_OF_STAGES["joint"], large: float = 0.0):  # fmt: skip
        super().__init__()
        self.builder, self.tokenizer, self.steps, self.seed = builder, tokenizer, steps, seed
        self.only, self.noise_size, self.late_from = only, noise_size, late_from
        self.phases, self.large = phases, large

    def __iter__(self) -> Iterator[dict]:
        return map(self.batch, self.steps)

    def batch(self, step: int) -> dict[str, Any]:
        """Batch number `step`."""
        rng = np.random.default_rng([self.seed, step])
        task, size = self._plan(rng, step)
        prompts = [self._draw(rng, task, size) for _ in range(size.num_scenes)]
        return self._collate(rng, task.setting, size, prompts)

    def _plan(self, rng: np.random.Generator, step: int) -> tuple[Task, Size]:
        if self.only is not None:
            tasks = tasks_of(self.only[0])
            return tasks[step % len(tasks)], self.only[1]
        phase = self.phases[step >= self.late_from]
        task = _weighted(rng, TASKS, [task.shares[phase] for task in TASKS])
        sizes = SIZES[task.setting]
        return task, _weighted(rng, sizes, [size.share for size in sizes])

    def _draw(self, rng: np.random.Generator, task: Task, size: Size) -> "_Packed":
        """One packed sequence: scenes, images of the prefix, questions and their crops."""
        layout, kind, _ = _weighted(rng, task.scenes, [share for _, _, share in task.scenes])
        scenes, count = self._scenes(rng, size, layout), size.num_questions
        if task.setting == "single":
            questions = [ask(rng, scenes[0], kind) for _ in range(count)]
            return _Packed(scenes, [self._seen(rng, scenes[0].image)], 1, questions, [None] * count)
        if task.setting == "pair":
            pair = (scenes[0], scenes[1])
            questions = [ask_in_picture(rng, pair, int(rng.integers(2))) for _ in range(count)]
            return _Packed(scenes, [self._seen(rng, scene.image) for scene in scenes], 1, questions, [None] * count)
        cards = readable(scenes[0])
        questions = [ask_to_read(rng, cards[int(rng.integers(len(cards)))], scenes[0]) for _ in range(count)]
        image = self._seen(rng, scenes[0].image)
        return _Packed(scenes, [half_copy(image)], 2, questions, [None] * count, image)

    def _scenes(self, rng: np.random.Generator, size: Size, layout: str) -> list[Scene]:
        large = LARGE_CARDS if self.large and rng.random() < self.large else 0.0
        return [self.builder.build(int(rng.integers(2**40)), layout, *grid, large=large) for grid in size.grids]

    def _seen(self, rng: np.random.Generator, image: Image.Image) -> Image.Image:
        return sometimes_through_jpeg(image, rng)

    def _collate(self, rng: np.random.Generator, setting: str, size: Size, prompts: list["_Packed"]) -> dict[str, Any]:
        crop_grid, crops = None, None
        if setting == "zoom":
            crop_grid = CROPS[int(rng.integers(len(CROPS)))]
            crops = [look for prompt in prompts for look in prompt.cut(rng, crop_grid)]
        grids = size.grids if crop_grid is None else ((size.grids[0][0] // 2, size.grids[0][1] // 2),)
        blocks, kinds, halftone, asked, columns, shapes, counts = [], [], [], [], [], [], []
        for prompt in prompts:
            for question, place in zip(prompt.questions, prompt.places, strict=True):
                kind, is_asked, is_halftone = question.kind, True, question.evidence[0].ink == "halftone"
                if crop_grid is not None:
                    kind = "glance" if place is None else "zoom"
                    is_asked = place is not None or not is_halftone or self.noise_size == 0
                blocks.append(
                    build_block(
                        self.tokenizer,
                        question,
                        None if place is None else crop_grid,
                        is_asked,
                        rng if self.noise_size else None,
                    )
                )
                kinds.append(SAMPLE_KINDS.index(kind))
                named = [ATTRIBUTES.index(word) for word in question.asked]
                asked.append(named + [IGNORE] * (MAX_ASKED - len(named)))
                columns.append(_columns(question))
                shapes.append(_shapes(question))
                counts.append(len(question.evidence) if question.kind == "count" else IGNORE)
                halftone.append(is_halftone)
        shape = (size.num_scenes, size.num_questions)
        room = 0 if crop_grid is None else crop_grid[0] * crop_grid[1] + 2
        packed = _pad(blocks, shape, room)
        questions = [question for prompt in prompts for question in prompt.questions]
        words = [
            self._words(question, row) for question, row in zip(questions, packed["ids"].flatten(0, 1), strict=True)
        ]
        evidence, parts, in_crop = [], [], np.zeros((*shape, packed["ids"].shape[-1]), dtype=bool)
        for row, prompt in enumerate(prompts):
            for column, (question, place) in enumerate(zip(prompt.questions, prompt.places, strict=True)):
                evidence.append(_evidence(question, question.evidence, grids, prompt.shrink))
                others = question.evidence[1:] if question.kind == "side" else question.evidence
                firsts = question.evidence[:1] if question.kind == "side" else question.evidence
                parts.append([_evidence(question, cards, grids, prompt.shrink) for cards in (firsts, others)])
                if question.kind == "count":
                    parts[-1][1] = _last_mark(question.evidence, grids[0])
                if place is not None and crop_grid is not None:
                    boxes = [crop_box(card.box_xyxy_px, place) for card in question.evidence]
                    in_crop[row, column, 1 : room - 1] = _covered(boxes, crop_grid, TOKEN_PX)
        targets = [
            np.stack([dense_targets(prompt.scenes[i].cards, *grid, prompt.shrink) for prompt in prompts])
            for i, grid in enumerate(grids)
        ]
        marks = [
            np.concatenate([_marked(prompt.scenes[i].cards, grid, prompt.shrink) for i, grid in enumerate(grids)])
            for prompt in prompts
        ]
        batch = {
            "grids": grids,
            "images": [to_tensor([prompt.images[i] for prompt in prompts]) for i in range(len(grids))],
            "targets": [torch.from_numpy(target) for target in targets],
            "crops": None if crops is None else to_tensor(crops),
            **packed,
            "evidence": torch.from_numpy(np.stack(evidence).reshape(*shape, -1)),
            "parts": torch.from_numpy(np.stack([np.stack(pair) for pair in parts]).reshape(*shape, 2, -1)),
            "marks": torch.from_numpy(np.stack(marks)),
            "chains": torch.tensor([_chain(prompt.scenes[0].cards, grids, setting) for prompt in prompts]),
            "crop_evidence": torch.from_numpy(in_crop),
            "kinds": torch.tensor(kinds).view(shape),
            "asked": torch.tensor(asked).view(*shape, MAX_ASKED),
            "words": torch.tensor(words).view(*shape, MAX_ASKED),
            "counts": torch.tensor(counts).view(shape),
            "columns": torch.tensor(columns).view(*shape, 2),
            "shapes": torch.tensor(shapes).view(*shape, len(SHAPES)),
            "is_halftone": torch.tensor(halftone).view(shape),
        }
        if self.noise_size:
            batch["noise"] = torch.from_numpy(rng.standard_normal((*shape, self.noise_size)).astype(np.float32))
            batch["noise_scale"] = torch.from_numpy(rng.uniform(0.25, 1.75, size=shape).astype(np.float32))
            batch["is_near"] = torch.from_numpy(rng.random(shape) < 0.5)
        return batch

    def _words(self, question: Question, ids: torch.Tensor) -> list[int]:
        """Where in a block both digits or both colours are that a question names; -100 if it does not."""
        if question.kind not in NAME_TWO:
            return [IGNORE] * MAX_ASKED
        first, other = (
            (ids == self.tokenizer.convert_tokens_to_ids(word)).nonzero().flatten() for word in question.asked
        )
        if question.asked[0] == question.asked[1]:
            return [int(first[0]), int(first[1])]
        return [int(first[0]), int(other[0])]


@dataclass
class _Packed:
    """What one packed sequence is made of; `places` are the crops' corners, None where a question has no crop."""

    scenes: list[Scene]
    images: list[Image.Image]
    shrink: int
    questions: list[Question]
    places: list[tuple[int, int] | None]
    full: Image.Image | None = None

    def cut(self, rng: np.random.Generator, grid: Grid) -> list[Image.Image]:
        """Draws the places of crops and cuts them out; where a question has none, a crop that nobody sees."""
        assert self.full is not None
        for index, question in enumerate(self.questions):
            place = draw_crop(rng, self.full, question.evidence[0].box_xyxy_px, *grid)
            self.places[index] = None if rng.random() < GLANCE_SHARE else place
        return [crop(self.full, place or (0, 0), *grid) for place in self.places]


def _evidence(question: Question, cards: Sequence[Card], grids: Sequence[Grid], shrink: int) -> np.ndarray:
    """Visual tokens of the prefix that touch some cards of the evidence, bool [V]."""
    boxes = [card.box_xyxy_px for card in cards]
    return np.concatenate(
        [
            _covered(boxes, grid, TOKEN_PX * shrink) if index == question.picture else np.zeros(grid[0] * grid[1], bool)
            for index, grid in enumerate(grids)
        ]
    )


def _mark(card: Card, grid: Grid, shrink: int) -> int:
    """The visual token that stands for a card: of those of which it covers most, the first."""
    return int(box_coverage(card.box_xyxy_px, *grid, TOKEN_PX * shrink).argmax())


def _marked(cards: Sequence[Card], grid: Grid, shrink: int) -> np.ndarray:
    """Whether each visual token stands for a card, bool [V]."""
    marked = np.zeros(grid[0] * grid[1], dtype=bool)
    marked[[_mark(card, grid, shrink) for card in cards]] = True
    return marked


def _last_mark(cards: Sequence[Card], grid: Grid) -> np.ndarray:
    """The last of the tokens that stand for some cards, bool [V]; how many there are can be known there."""
    last = np.zeros(grid[0] * grid[1], dtype=bool)
    last[max(_mark(card, grid, 1) for card in cards)] = True
    return last


def _chain(cards: Sequence[Card], grids: Sequence[Grid], setting: str) -> list[list[int]]:
    """For every card of one full-size picture, in reading order: the token that stands for it, the index of its colour
    in ATTRIBUTES, and how many of that colour there are up to it, 1 to MAX_COUNT; -100 for what is not there.
    """
    chain = []
    if setting == "single":
        ordinals: dict[str, int] = {}
        for mark, color in sorted((_mark(card, grids[0], 1), card.color) for card in cards):
            ordinals[color] = min(ordinals.get(color, 0) + 1, MAX_COUNT)
            chain.append([mark, ATTRIBUTES.index(color), ordinals[color]])
    return chain + [[IGNORE] * 3] * (MAX_CARDS - len(chain))


def _columns(question: Question) -> list[float]:
    """Columns of visual tokens, from 0, in which the middles of the two cards of a question of kind side are."""
    if question.kind != "side":
        return [math.nan] * 2
    boxes = [card.box_xyxy_px for card in question.evidence]
    return [(box[0] + box[2] + 1) / 2 / TOKEN_PX - 0.5 for box in boxes]


def _shapes(question: Question) -> list[float]:
    """For each of SHAPES whether a card of the evidence of a question of kind exists has it."""
    if question.kind != "exists":
        return [math.nan] * len(SHAPES)
    there = {card.shape for card in question.evidence}
    return [float(shape in there) for shape in SHAPES]


def _covered(boxes, grid: Grid, token_px: int) -> np.ndarray:
    return (sum(box_coverage(box, *grid, token_px) for box in boxes) > 0).ravel()


def _pad(blocks: list[Block], shape: tuple[int, int], room: int) -> dict[str, torch.Tensor]:
    """Blocks as tensors; with `room` for a crop, the text of all blocks begins behind it."""
    starts = [0 if block.has_crop else room for block in blocks]
    length = max(start + len(block.ids) for start, block in zip(starts, blocks, strict=True))
    ids = np.full((len(blocks), length), NOTHING, dtype=np.int64)
    labels = np.full((len(blocks), length), IGNORE, dtype=np.int64)
    positions = np.zeros((len(blocks), 3, length), dtype=np.int64)
    last = np.zeros(len(blocks), dtype=np.int64)
    for row, (start, block) in enumerate(zip(starts, blocks, strict=True)):
        end = start + len(block.ids)
        ids[row, start:end], labels[row, start:end], positions[row, :, start:end] = (
            block.ids,
            block.labels,
            block.positions,
        )
        last[row] = start + block.last
    return {
        "ids": torch.from_numpy(ids).view(*shape, -1),
        "labels": torch.from_numpy(labels).view(*shape, -1),
        "positions": torch.from_numpy(positions).view(*shape, 3, -1),
        "last": torch.from_numpy(last).view(shape),
    }


def _weighted(rng: np.random.Generator, options: Sequence[Any], shares: Sequence[float]) -> Any:
    weights = np.array(shares)
    return options[int(rng.choice(len(options), p=weights / weights.sum()))]
