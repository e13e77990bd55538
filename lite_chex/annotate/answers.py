"""Two answers to each new report: the policy's own, and the likeliest challenger among the SFT policy's samples."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lite_chex.annotate.sources import REWARD_COLUMN
from lite_chex.data.files import atomic_path
from lite_chex.data.labels import label_cells, label_header
from lite_chex.data.records import Report
from lite_chex.findings import SKIP, FindingSet, LabelArray
from lite_chex.labelers.llm import probabilities_of
from lite_chex.labelers.runner import probability_header
from lite_chex.model.adapters import role
from lite_chex.train.examples import Examples
from lite_chex.train.preferences import sample_answers
from lite_chex.train.stages import StageLabeler

if TYPE_CHECKING:
    from rich.console import Console

    from lite_chex.recipe import Recipe


def two_answers(
    recipe: Recipe, reports: Sequence[Report], files: Mapping[str, Path], console: Console, seed: int
) -> int:
    """Write the label files ``policy`` and ``alternative`` of a run, and return how many reports are in them.

    policy: the greedy answer of the run's PPO, else of its SFT, with probabilities. alternative: of the SFT
    policy's greedy answer and samples that differ from it the one that the reward model (where the run has
    one; its score of both is written) likes best, so a verdict says where policy or reward model is wrong.
    Reports that do not fit the model, or whose answers are all the same, are in neither file.
    """
    wanted = recipe.model_copy(deep=True)
    wanted.eval.stages = ["best_of_k"]  # the reward adapter, where there is one
    labeller = StageLabeler(wanted, console)
    setup, findings = labeller.setup, recipe.findings
    unlabelled = np.full((len(reports), len(findings)), SKIP, dtype=np.int8)
    given = Examples(list(reports), unlabelled, np.ones(len(findings), dtype=bool), False, "new reports")
    examples, too_long = setup.within_length(given)
    if too_long:
        console.print(f"{too_long} reports longer than model.max_length left out", highlight=False)
    model, texts = setup.backbone.model, examples.texts
    with role(model, "sft"):
        samples = sample_answers(setup, texts, console, "answering new reports", seed)
    with role(model, "ppo" if "ppo" in labeller.stages else "sft"):
        said = setup.greedy(texts, samples.greedy)
    others = np.concatenate([samples.greedy[:, None], samples.sampled], axis=1)
    rewards = None
    if labeller.wanted:
        rewards = labeller.rewards(texts, np.concatenate([said.values[:, None], others], axis=1))
    differs = (others != said.values[:, None]).any(axis=-1)
    liking = np.zeros(differs.shape) if rewards is None else rewards[:, 1:]
    best = np.where(differs, liking, -np.inf).argmax(axis=1)
    rows = np.flatnonzero(differs.any(axis=1))
    ids = [examples.reports[i].study_id for i in rows]
    probabilities = probabilities_of(said.logits, said.values, findings)
    own = None if rewards is None else rewards[rows, 0]
    challenger = None if rewards is None else rewards[rows, 1 + best[rows]]
    _write(files["policy"], findings, ids, said.values[rows], own, probabilities[rows])
    _write(files["alternative"], findings, ids, others[rows, best[rows]], challenger)
    return len(rows)


def _write(
    path: Path,
    findings: FindingSet,
    ids: list[str],
    values: LabelArray,
    rewards: np.ndarray | None,
    probabilities: np.ndarray | None = None,
) -> None:
    """A label file with the columns that :mod:`lite_chex.annotate.sources` knows."""
    header = label_header(findings)
    header += probability_header(findings) if probabilities is not None else []
    header += [REWARD_COLUMN] if rewards is not None else []
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for i, study_id in enumerate(ids):
            row = [study_id, *label_cells(values[i])]
            row += [f"{p:.4f}" for p in probabilities[i].ravel()] if probabilities is not None else []
            row += [f"{rewards[i]:.4f}"] if rewards is not None else []
            writer.writerow(row)
