"""Evaluation: methods side by side on held-out questions, resumable, with a table, a summary and a report."""

from gp.eval.benches import find_bench
from gp.eval.evaluation import evaluate, make_trainer
from gp.eval.loading import check_before_loading, check_rows_before_training, find_run, load_model, load_run, out_folder
from gp.eval.rehearsal import rehearse_evaluation
from gp.eval.settings import weights_id

__all__ = [
    "check_before_loading",
    "check_rows_before_training",
    "evaluate",
    "find_bench",
    "find_run",
    "load_model",
    "load_run",
    "make_trainer",
    "out_folder",
    "rehearse_evaluation",
    "weights_id",
]
