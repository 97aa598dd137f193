"""Questions whose answer pruning changed: which, in what order, and what their pictures show."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gp.eval import evaluate, load_run
from tests.support.eval_results import lines_of


def middles(num_tokens: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns in pixels of the tokens' middles; the grid of so many tokens that is most like the image."""
    grids = [(h, num_tokens // h) for h in range(1, num_tokens + 1) if num_tokens % h == 0]
    h, w = min(grids, key=lambda grid: abs(np.log(grid[0] / grid[1] * width / height)))
    return ((np.arange(h) + 0.5) / h * height).astype(int), ((np.arange(w) + 0.5) / w * width).astype(int)


def words(text: str) -> list[str]:
    return text.replace("?", "").split()


def failures_of(out: Path) -> dict[str, dict]:
    return {one["pruner"]: one for one in json.loads((out / "failures.json").read_text())}


def test_changed_questions_by_hand(evaluated: Path):
    """Most evidence lost first; every pruner at its first budget, which is its own decision here."""
    plain, found = lines_of(evaluated, "none-own"), failures_of(evaluated)
    assert list(found) == ["glimpse", "random", "oracle"]
    for pruner, one in found.items():
        lines = lines_of(evaluated, f"{pruner}-own")
        changed = {
            key: row for key, row in lines.items() if words(row["prediction"]) != words(plain[key]["prediction"])
        }
        assert (one["num_changed"], one["num_samples"]) == (len(changed), len(lines))
        lost = {key: row["fn"] / (row["tp"] + row["fn"]) for key, row in changed.items()}
        expected = sorted(changed, key=lambda key: (-lost[key], key))[:4]
        assert [shown["id"] for shown in one["shown"]] == expected
        for shown in one["shown"]:
            row = changed[shown["id"]]
            assert (shown["pruned"], shown["unpruned"]) == (row["prediction"], plain[shown["id"]]["prediction"])
            assert shown["evidence_lost"] == pytest.approx(lost[shown["id"]], abs=1e-6)
    assert found["glimpse"]["num_changed"] > 4 and found["oracle"]["shown"][0]["evidence_lost"] == 0


def test_pictures_darken_as_many_tokens_as_were_dropped(evaluated: Path, micro):
    """In the middle of each token, where no box is drawn in these images."""
    samples = {sample.id: sample for sample in micro.samples()}
    for one in failures_of(evaluated).values():
        for shown in one["shown"]:
            with Image.open(evaluated / shown["picture"]) as picture:
                painted = np.asarray(picture.convert("RGB"), dtype=int)
            image = np.asarray(samples[shown["id"]].image, dtype=int)
            assert painted.shape == image.shape
            rows, columns = middles(shown["num_visual"], *image.shape[:2])
            differs = (painted != image).any(-1)[rows][:, columns]
            assert differs.sum() == shown["num_visual"] - shown["num_kept"]


def test_none_are_shown_and_more_questions_than_asked_for_now(copied: Path, micro):
    """Answers of an earlier call with more questions are there: a picture of any of them can be made."""
    few = ["eval.pruners=[random]", "eval.num_samples=2", "eval.costs=false", "eval.overlays=0"]
    evaluate(*load_run(micro.ckpt, few), copied)
    assert len(failures_of(copied)["random"]["shown"]) == 4
    evaluate(*load_run(micro.ckpt, [*few, "eval.failures=0"]), copied)
    (one,) = [one for one in failures_of(copied).values() if one["pruner"] == "random"]
    assert one["shown"] == [] and one["num_changed"] > 0
    assert "answers changed" in (copied / "report.html").read_text()
