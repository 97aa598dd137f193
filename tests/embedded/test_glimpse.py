"""The glimpse of the embedded base as it ships: found by its name, trained by the config, small, and right."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
import torch

import gp
from gp.boxes import evidence_mask, normalize_boxes
from gp.config import load_config
from gp.embedded import GLIMPSE_DIR
from gp.embedded.cards.samples import draw_sample
from gp.embedded.cards.scene import SceneBuilder
from gp.eval.loading import find_checkpoint
from gp.formats.glimpse_folder import read_config

CONFIG = Path(__file__).parents[2] / "configs/tiny.yaml"
NUM = 6  # scenes; so few that they are quick


@pytest.fixture(scope="module")
def model():
    return gp.from_pretrained("tiny", glimpse="tiny")


def test_it_was_made_by_the_config():
    config, (base, glimpse, vip, options) = load_config(CONFIG), read_config(GLIMPSE_DIR)
    assert base["name"] == "tiny"
    assert asdict(glimpse) == asdict(config.glimpse)
    assert asdict(vip) == asdict(config.vip)
    assert options.threshold == config.prune.threshold
    assert config.loss.answer > 0  # the published loss, with its answer term
    assert find_checkpoint("tiny") == GLIMPSE_DIR


@pytest.mark.parametrize("kind", ["color", "conjunction"])
def test_few_tokens_are_kept_and_they_are_the_evidence(model, kind):
    builder = SceneBuilder("test")
    samples = [draw_sample(builder, kind, 16, 16, 10**6 + seed) for seed in range(NUM)]
    answers = [model.ask(sample.images[0], sample.question.text) for sample in samples]
    whole = [model.ask(sample.images[0], sample.question.text, pruner="none") for sample in samples]
    assert sum(answer.num_kept for answer in answers) <= 0.06 * 256 * NUM
    assert sum(a.text == w.text for a, w in zip(answers, whole, strict=True)) >= NUM - 1
    overlaps = [
        _iou(answer.keep_masks[0], sample.boxes_xyxy_px[0]) for answer, sample in zip(answers, samples, strict=True)
    ]
    assert sum(overlaps) / NUM > 0.6


def _iou(kept: torch.Tensor, boxes) -> float:
    evidence = evidence_mask(normalize_boxes(boxes, 448, 448), 16, 16)
    return float((kept & evidence).sum() / (kept | evidence).sum())
