"""What an annotator is shown: a report with one or two answers, under a key that outlives the server."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from lite_chex.annotate.sources import System
from lite_chex.data.records import Report
from lite_chex.findings import Certainty, FindingSet

NO_ANSWER = ""
"""The answer text of a system that has no row for a report: it could not be read."""


@dataclass(frozen=True)
class Answer:
    """One answer text (JSON, or :data:`NO_ANSWER`), and the systems that gave it; the page never sees these."""

    text: str
    systems: tuple[str, ...]


@dataclass(frozen=True)
class Item:
    """One thing to judge.

    key: a hash of task, report and answers. The same pair of answers is the same item whichever
    systems gave it, and an item whose report or answers changed is a new one. answers: two for
    compare, ordered by text, one for review and label, none for a label without a draft.
    """

    key: str
    task: str
    study_id: str
    finding_set: str
    report: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Draft:
    """An item with what decides its place: more informative first. probabilities: of the one answer."""

    item: Item
    informativeness: float = 0.0
    probabilities: npt.NDArray[np.float32] | None = None


def make_item(task: str, findings: FindingSet, study_id: str, report: str, answers: tuple[Answer, ...]) -> Item:
    """An item with its key. A reader study judges each system's output, so there the system is in the key."""
    if task == "compare":  # sides are drawn from the order, which must not be that of --pred
        answers = tuple(sorted(answers, key=lambda answer: answer.text))
    texts = [a.text for a in answers]
    systems = [list(a.systems) for a in answers] if task == "review" else []
    parts = ["label" if task == "adjudicate" else task, findings.name, study_id, report]
    # A draft is help, not part of the question: label items of two annotators must meet under one key.
    parts += [] if task in ("label", "adjudicate") else [texts, systems]  # type: ignore[list-item]
    digest = hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()[:24]
    prefix = {"compare": "c", "review": "r", "label": "l", "adjudicate": "a"}[task]
    return Item(prefix + digest, task, study_id, findings.name, report, answers)


def compare_items(reports: list[Report], systems: list[System], findings: FindingSet) -> list[Draft]:
    """Every pair of different answers to a report, once, whichever systems gave it."""
    drafts: dict[str, Draft] = {}
    for report in reports:
        given: dict[str, list[System]] = {}
        for system in systems:
            answer = system.answer(report.study_id, findings)
            if answer is not None:
                given.setdefault(answer, []).append(system)
        answers = [Answer(text, tuple(s.name for s in by)) for text, by in given.items()]
        for a, b in combinations(answers, 2):
            item = make_item("compare", findings, report.study_id, report.text, (a, b))
            pair = (given[a.text][0], given[b.text][0])
            drafts[item.key] = Draft(item, informativeness(*pair, report.study_id, findings))
    return list(drafts.values())


def review_items(reports: list[Report], systems: list[System], findings: FindingSet) -> list[Draft]:
    """One item per report and system; a system without a row for it gave no readable answer."""
    drafts = []
    for report in reports:
        for system in systems:
            text = system.answer(report.study_id, findings) or NO_ANSWER
            answers = (Answer(text, (system.name,)),)
            drafts.append(Draft(make_item("review", findings, report.study_id, report.text, answers)))
    return drafts


def label_items(reports: list[Report], draft: System | None, findings: FindingSet) -> list[Draft]:
    """One item per report, with the model's draft where there is one; the least certain drafts first."""
    drafts = []
    for report in reports:
        text = draft.answer(report.study_id, findings) if draft else None
        answers = (Answer(text, (draft.name,)),) if draft and text else ()
        probabilities = draft.probabilities.get(report.study_id) if draft else None
        doubt = 0.0 if probabilities is None else float(entropy(probabilities).sum())
        drafts.append(Draft(make_item("label", findings, report.study_id, report.text, answers), doubt, probabilities))
    return drafts


def informativeness(a: System, b: System, study_id: str, findings: FindingSet) -> float:
    """How much a verdict on two answers tells.

    Summed over the cells in which they differ: the entropy (in units of log 4) of the mean of the two
    systems' distributions, high where they disagree and where each is unsure; a system without
    probabilities counts as certain, so that without any the number of differing cells decides. Where both
    files have a ``reward`` column the sum is raised by up to 2, most where the reward model calls a draw.
    """
    left, right = a.labels(study_id), b.labels(study_id)
    assert left is not None
    assert right is not None
    mixture = (a.distribution(study_id) + b.distribution(study_id)) / 2
    score = float(entropy(mixture)[left != right].sum())
    if study_id in a.rewards and study_id in b.rewards:
        wins = 1 / (1 + np.exp(b.rewards[study_id] - a.rewards[study_id]))
        score *= 1 + 4 * wins * (1 - wins)
    return score


def entropy(distribution: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """``[..., 4] -> [...]``: entropy in units of log 4, so between 0 and 1."""
    p = np.clip(distribution, 1e-12, 1.0)
    return -(p * np.log(p)).sum(axis=-1) / np.log(len(Certainty))
