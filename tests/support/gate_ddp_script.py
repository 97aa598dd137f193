"""Run by tests/training/test_gate_ddp: task `gate` on one or two processes, step by step with the same global batches.

python -m tests.support.gate_ddp_script FOLDER NUM_PROCESSES BASE GLIMPSE
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from gp.config import load_config
from gp.data.batch import Collator
from gp.data.datamodule import GlimpseDataModule
from gp.loading import load_gate
from gp.training import train as runs
from gp.training.gate import GateModule, gate_of
from tests.support.micro_run import write_config

STEPS = 3
SHARES = {1: [range(5)], 2: [range(4), range(4, 5)]}  # of the 5 samples of each step: unequal ones


def by_text(said: str, answer: str) -> float:
    """Some answers are right and some are not: a random base has none right."""
    return float(sum((said + answer).encode()) % 2)


def main(folder: Path, num_processes: int, base: str, glimpse: str) -> None:
    """Writes `FOLDER/weights.pt`: the head behind every step, validation figures and the step's loss."""
    write_config(folder, base)
    settings = ("task=gate", f"gate.glimpse={glimpse}", f"optim.max_steps={STEPS}", f"trainer.devices={num_processes}")
    config = load_config(folder / "micro.yaml", [*settings, "trainer.gradient_clip_val=null"])
    runs.pl.seed_everything(0, verbose=False)
    model = load_gate(config)
    module, collator = GateModule(config, model), Collator(model.processor)
    module.look.scorer = by_text
    trainer = runs.make_trainer(config, folder / "run")
    loader = GlimpseDataModule(config.data, collator).val_dataloader()
    samples = [sample for batch in loader for sample in batch.samples]
    share = [samples[number] for number in SHARES[num_processes][trainer.global_rank]]
    trainer.fit(module, train_dataloaders=DataLoader([collator(share) for _ in range(STEPS)], batch_size=None))
    singles = [collator([sample]) for sample in share]
    (figures,) = trainer.validate(module, dataloaders=DataLoader(singles, batch_size=None), verbose=False)
    if trainer.is_global_zero:
        found = {"weights": gate_of(model).state_dict(), "figures": figures, "loss": float(module.loss_of_step)}
        torch.save(found, folder / "weights.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
