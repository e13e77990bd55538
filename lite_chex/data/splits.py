"""Splits in which no two parts share a patient or a report text.

Reports are joined into groups: two reports belong together if they have the same patient or the same
normalised text, directly or through others (the connected components of that relation). Whole groups
are dealt out, so templated normal reports and a patient's follow-ups never leak into the test.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from lite_chex.data.records import Report
from lite_chex.errors import UserError

_NOT_WORD = re.compile(r"[\W_]+")


def normalised_text(text: str) -> str:
    """A report's text without case, punctuation, masks of underscores and line breaks."""
    return _NOT_WORD.sub(" ", text.casefold()).strip()


def text_digest(text: str) -> str:
    """What stands for a report where its text must not: the beginning of its normalised text's SHA-256, 16 digits."""
    return hashlib.sha256(normalised_text(text).encode()).hexdigest()[:16]


def report_keys(report: Report) -> list[tuple[str, str]]:
    """What two splits must not share of a report: its patient and its normalised text, where it has them."""
    keys = []
    if report.patient_id:
        keys.append(("patient", report.patient_id))
    if text := normalised_text(report.text):
        keys.append(("text", text))
    return keys


def connected_groups(reports: Sequence[Report]) -> list[list[int]]:
    """Indices of the reports in groups that share patients or texts, in order of their first report.

    Reports without text are joined by their patient only, reports without a patient by their text only.
    """
    parent = list(range(len(reports)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[tuple[str, str], int] = {}
    for i, report in enumerate(reports):
        for key in report_keys(report):
            a, b = root(first.setdefault(key, i)), root(i)
            # The smaller index becomes the root, so that the groups' order needs no sorting.
            parent[max(a, b)] = min(a, b)
    groups: dict[int, list[int]] = {}
    for i in range(len(reports)):
        groups.setdefault(root(i), []).append(i)
    return list(groups.values())


def split_reports(reports: Sequence[Report], fractions: Mapping[str, float], seed: int) -> dict[str, list[int]]:
    """Deal the reports out to named splits; gives each split's indices, in order.

    The groups come in an order drawn from ``seed``; each goes to a split drawn with the room that is left
    in it as weight, among those that it fits into (the one with the most room where it fits nowhere). So
    sizes come as close to the fractions as whole groups allow, and large groups do not all go to one split.
    Every split gets a group as long as there are enough of them.

    Raises:
        UserError: if the fractions are not positive or do not add up to 1, or there are fewer groups than splits.
    """
    names = list(fractions)
    shares = np.array([fractions[name] for name in names], dtype=float)
    if not names or (shares <= 0).any() or abs(shares.sum() - 1) > 1e-6:
        given = ", ".join(f"{name}={share:g}" for name, share in fractions.items())
        raise UserError(f"split fractions must be above 0 and add up to 1, not {given or 'none'}")
    groups = connected_groups(reports)
    if len(groups) < len(names):
        raise UserError(
            f"{len(reports)} reports form {len(groups)} groups that share no patient or text: "
            f"too few for {len(names)} splits ({', '.join(names)})"
        )
    rng = np.random.default_rng(seed)
    room = shares * len(reports)
    dealt: list[list[list[int]]] = [[] for _ in names]
    for g, draw in zip(rng.permutation(len(groups)), rng.random(len(groups))):
        group = groups[g]
        fits = np.where(room >= len(group), room, 0.0).cumsum()
        to = int(np.searchsorted(fits, draw * fits[-1], side="right")) if fits[-1] > 0 else int(room.argmax())
        dealt[to].append(group)
        room[to] -= len(group)
    for to in range(len(names)):
        if not dealt[to]:
            giver = max(range(len(names)), key=lambda i: len(dealt[i]))
            smallest = min(dealt[giver], key=len)
            dealt[giver].remove(smallest)
            dealt[to].append(smallest)
    return {name: sorted(i for group in part for i in group) for name, part in zip(names, dealt)}


def check_disjoint(splits: Mapping[str, Sequence[Report]]) -> None:
    """Refuse splits of which two share a patient or a report text.

    Raises:
        UserError: naming the first two splits that do, and how many patients and texts they share.
    """
    keys = {name: {key for report in reports for key in report_keys(report)} for name, reports in splits.items()}
    names = list(splits)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            shared = keys[one] & keys[other]
            if shared:
                patients = sum(kind == "patient" for kind, _ in shared)
                texts = len(shared) - patients
                raise UserError(
                    f'splits "{one}" and "{other}" share {patients} patient{"s"[: patients != 1]} and '
                    f"{texts} report text{'s'[: texts != 1]}; split by patient and by text, never by row "
                    "(data.shared=leave_out keeps such reports in the later split alone)"
                )


def check_apart(reports: Iterable[Report], held_out: Iterable[Report], what: str) -> None:
    """Refuse a stream of reports (any number: none is kept) that shares a patient or a text with held-out ones.

    Raises:
        UserError: with how many reports of the stream do; ``what`` names it.
    """
    kept = {key for report in held_out for key in report_keys(report)}
    shared = sum(not kept.isdisjoint(report_keys(report)) for report in reports)
    if shared:
        raise UserError(
            f"{what}: {shared} of its reports share a patient or a text with the test split; leave them out, or "
            "the test says nothing"
        )


def without_shared(splits: Mapping[str, Sequence[Report]], keep: Sequence[str]) -> dict[str, list[Report]]:
    """The same splits without the reports that stand in the way of :func:`check_disjoint`.

    keep: names of splits, the most important first (``["test", "validation"]``); each keeps all that the
    ones before it leave, and the splits that are not named come last. For a release whose own splits go by
    patient alone: there, the same normal report stands in train and test.
    """
    order = [*keep, *(name for name in splits if name not in keep)]
    taken: set[tuple[str, str]] = set()
    kept: dict[str, list[Report]] = {}
    for name in order:
        kept[name] = [report for report in splits[name] if not taken.intersection(report_keys(report))]
        for report in kept[name]:
            taken.update(report_keys(report))
    return {name: kept[name] for name in splits}
