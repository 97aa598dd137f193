"""`evaluate.py` with zoom on LLaVA: crops are cut from the shard's pictures, not from what the base sees of them."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from gp.training import train as runs
from tests.support import commands
from tests.support.eval_results import results_in
from tests.support.llava_bases import SIDE_PX
from tests.support.llava_bases import save_base as save_llava
from tests.support.micro_run import write_config
from tests.support.small_shards import write_tar

TIMES = 4  # a picture is so much larger than what the base sees
NOTE = """
from gp.backbones.originals import Originals
cut = Originals.crop
def noted(self, crops, grids):
    found = cut(self, crops, grids)
    with open({path!r}, "a") as file:
        for pixels in found["pixel_values"]:
            file.write(f"{{float(pixels.std())}}\\n")
    return found
Originals.crop = noted
"""


def striped_shard(path, count: int) -> str:
    """Lines of one pixel, black and white: grey in what the base sees."""
    side, files = TIMES * SIDE_PX, {}
    pixels = np.zeros((side, side, 3), dtype=np.uint8)
    pixels[:, ::2] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    fields = {"question": "what is here ?", "answer": "red", "boxes_xyxy_px": [[0, 0, 27, 27]], "dataset": "stripes"}
    fields |= {"width": side, "height": side, "split": "test"}
    for number in range(count):
        files[f"{number:04d}.png"] = buffer.getvalue()
        files[f"{number:04d}.json"] = json.dumps(fields | {"source_id": str(number)}).encode()
    return write_tar(path, files)


@pytest.mark.slow
def test_crops_are_of_the_pictures(tmp_path):
    config = write_config(tmp_path, save_llava(tmp_path / "base"))
    torch.manual_seed(0)
    parts = runs.build_model(config).save_pretrained(tmp_path / "parts")
    shard, note = striped_shard(tmp_path / "stripes.tar", 3), tmp_path / "note.txt"
    command = [f"ckpt={parts}", "--config", str(tmp_path / "micro.yaml"), "pruner=zoom", f"out={tmp_path / 'out'}"]
    more = [f"data.test.test=[{shard}]", "eval.costs=false", "eval.overlays=0", "eval.methods.zoom.margin=0"]
    more += ["budget=0.5"]  # untrained parts keep all or nothing by a threshold
    commands.finish(commands.begin_patched(tmp_path, NOTE.format(path=str(note)), *command, *more))
    (row,) = [rows for name, rows in results_in(tmp_path / "out").items() if "zoom" in str(name)]
    crops = sum(result["num_crops"] for result in row)
    assert crops >= 3 and len(note.read_text().split()) >= crops  # a rehearsal takes some, too
    whole = runs.build_model(config).processor.image_processor
    with Image.open(io.BytesIO(_png(shard))) as picture:
        blurred = float(whole(picture.convert("RGB"), return_tensors="pt")["pixel_values"].std())
    assert min(map(float, note.read_text().split())) > 1.5 * blurred


def _png(shard: str) -> bytes:
    with tarfile.open(shard) as file:
        return file.extractfile("0000.png").read()
