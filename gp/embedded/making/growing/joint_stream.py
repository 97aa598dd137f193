"""Batches of the joint stage: scenes of one size with several questions each, packed behind their images."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import IterableDataset

from gp.embedded.cards.layout import TOKEN_PX, box_coverage
from gp.embedded.cards.questions import Question, ask, ask_in_picture, ask_to_read, readable
from gp.embedded.cards.samples import CROPS, SAMPLE_KINDS
from gp.embedded.cards.scene import Scene, SceneBuilder
from gp.embedded.cards.views import crop, crop_box, draw_crop, half_copy
from gp.embedded.making.growing.blocks import IGNORE, NOTHING, Block, build_block
from gp.embedded.making.growing.dense import dense_targets
from gp.embedded.making.growing.images import sometimes_through_jpeg, to_tensor
from gp.embedded.making.growing.packing import Grid

# What a batch with one image asks: its share, and layouts with their shares and the kinds asked about each. All of a
# batch ask alike, since kinds that are learned late (side, exists, color_of) drown in batches of all kinds.
ASKED = (
    (0.32, {"color": (0.5, {"color": 1.0}), "conjunction": (0.5, {"conjunction": 1.0})}),
    (0.08, {"color": (1.0, {"turns": 1.0})}),
    (0.17, {"color": (1.0, {"color_of": 1.0})}),
    (0.14, {"color": (1.0, {"side": 1.0})}),
    (0.15, {"mixed": (0.7, {"exists": 1.0}), "conjunction": (0.3, {"exists": 1.0})}),
    (0.14, {"mixed": (1.0, {"count": 1.0})}),
)
GLANCE_SHARE = 1 / 3  # of the questions about a half-size copy, those that have no crop


@dataclass(frozen=True)
class JointBatch:
    """A kind of batch.

    Args:
        share: among all kinds.
        setting: "single" (one image), "pair" (two pictures) or "zoom" (half-size copy and crops).
        grids: rows and columns of each scene in visual tokens; one, or two for a pair.
        num_scenes: prompts' images per batch. num_questions: packed behind each.
    """

    share: float
    setting: str
    grids: tuple[Grid, ...]
    num_scenes: int
    num_questions: int


JOINT_BATCHES = (
    JointBatch(0.26, "single", ((8, 8),), 9, 10),
    JointBatch(0.04, "single", ((8, 16),), 6, 7),
    JointBatch(0.04, "single", ((16, 8),), 6, 7),
    JointBatch(0.04, "single", ((9, 14),), 6, 7),
    JointBatch(0.08, "single", ((12, 12),), 6, 9),
    JointBatch(0.06, "single", ((12, 16),), 4, 8),
    JointBatch(0.15, "single", ((16, 16),), 3, 12),
    JointBatch(0.03, "single", ((14, 18),), 3, 9),
    JointBatch(0.03, "single", ((20, 13),), 3, 9),
    JointBatch(0.03, "single", ((13, 20),), 3, 9),
    JointBatch(0.04, "single", ((20, 20),), 2, 12),
    JointBatch(0.08, "pair", ((8, 8), (8, 8)), 6, 7),
    JointBatch(0.04, "pair", ((10, 8), (8, 12)), 4, 8),
    JointBatch(0.09, "zoom", ((16, 16),), 5, 6),
    JointBatch(0.04, "zoom", ((12, 16),), 5, 6),
    JointBatch(0.04, "zoom", ((20, 20),), 4, 6),
)
VAL_BATCHES = (
    JointBatch(1, "single", ((8, 8),), 11, 9),
    JointBatch(1, "single", ((16, 16),), 4, 12),
    JointBatch(1, "single", ((20, 13),), 4, 12),
    JointBatch(1, "pair", ((8, 8), (8, 8)), 6, 9),
    JointBatch(1, "zoom", ((16, 16),), 5, 9),
)


class JointStream(IterableDataset):
    """Yields whole batches (dicts); batch `i` depends on the seed and `i` only.

    Args:
        builder: scene source.
        tokenizer: of the base.
        steps: numbers of the batches to yield.
        seed: the stream's.
        plans: kinds of batches, drawn by their share.
        noise_size: width of the vectors put in before answers; 0: nothing is put in and no position jumps.

    A batch has `grids`; `images`, uint8 [B, 3, H, W] for every image of the prefix; `targets`, int64 [B, 4, V] for
    each; `crops` uint8 [B * Q, 3, h, w] or None; `ids`, `labels` int64 [B, Q, T] and `positions` int64 [B, Q, 3, T]
    (see `Block`; ids NOTHING where there is no token); `last` int64 [B, Q]; `evidence` bool [B, Q, visual tokens of
    the prefix] and `crop_evidence` bool [B, Q, T]; `kinds` int64 [B, Q], indices of SAMPLE_KINDS;
    `is_halftone` bool [B, Q]; `noise` float32 [B, Q, noise_size], `noise_scale` and `is_near` [B, Q] (see
    `joint_stage.inserted_vectors`).
    """

    def __init__(self, builder: SceneBuilder, tokenizer, steps: range, seed: int,
                 plans: Sequence[JointBatch] = JOINT_BATCHES, noise_size: int = 0):  # fmt: skip
        super().__init__()
        self.builder, self.tokenizer, self.steps, self.seed = builder, tokenizer, steps, seed
        self.plans, self.noise_size = plans, noise_size

    def __iter__(self) -> Iterator[dict]:
        return map(self.batch, self.steps)

    def batch(self, step: int) -> dict[str, Any]:
        """Batch number `step`."""
        rng = np.random.default_rng([self.seed, step])
        shares = np.array([plan.share for plan in self.plans])
        plan = self.plans[int(rng.choice(len(self.plans), p=shares / shares.sum()))]
        asked = ASKED[int(rng.choice(len(ASKED), p=[share for share, _ in ASKED]))][1]
        prompts = [self._draw(rng, plan, asked) for _ in range(plan.num_scenes)]
        return self._collate(rng, plan, prompts)

    def _draw(self, rng: np.random.Generator, plan: JointBatch, asked: Mapping) -> "_Packed":
        """One packed sequence: scenes, images of the prefix, questions and their crops."""
        if plan.setting == "single":
            layout = _weighted(rng, {name: share for name, (share, _) in asked.items()})
            (scene,) = self._scenes(rng, plan, layout)
            kinds = [_weighted(rng, asked[layout][1]) for _ in range(plan.num_questions)]
            questions = [ask(rng, scene, kind) for kind in kinds]
            return _Packed([scene], [self._seen(rng, scene.image)], 1, questions, [None] * len(questions))
        layout = "color" if rng.random() < 0.7 else "conjunction"
        scenes = self._scenes(rng, plan, layout)
        if plan.setting == "pair":
            pair = (scenes[0], scenes[1])
            questions = [ask_in_picture(rng, pair, int(rng.integers(2))) for _ in range(plan.num_questions)]
            images = [self._seen(rng, scene.image) for scene in scenes]
            return _Packed(scenes, images, 1, questions, [None] * len(questions))
        cards = readable(scenes[0])
        questions = [
            ask_to_read(rng, cards[int(rng.integers(len(cards)))], scenes[0]) for _ in range(plan.num_questions)
        ]
        image = self._seen(rng, scenes[0].image)
        return _Packed(scenes, [half_copy(image)], 2, questions, [None] * len(questions), image)

    def _scenes(self, rng: np.random.Generator, plan: JointBatch, layout: str) -> list[Scene]:
        return [self.builder.build(int(rng.integers(2**40)), layout, *grid) for grid in plan.grids]

    def _seen(self, rng: np.random.Generator, image: Image.Image) -> Image.Image:
        return sometimes_through_jpeg(image, rng)

    def _collate(self, rng: np.random.Generator, plan: JointBatch, prompts: list["_Packed"]) -> dict[str, Any]:
        crop_grid, crops = None, None
        if plan.setting == "zoom":
            crop_grid = CROPS[int(rng.integers(len(CROPS)))]
            crops = [look for prompt in prompts for look in prompt.cut(rng, crop_grid)]
        grids = plan.grids if crop_grid is None else ((plan.grids[0][0] // 2, plan.grids[0][1] // 2),)
        blocks, kinds, halftone = [], [], []
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
                halftone.append(is_halftone)
        shape = (plan.num_scenes, plan.num_questions)
        room = 0 if crop_grid is None else crop_grid[0] * crop_grid[1] + 2
        packed = _pad(blocks, shape, room)
        evidence, in_crop = [], np.zeros((*shape, packed["ids"].shape[-1]), dtype=bool)
        for row, prompt in enumerate(prompts):
            for column, (question, place) in enumerate(zip(prompt.questions, prompt.places, strict=True)):
                evidence.append(_evidence(question, grids, prompt.shrink))
                if place is not None and crop_grid is not None:
                    boxes = [crop_box(card.box_xyxy_px, place) for card in question.evidence]
                    in_crop[row, column, 1 : room - 1] = _covered(boxes, crop_grid, TOKEN_PX)
        targets = [
            np.stack([dense_targets(prompt.scenes[i].cards, *grid, prompt.shrink) for prompt in prompts])
            for i, grid in enumerate(grids)
        ]
        batch = {
            "grids": grids,
            "images": [to_tensor([prompt.images[i] for prompt in prompts]) for i in range(len(grids))],
            "targets": [torch.from_numpy(target) for target in targets],
            "crops": None if crops is None else to_tensor(crops),
            **packed,
            "evidence": torch.from_numpy(np.stack(evidence).reshape(*shape, -1)),
            "crop_evidence": torch.from_numpy(in_crop),
            "kinds": torch.tensor(kinds).view(shape),
            "is_halftone": torch.tensor(halftone).view(shape),
        }
        if self.noise_size:
            batch["noise"] = torch.from_numpy(rng.standard_normal((*shape, self.noise_size)).astype(np.float32))
            batch["noise_scale"] = torch.from_numpy(rng.uniform(0.25, 1.75, size=shape).astype(np.float32))
            batch["is_near"] = torch.from_numpy(rng.random(shape) < 0.5)
        return batch


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


def _evidence(question: Question, grids: Sequence[Grid], shrink: int) -> np.ndarray:
    """Visual tokens of the prefix that touch the evidence, bool [V]."""
    boxes = [card.box_xyxy_px for card in question.evidence]
    return np.concatenate(
        [
            _covered(boxes, grid, TOKEN_PX * shrink) if index == question.picture else np.zeros(grid[0] * grid[1], bool)
            for index, grid in enumerate(grids)
        ]
    )


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


def _weighted(rng: np.random.Generator, shares: dict[str, float]) -> str:
    return list(shares)[int(rng.choice(len(shares), p=list(shares.values())))]
