"""A text file of all logged figures, with wall and CPU seconds since the start."""

import time
from pathlib import Path

import lightning.pytorch as pl


class LogFile(pl.Callback):
    """Appends one line to `path` every `every` optimizer steps and after every validation, and prints it."""

    def __init__(self, path: Path, every: int):
        self.path, self.every = path, every

    def on_train_start(self, trainer, pl_module) -> None:
        self.wall_s, self.cpu_s = time.perf_counter(), time.process_time()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if trainer.global_step % self.every == 0:
            self._write(trainer, "train")

    def on_validation_end(self, trainer, pl_module) -> None:
        if not trainer.sanity_checking:
            self._write(trainer, "val")

    def _write(self, trainer, prefix: str) -> None:
        wall_s, cpu_s = time.perf_counter() - self.wall_s, time.process_time() - self.cpu_s
        figures = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith(prefix)}
        text = " ".join(f"{name}={value:.4g}" for name, value in sorted(figures.items()))
        line = f"step={trainer.global_step} wall_s={wall_s:.0f} cpu_s={cpu_s:.0f} {text}"
        print(line, flush=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
