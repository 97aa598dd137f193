"""What a run shows and saves while it trains."""

from gp.training.callbacks.checkpointing import LastCheckpoint
from gp.training.callbacks.choosing import averaging_callbacks, choosing_callbacks
from gp.training.callbacks.finite import FiniteNumbers
from gp.training.callbacks.kept_ratio import KeptRatio
from gp.training.callbacks.paint import PaintKept
from gp.training.callbacks.performance import Performance
from gp.training.callbacks.progress import TrainingProgress
from gp.training.callbacks.settings import LogSettings

__all__ = [
    "FiniteNumbers",
    "KeptRatio",
    "LastCheckpoint",
    "LogSettings",
    "PaintKept",
    "Performance",
    "TrainingProgress",
    "averaging_callbacks",
    "choosing_callbacks",
]
