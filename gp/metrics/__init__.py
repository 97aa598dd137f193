"""Metrics, as sums and counts: exact on any number of ranks, and over any order of batches."""

from gp.metrics.answers import AnswerScores, exact_match, normalize_answer
from gp.metrics.calibration import Calibration, calibration_counts
from gp.metrics.keep_ratio import KeepRatio
from gp.metrics.mask import EvidenceRecall, MaskScores, MeanMaskIoU, mask_counts
from gp.metrics.scorers import SCORERS, AnswerScorers
from gp.metrics.shares import CropShares, MeanShares, crop_shares

__all__ = [
    "SCORERS",
    "AnswerScorers",
    "AnswerScores",
    "Calibration",
    "CropShares",
    "EvidenceRecall",
    "KeepRatio",
    "MaskScores",
    "MeanMaskIoU",
    "MeanShares",
    "calibration_counts",
    "crop_shares",
    "exact_match",
    "mask_counts",
    "normalize_answer",
]
