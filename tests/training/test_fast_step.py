"""What makes a training step of the embedded model fast changes no loss."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gp.config import load_config
from gp.data.batch import Batch, Collator
from gp.data.card_shards import CardSplit, ensure_card_shards
from gp.data.datamodule import GlimpseDataModule
from gp.engine.teacher_forcing import kept_bytes, teacher_forced
from gp.training.objective import StepLoss, batch_sums, kept_counts, step_loss
from gp.training.optimizer import adamw, parameter_groups
from gp.training.recomputing import SHARE, recomputes
from gp.training.train import build_model
from tests.support.glimpses import micro_glimpse
from tests.support.tiny_models import tiny_inputs, tiny_qwen

ROOT = Path(__file__).resolve().parents[2]
STEPS = 20


def both_losses(root: Path) -> tuple[list[float], list[float]]:
    """Losses of the first steps of `configs/tiny.yaml` on small scenes, the plain way and the fast way at the same
    weights; each step is followed by an update from the fast way's gradients.
    """
    shards = ensure_card_shards(root, "train@8x8", {"train": CardSplit("train", ("color", "conjunction"), 80, 1)})
    given = [f"data.train={[str(path) for path in shards]}", "data.num_workers=0", "data.batch_size=4"]
    config = load_config([ROOT / "configs/tiny.yaml"], given)
    model = build_model(config)
    assert model.backbone.takes_one_frame  # as the config says
    batches = iter(GlimpseDataModule(config.data, Collator(model.processor), config.seed).train_dataloader())
    optimizer = adamw(parameter_groups(model.glimpse.train(), config.optim), config.optim)

    def loss_of(batch: Batch, fast: bool) -> StepLoss:
        model.backbone.fast_tower = fast
        inputs, answers = batch.one_frame if fast else batch.inputs, (batch.answer_ids, batch.answer_mask)
        forced = teacher_forced(model.backbone, model.glimpse, inputs, *answers, recompute=not fast)
        sums = batch_sums(forced, batch.evidence_masks, *answers, kept_counts(forced, model.options))
        return step_loss(sums, config.loss)[0]

    found: tuple[list[float], list[float]] = [], []
    for _ in range(STEPS):
        batch = next(batches)
        plain, fast = loss_of(batch, False), loss_of(batch, True)
        fast.backward.backward()
        optimizer.step()
        optimizer.zero_grad()
        for losses, loss in zip(found, (plain, fast), strict=True):
            losses.append(float(loss.total))
    return found


@pytest.mark.slow
def test_the_same_losses_step_by_step(tmp_path):
    plain, fast = both_losses(tmp_path)
    assert fast == pytest.approx(plain, rel=1e-5)
    assert fast != plain  # two ways, not one twice
    assert min(plain[-5:]) < plain[0] / 2  # it learned


def test_layers_run_again_where_memory_is_short(monkeypatch):
    model = micro_glimpse(tiny_qwen())
    batch = Batch(tiny_inputs([([(4, 6)], 9)]), torch.ones(1, 3, dtype=torch.long), torch.ones(1, 3).bool(), [], [])
    length = batch.sent["input_ids"].shape[1] + 3 + 1
    # 4 layers; keys and values of 2 heads of 16, and repeated for all 4 heads; float32
    assert kept_bytes(model.backbone, 1, length) == 2 * 4 * length * (2 + 4) * 16 * 4
    for factor, again in ((1.01, False), (0.99, True)):
        free = factor * kept_bytes(model.backbone, 1, length) / SHARE
        monkeypatch.setattr("gp.training.recomputing.free_bytes", lambda device, free=free: free)
        assert recomputes("auto", model.backbone, batch) is again
    assert recomputes("always", model.backbone, batch) and not recomputes("never", model.backbone, batch)
