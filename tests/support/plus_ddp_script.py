"""Run by tests/training/grpo/test_ddp: one step of task `grpo` on one or two processes, with the same global batch.

python -m tests.support.plus_ddp_script FOLDER NUM_PROCESSES BASE
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from gp.data.batch import Collator
from gp.data.datamodule import GlimpseDataModule
from gp.training import train as runs
from gp.training.grpo.rewards import REWARDS, Reward
from gp.training.tasks import task_of
from tests.support.micro_plus import write_plus_config

# which of the 5 samples each process gets, micro-batch by micro-batch
SHARES = {1: [[range(5)]], 2: [[range(2), range(2, 3)], [range(3, 4), range(4, 5)]]}


class ByText(Reward):
    """Different scores for different answers: a random base has none right."""

    def start(self, answers):
        scores = [sum(one.said.encode()) % 7 / 6 for one in answers]
        return lambda: scores


class Recorder(runs.pl.Callback):
    """Keeps the gradients that the optimizer gets to see, and what is logged of the step."""

    def on_before_optimizer_step(self, trainer, module, optimizer) -> None:
        self.gradients = {name: weight.grad.clone() for name, weight in module._weights()}

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        self.figures = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("train/")}


def main(folder: Path, num_processes: int, base: str) -> None:
    """Writes `FOLDER/AGGREGATION.pt` with gradients and figures."""
    REWARDS["anls"] = lambda config: ByText()
    for aggregation in ("sequence", "token"):
        run_one(folder, num_processes, base, aggregation)


def run_one(folder: Path, num_processes: int, base: str, aggregation: str) -> None:
    shares = SHARES[num_processes]
    config = write_plus_config(
        folder / aggregation,
        base,
        "optim.max_steps=1",
        "trainer.gradient_clip_val=null",
        "grpo.temperature=1",
        f"loss.aggregation={aggregation}",
        f"trainer.devices={num_processes}",
        f"trainer.accumulate_grad_batches={len(shares[0])}",
    )
    runs.pl.seed_everything(0, verbose=False)
    model = runs.build_model(config)
    for number, weight in enumerate(weight for weight in model.base.parameters() if weight.requires_grad):
        generator = torch.Generator().manual_seed(number)
        weight.data = 0.1 * torch.randn(weight.shape, generator=generator)  # the KL divergence is not 0
    module, recorder, collator = task_of(config).module(config, model), Recorder(), Collator(model.processor)
    trainer = runs.make_trainer(config, folder / aggregation / "run")
    trainer.callbacks.append(recorder)
    loader = GlimpseDataModule(config.data, collator).val_dataloader()
    samples = [sample for batch in loader for sample in batch.samples]
    batches = [collator([samples[number] for number in share]) for share in shares[trainer.global_rank]]
    trainer.fit(module, train_dataloaders=DataLoader(batches, batch_size=None))
    if trainer.is_global_zero:
        torch.save({"gradients": recorder.gradients, "figures": recorder.figures}, folder / f"{aggregation}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
