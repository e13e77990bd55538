"""What is scored, and how it is averaged: the four protocols, kappa, and the rrg-style F1.

Every protocol is a set of *cells*: binary questions "is the label in this set of certainties?" that
are asked of each finding. F1 of a cell is 2 tp / (gold + predicted) over all scored reports, and is
undefined (NaN), never 0, where the gold has none. PROTOCOLS.md has the formulae in words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lite_chex.errors import UserError
from lite_chex.evaluate.counts import scores_view
from lite_chex.findings import MENTIONED, FindingSet

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

MIN_SUPPORT = 10
"""Cells with fewer gold labels than this are marked, and left out of ``macro_f1_supported``."""

_P, _N, _U = (int(c) for c in MENTIONED)


@dataclass(frozen=True)
class Protocol:
    """cells: name -> the certainties that count as "yes". weighted: F1 of a finding averages its cells
    by their gold counts (else equally). presence: both sides are collapsed to positive or not first.
    """

    name: str
    sentence: str
    cells: Mapping[str, tuple[int, ...]]
    weighted: bool = False
    presence: bool = False


PROTOCOLS: Mapping[str, Protocol] = {
    p.name: p
    for p in (
        Protocol(
            "macro",
            "mean over findings of the mean F1 over the certainties that gold contains",
            {"positive": (_P,), "negative": (_N,), "uncertain": (_U,)},
        ),
        Protocol(
            "chexbert",
            "mean over findings of F1 weighted by the gold counts of the certainties (blank excluded)",
            {"positive": (_P,), "negative": (_N,), "uncertain": (_U,)},
            weighted=True,
        ),
        Protocol(
            "chexpert",
            "mean over findings of mention, negation and uncertainty F1 (undefined left out)",
            {"mention": (_P, _N, _U), "negation": (_N,), "uncertainty": (_U,)},
        ),
        Protocol(
            "presence",
            "mean over findings of F1 of positive against everything else",
            {"positive": (_P,)},
            presence=True,
        ),
    )
}

RRG_FIVE = ("Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion")
"""The five findings that report-generation papers average beside all fourteen."""


def protocol_named(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        UserError: if there is none.
    """
    if name not in PROTOCOLS:
        raise UserError(f"--protocol {name}: there is no such protocol; choose one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


@dataclass(frozen=True)
class CellCounts:
    """tp, gold, predicted: each ``[..., F, K]`` for the K cells of a protocol."""

    tp: FloatArray
    gold: FloatArray
    predicted: FloatArray

    def f1(self) -> FloatArray:
        """NaN where gold has none."""
        total = np.where(self.gold > 0, self.gold + self.predicted, np.nan)
        return 2 * self.tp / total

    def precision(self) -> FloatArray:
        """NaN where nothing was predicted."""
        return self.tp / np.where(self.predicted > 0, self.predicted, np.nan)

    def recall(self) -> FloatArray:
        """NaN where gold has none."""
        return self.tp / np.where(self.gold > 0, self.gold, np.nan)


def cell_counts(counts: npt.NDArray[np.generic], cells: Mapping[str, tuple[int, ...]]) -> CellCounts:
    """Confusion counts ``[..., F, 4, 5]`` -> the binary counts of each cell, ``[..., F, K]``."""
    table = scores_view(counts)
    gold_margin, predicted_margin = table.sum(axis=-1), table.sum(axis=-2)
    tp, gold, predicted = [], [], []
    for members in cells.values():
        chosen = list(members)
        tp.append(table[..., chosen, :][..., chosen].sum(axis=(-1, -2)))
        gold.append(gold_margin[..., chosen].sum(axis=-1))
        predicted.append(predicted_margin[..., chosen].sum(axis=-1))
    return CellCounts(np.stack(tp, -1), np.stack(gold, -1), np.stack(predicted, -1))


def averaged_cells(gold: FloatArray, protocol: Protocol, findings: FindingSet, at_least: int = 1) -> BoolArray:
    """``[F, K]``: the cells that means average, fixed on the gold counts ``[F, K]`` of the full test set.

    No Finding is only ever positive or absent, so a negative or uncertain of it is never averaged.
    """
    active = gold >= at_least
    if findings.has_no_finding:
        active[-1] &= [_P in members for members in protocol.cells.values()]
    return active


@dataclass(frozen=True)
class Scores:
    """cells ``[..., F, K]``; per_finding ``[..., F]``; per_cell ``[..., K]``; headline ``[...]``. NaN = undefined."""

    cells: FloatArray
    per_finding: FloatArray
    per_cell: FloatArray
    headline: FloatArray


def _mean(values: FloatArray, weights: FloatArray, axis: int) -> FloatArray:
    total = weights.sum(axis=axis)
    summed = np.where(weights > 0, np.nan_to_num(values) * weights, 0.0).sum(axis=axis)
    return summed / np.where(total > 0, total, np.nan)


def scores(counts: CellCounts, protocol: Protocol, averaged: BoolArray) -> Scores:
    """Average the cells. A cell that has no gold in these counts (a resample) is left out of the means."""
    f1 = counts.f1()
    present = averaged & (counts.gold > 0)
    weights = np.where(present, counts.gold if protocol.weighted else 1.0, 0.0)
    per_finding = _mean(f1, weights, axis=-1)
    return Scores(
        cells=f1,
        per_finding=per_finding,
        per_cell=_mean(f1, present.astype(np.float64), axis=-2),
        headline=_mean(per_finding, np.isfinite(per_finding).astype(np.float64), axis=-1),
    )


def kappa(counts: npt.NDArray[np.generic]) -> FloatArray:
    """Cohen's kappa over the four certainties per finding, ``[..., F, 4, 5] -> [..., F]``.

    NaN where chance agreement is complete (one class on both sides) or nothing was scored.
    """
    table = scores_view(counts)
    n = table.sum(axis=(-1, -2))
    safe = np.where(n > 0, n, np.nan)
    observed = np.trace(table, axis1=-2, axis2=-1) / safe
    expected = (table.sum(axis=-1) * table.sum(axis=-2)).sum(axis=-1) / safe**2
    return (observed - expected) / np.where(expected < 1, 1 - expected, np.nan)


def rrg_f1(counts: npt.NDArray[np.generic], findings: FindingSet) -> dict[str, FloatArray]:
    """F1 as report-generation papers give it: positive or uncertain against the rest.

    ``[..., F, 4, 5]`` -> micro and macro over all findings and over :data:`RRG_FIVE`, each ``[...]``.
    As in the original, a finding that neither side has counts 0 in the macro means.
    """
    binary = cell_counts(counts, {"present": (_P, _U)})
    tp, total = binary.tp[..., 0], (binary.gold + binary.predicted)[..., 0]
    five = [i for i, name in enumerate(findings.names) if name in RRG_FIVE]
    result: dict[str, FloatArray] = {}
    for label, chosen in (("all", list(range(len(findings)))), ("five", five)):
        if not chosen:
            continue
        t, d = tp[..., chosen], total[..., chosen]
        result[f"micro_{label}"] = 2 * t.sum(axis=-1) / np.where(d.sum(axis=-1) > 0, d.sum(axis=-1), np.nan)
        result[f"macro_{label}"] = np.where(d > 0, 2 * t / np.where(d > 0, d, 1.0), 0.0).mean(axis=-1)
    return result
