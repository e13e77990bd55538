"""Metrics, bootstrap, error taxonomy, tables, plots and exports: see PROTOCOLS.md."""

from lite_chex.evaluate.evaluation import Score, evaluate, score
from lite_chex.evaluate.export import to_json
from lite_chex.evaluate.inputs import EvalInput, read_eval_input
from lite_chex.evaluate.render import render
from lite_chex.evaluate.results import Comparison, Estimate, Evaluation, SystemResult

__all__ = [
    "Comparison",
    "Estimate",
    "EvalInput",
    "Evaluation",
    "Score",
    "SystemResult",
    "evaluate",
    "read_eval_input",
    "render",
    "score",
    "to_json",
]
