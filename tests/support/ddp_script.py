"""Run by test_ddp: gradients, losses and validation figures of one global batch on one or two processes.

python -m tests.support.ddp_script FOLDER NUM_PROCESSES [KEY=VALUE ...] BASE [BASE ...]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from gp.data.batch import Collator
from gp.data.datamodule import GlimpseDataModule
from gp.data.windows import StepWindows
from gp.training import train as runs
from gp.training.module import GlimpseModule
from tests.support.micro_run import write_config

# which of the 5 ragged samples each process gets, micro-batch by micro-batch: unequal shares
TRAIN = {
    (1, 1): [[range(5)]],
    (2, 1): [[range(3)], [range(3, 5)]],
    (1, 2): [[range(1), range(1, 5)]],
    (2, 2): [[range(2), range(2, 3)], [range(3, 4), range(4, 5)]],
}
VALIDATE = {1: [range(5)], 2: [range(4), range(4, 5)]}


class Recorder(runs.pl.Callback):
    """Keeps what the optimizer gets to see, and the losses of the step."""

    def on_before_optimizer_step(self, trainer, module, optimizer) -> None:
        self.gradients = {name: p.grad.clone() for name, p in module.model.glimpse.named_parameters()}

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        self.losses = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("train/")}


def main(folder: Path, num_processes: int, *given: str) -> None:
    """One after the other, each into a folder of its base's name; the first base with two micro-batches, too."""
    settings, bases = [one for one in given if "=" in one], [one for one in given if "=" not in one]
    for base in bases:
        run_one(folder / Path(base).name, base, num_processes, settings)
    run_one(folder / Path(bases[0]).name, bases[0], num_processes, settings, 2)


def run_one(
    folder: Path, base: str, num_processes: int, settings: Sequence[str] = (), num_micro_batches: int = 1
) -> None:
    overrides = ("optim.max_steps=1", "trainer.gradient_clip_val=null", f"trainer.devices={num_processes}", *settings)
    accumulate = f"trainer.accumulate_grad_batches={num_micro_batches}"
    config = write_config(folder, base, *overrides, accumulate)
    runs.pl.seed_everything(0, verbose=False)
    model = runs.build_model(config)
    module, recorder, collator = GlimpseModule(config, model), Recorder(), Collator(model.processor)
    trainer = runs.make_trainer(config, folder / "run")
    trainer.callbacks.append(recorder)
    loader = GlimpseDataModule(config.data, collator).val_dataloader()
    samples = [sample for batch in loader for sample in batch.samples]

    def taken(numbers: range) -> list:
        return [samples[number] for number in numbers]

    shares = TRAIN[num_processes, num_micro_batches][trainer.global_rank]
    loader = DataLoader([collator(taken(share)) for share in shares], batch_size=None)
    trainer.fit(module, train_dataloaders=StepWindows(loader, num_micro_batches))
    singles = [collator([sample]) for sample in taken(VALIDATE[num_processes][trainer.global_rank])]
    (figures,) = trainer.validate(module, dataloaders=DataLoader(singles, batch_size=None), verbose=False)
    if trainer.is_global_zero:
        found = {"gradients": recorder.gradients, "losses": recorder.losses, "figures": figures}
        torch.save(found, folder / f"processes{num_processes}x{num_micro_batches}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
