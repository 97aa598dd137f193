"""Evaluation: methods side by side on held-out questions, resumable, with a table, a summary and a report."""

from gp.eval.evaluation import evaluate
from gp.eval.loading import load_run, out_folder
from gp.eval.process import Process
from gp.eval.rehearsal import rehearse_evaluation
from gp.eval.settings import weights_id

__all__ = ["Process", "evaluate", "load_run", "out_folder", "rehearse_evaluation", "weights_id"]
