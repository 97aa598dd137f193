"""Watching a prefill changes nothing."""

from __future__ import annotations

import torch

from gp.bench.presets import PRESETS, random_inputs, random_model
from gp.bench.timeline import Timeline
from gp.types import PruneOptions

TINY = PRESETS["tiny"]


KEEP = PruneOptions(fixed_keep_ratio=0.5)


def test_a_watched_prefill_is_the_same_and_nothing_stays_attached():
    model, inputs = random_model(TINY).eval(), random_inputs(TINY)
    expected = model.prefill(inputs, options=KEEP).logits
    methods = set(vars(model.backbone)), set(vars(model.glimpse))
    timeline = Timeline(model.backbone, model.glimpse, "cpu")
    with timeline.watching() as seconds:
        torch.testing.assert_close(model.prefill(inputs, options=KEEP).logits, expected)
    assert (set(vars(model.backbone)), set(vars(model.glimpse))) == methods
    assert min(seconds.values()) >= 0
