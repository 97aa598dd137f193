"""What a run shows and saves while it trains."""

from gp.training.callbacks.checkpointing import LastCheckpoint
from gp.training.callbacks.finite import FiniteNumbers
from gp.training.callbacks.kept_ratio import KeptRatio
from gp.training.callbacks.paint import PaintKept
from gp.training.callbacks.performance import Performance
from gp.training.callbacks.progress import TrainingProgress

__all__ = [
    "FiniteNumbers",
    "KeptRatio",
    "LastCheckpoint",
    "PaintKept",
    "Performance",
    "TrainingProgress",
]
