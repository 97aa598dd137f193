"""Metrics, as sums and counts: exact on any number of ranks, and over any order of batches."""

from gp.metrics.answers import AnswerScores, exact_match, normalize_answer
from gp.metrics.calibration import Calibration, calibration_counts
from gp.metrics.keep_ratio import KeepRatio
from gp.metrics.mask import EvidenceRecall, MaskScores, mask_counts
from gp.metrics.scorers import SCORERS, AnswerScorers
from gp.metrics.shares import MeanShares

__all__ = [
    "SCORERS",
    "AnswerScorers",
    "AnswerScores",
    "Calibration",
    "EvidenceRecall",
    "KeepRatio",
    "MaskScores",
    "MeanShares",
    "calibration_counts",
    "exact_match",
    "mask_counts",
    "normalize_answer",
]
