"""Makes the README's pictures with the embedded model: `docs/images/scene.png` and `docs/images/kept.jpg`.

python docs/make_pictures.py
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from PIL import Image, ImageDraw

import gp
from gp.config import DataConfig
from gp.data.painting import paint_sample
from gp.data.sample import Sample, parse_record
from gp.data.shards import read_records, resolve_shards

IMAGES = Path(__file__).parent / "images"
EXAMPLES = {"tiny:test": 2, "tiny:test_hard": 2}
SIDE, GAP, CAPTION, FONT_SIZE = 336, 8, 30, 17
BLACK = 60  # grey value below which ink is


def samples(entry: str, count: int) -> list[Sample]:
    """The first samples of a split of the embedded data whose number a person can read in the picture."""
    shard = resolve_shards([entry], Path(DataConfig.root))[0]
    return list(islice(filter(is_legible, map(parse_record, read_records(shard, entry))), count))


def is_legible(sample: Sample) -> bool:
    """Whether the number is in black: some are drawn in single pixels, which vanish in a smaller picture."""
    small = sample.image.convert("L").reduce(2)
    left, top, right, bottom = (side / 2 for side in sample.boxes_xyxy_px[0])
    width, height = (right - left) / 5, (bottom - top) / 5  # of the edge, where the card's outline is black
    return small.crop((left + width, top + height, right - width, bottom - height)).getextrema()[0] < BLACK


def panel(model: gp.GlimpseModel, sample: Sample) -> Image.Image:
    """The scene above, what was kept of it below, with the question and the model's answer."""
    answer = model.ask(sample.image, sample.question)
    kept = paint_sample(sample, answer.keep_masks[0])
    out = Image.new("RGB", (SIDE, 2 * (SIDE + CAPTION)), "white")
    out.paste(sample.image.resize((SIDE, SIDE)), (0, 0))
    out.paste(kept.resize((SIDE, SIDE)), (0, SIDE + CAPTION))
    draw = ImageDraw.Draw(out)
    draw.text((2, SIDE + 5), sample.question, fill="black", font_size=FONT_SIZE)
    told = f"“{answer.text}”, from {answer.num_kept} of {answer.num_visual} visual tokens"
    draw.text((2, 2 * SIDE + CAPTION + 5), told, fill="black", font_size=FONT_SIZE)
    return out


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    model = gp.from_pretrained("tiny", glimpse="tiny")
    chosen = [sample for entry, count in EXAMPLES.items() for sample in samples(entry, count)]
    chosen[0].image.save(IMAGES / "scene.png")
    panels = [panel(model, sample) for sample in chosen]
    width = len(panels) * (SIDE + GAP) - GAP
    sheet = Image.new("RGB", (width, panels[0].height), "white")
    for number, one in enumerate(panels):
        sheet.paste(one, (number * (SIDE + GAP), 0))
    sheet.save(IMAGES / "kept.jpg", quality=88)
    print(f"scene.png: {chosen[0].question} {chosen[0].answer}")


if __name__ == "__main__":
    main()
