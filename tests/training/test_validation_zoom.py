"""Validation by zoom: its figures are those of its prefills, and TensorBoard has them."""

from __future__ import annotations

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gp.config import load_config
from gp.data.batch import Collator
from gp.data.datamodule import GlimpseDataModule
from gp.engine.prefill import crop_counts
from gp.training import train as runs
from gp.training.module import validation_pruner
from tests.support.micro_run import save_base, write_config

SHORT = ("optim.max_steps=2", "eval.after_training=false")
FIGURES = ("zoomed", "crops_per_question", "encoded_ratio")
ZOOM = ("trainer.val_pruner=zoom", "eval.methods.zoom.margin=0", "eval.methods.zoom.glance=0.5")


def test_figures_of_crops_reach_tensorboard(tmp_path):
    config = write_config(
        tmp_path, save_base(tmp_path / "base"), *ZOOM, "optim.max_steps=2", "eval.after_training=false"
    )
    model, folder, _ = runs.train(config)
    events = EventAccumulator(str(folder / "tb"))
    events.Reload()
    found = {
        name: events.Scalars(f"val/{name}")[-1].value for name in ("zoomed", "crops_per_question", "encoded_ratio")
    }
    pruner = validation_pruner(config, model)
    assert pruner.margin == 0
    crops, encoded, full = [], 0.0, 0
    for batch in GlimpseDataModule(config.data, Collator(model.processor)).eval_loader(config.data.val):
        done = model.prefill(batch.inputs, pruner)
        crops += [count for count, _ in crop_counts(done, batch.evidence_masks)]
        sizes = zip(done.layout.prompt_sizes, done.full_layout.prompt_sizes, strict=True)
        encoded, full = encoded + sum(seen / came for seen, came in sizes), full + len(batch)
    assert found["zoomed"] == pytest.approx(sum(count > 0 for count in crops) / full)
    assert found["crops_per_question"] == pytest.approx(sum(crops) / full)
    assert found["encoded_ratio"] == pytest.approx(encoded / full)


def test_only_a_glimpse_is_validated_so(tmp_path):
    write_config(tmp_path, "nowhere")
    with pytest.raises(ValueError, match=r"trainer\.val_pruner zoom: only task glimpse"):
        load_config(tmp_path / "micro.yaml", ["task=grpo", "trainer.val_pruner=zoom"])
    with pytest.raises(ValueError, match=r"trainer\.best_metric val/gate_auroc: a validation of task glimpse has no"):
        load_config(tmp_path / "micro.yaml", ["trainer.best_metric=val/gate_auroc"])
