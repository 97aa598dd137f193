"""Through the command: every micro-batch knows what its optimizer step holds, wherever that begins and ends."""

from __future__ import annotations

import pytest

import train as script
from gp.training.module import GlimpseModule
from tests.support.micro_run import save_base, write_config

QUICK = ("eval.after_training=false", "trainer.paint_images=0", "trainer.val_every=99")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def steps(monkeypatch):
    """Micro-batches of every optimizer step: (images, answer tokens, counts of the step) each."""
    seen: list[list[tuple]] = [[]]
    stock = GlimpseModule.training_step

    def training_step(self, batch, batch_idx):
        seen[-1].append((len(batch.evidence_masks), int(batch.answer_mask.sum()), batch.counts))
        return stock(self, batch, batch_idx)

    def optimizer_steps(self, *arguments):
        seen.append([])

    monkeypatch.setattr(GlimpseModule, "training_step", training_step)
    monkeypatch.setattr(GlimpseModule, "on_before_optimizer_step", optimizer_steps)
    return seen


def run(folder, *overrides: str) -> int:
    return script.main(["--config", str(folder / "micro.yaml"), *QUICK, *overrides])


def check(steps: list[list[tuple]], sizes: list[int]) -> None:
    taken = [step for step in steps if step]
    assert [len(step) for step in taken] == sizes
    for step in taken:
        totals = (sum(images for images, *_ in step), sum(tokens for _, tokens, _ in step))
        assert {(counts.num_images, counts.num_answer_tokens) for *_, counts in step} == {totals}


@pytest.mark.parametrize("workers", [0, 1])
def test_every_step_of_a_run(tmp_path, base, steps, workers):
    write_config(tmp_path, base)
    assert (
        run(tmp_path, "trainer.accumulate_grad_batches=3", f"data.num_workers={workers}", "data.bucket_batches=2") == 0
    )
    check(steps, [3, 3, 3, 3])


def test_steps_that_an_epoch_cuts_short(tmp_path, base, steps):
    write_config(tmp_path, base)
    assert run(tmp_path, "trainer.accumulate_grad_batches=2", "trainer.extra.limit_train_batches=3") == 0
    check(steps, [2, 1, 2, 1])


def test_a_resumed_run_of_another_accumulation(tmp_path, base, steps):
    """Micro-batches are counted anew on resuming: the first step with another accumulation is a whole one."""
    write_config(tmp_path, base)
    assert run(tmp_path, "trainer.accumulate_grad_batches=2", "optim.max_steps=2") == 0
    assert run(tmp_path, "trainer.accumulate_grad_batches=3", "ckpt=last") == 0
    check(steps, [2, 2, 3, 3])
