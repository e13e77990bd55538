"""Agreement of annotators, and which labels they do not agree on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from lite_chex.annotate.items import NO_ANSWER
from lite_chex.annotate.store import SKIP, Judgement
from lite_chex.evaluate.reader_study import cohen
from lite_chex.findings import FindingSet


@dataclass(frozen=True)
class Agreement:
    """Agreement of two annotators: on ``n`` shared decisions, the share of equal ones, Cohen's kappa."""

    first: str
    second: str
    n: int
    agreement: float
    kappa: float | None


def kappa(first: Sequence[str], second: Sequence[str]) -> float | None:
    """Cohen's kappa (1960) of two annotators' decisions; None where chance agrees fully, or nothing is shared."""
    value = cohen(first, second)
    return None if math.isnan(value) else value


def by_item(judgements: Sequence[Judgement]) -> dict[str, dict[str, Judgement]]:
    """item -> annotator -> judgement, skipped ones left out."""
    found: dict[str, dict[str, Judgement]] = {}
    for judgement in judgements:
        if judgement.verdict != SKIP:
            found.setdefault(judgement.item, {})[judgement.annotator] = judgement
    return found


def _decisions(judgement: Judgement) -> list[str]:
    """What two annotators are compared on: a verdict on answers, a cell's error, or a cell's label."""
    if judgement.task == "compare":
        sides = sorted(judgement.detail[side]["answer"] for side in ("left", "right"))
        if judgement.verdict not in ("left", "right"):
            return [judgement.verdict]
        # Sides are drawn per person, so the answers are put into an order that is the same for both.
        return ["first" if judgement.detail[judgement.verdict]["answer"] == sides[0] else "second"]
    if judgement.task == "review":
        marks = list(judgement.detail["marks"])
        if judgement.detail["answer"] == NO_ANSWER:  # there was nothing to decide
            return []
        return ["format"] * len(marks) if judgement.detail["format"] else marks
    return list(judgement.detail["labels"])


def agreements(judgements: Sequence[Judgement]) -> list[Agreement]:
    """Agreement of every two annotators on the items of one task that both judged."""
    items = by_item(judgements)
    people = sorted({j.annotator for j in judgements})
    found = []
    for first, second in combinations(people, 2):
        a: list[str] = []
        b: list[str] = []
        for given in items.values():
            if first in given and second in given:
                a += _decisions(given[first])
                b += _decisions(given[second])
        if a:
            equal = sum(x == y for x, y in zip(a, b)) / len(a)
            found.append(Agreement(first, second, len(a), equal, kappa(a, b)))
    return found


def finding_kappas(judgements: Sequence[Judgement], findings: FindingSet) -> dict[str, tuple[int, float | None]]:
    """Per finding ``(n, kappa)`` over all pairs of annotators of label judgements, cells with ``x`` left out."""
    cells: dict[str, tuple[list[str], list[str]]] = {name: ([], []) for name in findings.names}
    for given in by_item(judgements).values():
        for first, second in combinations(sorted(given), 2):
            for name, a, b in zip(findings.names, given[first].detail["labels"], given[second].detail["labels"]):
                if "x" not in (a, b):
                    cells[name][0].append(a)
                    cells[name][1].append(b)
    return {name: (len(a), kappa(a, b)) for name, (a, b) in cells.items()}


def disagreements(judgements: Sequence[Judgement]) -> dict[str, list[Judgement]]:
    """item -> the first annotator's label judgement and the first that differs from it in any cell."""
    found = {}
    for item, given in by_item(judgements).items():
        first, *others = sorted(given.values(), key=lambda judgement: judgement.id)
        other = next((o for o in others if o.detail["labels"] != first.detail["labels"]), None)
        if other is not None:
            found[item] = [first, other]
    return found
