"""Pictures to begin with: scenes of the embedded test split and questions that the embedded base answers right."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gp.embedded.cards.samples import draw_sample
from gp.embedded.cards.scene import SceneBuilder

ROWS = COLUMNS = 16  # visual tokens of a scene
KINDS_AND_SEEDS = (("color", 3), ("conjunction", 5), ("count", 4), ("second", 3))


@dataclass(frozen=True)
class Example:
    """Pictures (files), a question about them and the right answer."""

    pictures: tuple[str, ...]
    question: str
    answer: str


def draw_examples(folder: str | Path) -> list[Example]:
    """Draws the examples and writes their pictures into a folder; the same ones every time."""
    builder = SceneBuilder("test")
    return [_draw(builder, kind, seed, Path(folder)) for kind, seed in KINDS_AND_SEEDS]


def _draw(builder: SceneBuilder, kind: str, seed: int, folder: Path) -> Example:
    sample = draw_sample(builder, kind, ROWS, COLUMNS, seed)
    paths = [folder / f"{kind}-{number}.png" for number in range(len(sample.images))]
    for path, image in zip(paths, sample.images, strict=True):
        image.save(path)
    return Example(tuple(map(str, paths)), sample.question.text, sample.question.answer)
