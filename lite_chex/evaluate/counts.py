"""Confusion counts: the one thing that every metric of every protocol is a function of.

A scored cell is coded ``gold * 5 + prediction``: gold is a Certainty (4 rows), the prediction a
Certainty or :data:`UNREADABLE` (5 columns). A SKIP cell of the gold has the code :data:`NOT_SCORED`.
Keeping "no readable answer" as a column of its own lets one table of counts give both the scores,
in which such an answer is absent everywhere, and the error taxonomy, in which it is a format error.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from lite_chex.errors import UserError
from lite_chex.findings import SKIP, Certainty, LabelArray

CodeArray = npt.NDArray[np.uint8]
CountArray = npt.NDArray[np.int64]

GOLDS = len(Certainty)
UNREADABLE = len(Certainty)
ANSWERS = len(Certainty) + 1
NOT_SCORED = GOLDS * ANSWERS
ERROR_KINDS = ("missed", "hallucinated", "wrong_certainty", "format")


def to_presence(labels: LabelArray) -> LabelArray:
    """Positive stays positive; every other certainty becomes absent; SKIP stays SKIP."""
    keep = (labels == Certainty.POSITIVE) | (labels == SKIP)
    return np.where(keep, labels, np.int8(Certainty.ABSENT)).astype(np.int8)


def _check(values: LabelArray, shape: tuple[int, ...], what: str, allowed: set[int]) -> LabelArray:
    values = np.asarray(values)
    if values.shape != shape:
        raise UserError(f"{what} has the shape {values.shape}; the gold has {shape}: reports x findings must agree")
    strange = sorted(set(np.unique(values).tolist()) - allowed)
    if strange:
        row, column = np.argwhere(~np.isin(values, list(allowed)))[0]
        raise UserError(
            f"{what}, row {row + 1}, finding {column + 1}: {strange[0]} is no label "
            f"(0 positive, 1 negative, 2 uncertain, 3 absent{', -1 not scored' if int(SKIP) in allowed else ''})"
        )
    return values.astype(np.int8, copy=False)


def cell_codes(
    gold: LabelArray,
    systems: Mapping[str, LabelArray],
    format_errors: Mapping[str, npt.NDArray[np.bool_]] | None = None,
    presence: bool = False,
) -> CodeArray:
    """Code every cell: gold ``[n, F]`` and ``S`` predictions of that shape -> uint8 ``[S, n, F]``.

    presence collapses both sides to positive against the rest first. format_errors: per system, bool
    ``[n]``, True where there was no readable answer (the prediction's values are ignored there).

    Raises:
        UserError: where shapes disagree or a value is no label.
    """
    gold = np.asarray(gold)
    if gold.ndim != 2:
        raise UserError(f"the gold must be reports x findings, not of the shape {gold.shape}")
    certainties = {int(c) for c in Certainty}
    gold = _check(gold, gold.shape, "the gold", certainties | {int(SKIP)})
    if presence:
        gold = to_presence(gold)
    skipped = gold == SKIP
    codes = np.empty((len(systems), *gold.shape), dtype=np.uint8)
    for s, (name, values) in enumerate(systems.items()):
        unreadable = (format_errors or {}).get(name)
        values = np.asarray(values)
        if unreadable is not None and values.shape == gold.shape:
            values = np.where(np.asarray(unreadable, dtype=bool)[:, None], Certainty.ABSENT, values)
        predicted = _check(values, gold.shape, f'the prediction "{name}"', certainties)
        if presence:
            predicted = to_presence(predicted)
        codes[s] = gold * ANSWERS + predicted
        if unreadable is not None:
            rows = np.asarray(unreadable, dtype=bool)
            codes[s, rows] = (gold * ANSWERS + UNREADABLE)[rows].astype(np.uint8)
        codes[s, skipped] = NOT_SCORED
    return codes


def confusion(codes: CodeArray) -> CountArray:
    """Counts per system and finding: uint8 ``[S, n, F]`` -> int64 ``[S, F, 4, 5]``."""
    systems, _, findings = codes.shape
    counts = np.empty((systems, findings, NOT_SCORED), dtype=np.int64)
    for s in range(systems):
        for f in range(findings):
            counts[s, f] = np.bincount(codes[s, :, f], minlength=NOT_SCORED + 1)[:NOT_SCORED]
    return counts.reshape(systems, findings, GOLDS, ANSWERS)


def _wrong_codes() -> npt.NDArray[np.bool_]:
    wrong = np.ones(NOT_SCORED + 1, dtype=bool)
    wrong[[c * ANSWERS + c for c in range(GOLDS)]] = False
    wrong[NOT_SCORED] = False
    return wrong


WRONG = _wrong_codes()
"""``[21]``: True where a cell of that code is an error of any kind."""


def errors_of_reports(codes: CodeArray) -> npt.NDArray[np.int64]:
    """Wrong cells of each report: uint8 ``[S, n, F]`` -> int64 ``[S, n]``."""
    return WRONG[codes].sum(axis=2)


def scores_view(counts: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    """``[..., 4, 5] -> [..., 4, 4]``: an unreadable answer counts as absent."""
    table = np.asarray(counts, dtype=np.float64)
    merged = table[..., :GOLDS].copy()
    merged[..., Certainty.ABSENT] += table[..., UNREADABLE]
    return merged


def error_counts(counts: npt.NDArray[np.generic]) -> dict[str, npt.NDArray[np.float64]]:
    """Wrong cells by kind, summed over findings: ``[..., F, 4, 5]`` -> each ``[...]``.

    missed: gold mentions, the answer is absent. hallucinated: the answer mentions, gold is absent.
    wrong_certainty: both mention, differently. format: every scored cell of an unreadable answer.
    """
    c = np.asarray(counts, dtype=np.float64)
    absent = int(Certainty.ABSENT)
    both = c[..., :absent, :absent]
    return {
        "missed": c[..., :absent, absent].sum(axis=(-1, -2)),
        "hallucinated": c[..., absent, :absent].sum(axis=(-1, -2)),
        "wrong_certainty": both.sum(axis=(-1, -2, -3)) - np.trace(both, axis1=-2, axis2=-1).sum(axis=-1),
        "format": c[..., UNREADABLE].sum(axis=(-1, -2)),
    }
