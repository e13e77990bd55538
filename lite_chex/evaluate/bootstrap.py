"""Paired bootstrap over reports: the same resamples for every system, in bounded memory.

A resample of n reports is a multinomial weight per report, and every metric is a function of confusion
counts, so a resample's counts are ``weights @ indicators``. Instead of B x n weights at once, the
reports are cut into blocks: how many of a resample's n draws fall into each block is multinomial, and
the draws inside a block are then uniform. That is the same distribution, needs only one block's weights
at a time, and turns the counting into matrix products. Weights are small integers, so that float32 sums
inside a block are exact. The draws depend on n and the seed alone: not on the systems, nor on the
length bins.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from lite_chex.evaluate.counts import ANSWERS, GOLDS, NOT_SCORED, CodeArray, errors_of_reports
from lite_chex.evaluate.results import Difference

FloatArray = npt.NDArray[np.float64]

BLOCK = 4096
BATCH = 1000
"""Reports per block (at most 65,536) and resamples per batch: together they bound the memory of the weights."""

CONFIDENCE = 0.95
POWER = 0.80


@dataclass(frozen=True)
class ResampledCounts:
    """confusion: float32 ``[B, groups, S, F, 4, 5]``; perfect: ``[B, groups, S]``; reports: ``[B, groups]``."""

    confusion: npt.NDArray[np.float32]
    perfect: npt.NDArray[np.float32]
    reports: npt.NDArray[np.float32]


def _occurring(codes: CodeArray) -> npt.NDArray[np.bool_]:
    systems, _, findings = codes.shape
    seen = np.zeros((systems, findings, NOT_SCORED + 1), dtype=bool)
    for s in range(systems):
        for f in range(findings):
            seen[s, f, np.bincount(codes[s, :, f], minlength=NOT_SCORED + 1) > 0] = True
    seen[..., NOT_SCORED] = False
    return seen


def _weights(rng: np.random.Generator, draws: npt.NDArray[np.integer], size: int) -> npt.NDArray[np.float32]:
    """How often each of ``size`` reports is drawn when resample b draws ``draws[b]`` of them, ``[B, size]``."""
    picks = rng.integers(0, size, size=int(draws.sum()), dtype=np.uint16)
    weights = np.empty((len(draws), size), dtype=np.float32)
    start = 0
    # Row by row stays in the cache: half the time of one bincount over all resamples.
    for row, end in zip(weights, np.cumsum(draws).tolist(), strict=True):
        row[:] = np.bincount(picks[start:end], minlength=size)
        start = end
    return weights


def _blocks(
    sums: npt.NDArray[np.floating], n: int, seed: int
) -> Iterator[tuple[npt.NDArray[np.floating], npt.NDArray[np.float32], slice]]:
    """Walk over batches of resamples (views of ``sums``, ``[B, ...]``) and blocks of reports, with the weights."""
    rng = np.random.default_rng(seed)
    starts = np.arange(0, n, BLOCK)
    sizes = np.minimum(BLOCK, n - starts)
    for first in range(0, len(sums), BATCH):
        batch = sums[first : first + BATCH]
        draws = rng.multinomial(n, sizes / n, size=len(batch))
        for block, (start, size) in enumerate(zip(starts.tolist(), sizes.tolist(), strict=True)):
            yield batch, _weights(rng, draws[:, block], size), slice(start, start + size)


def _indicators(
    codes: CodeArray, perfect: npt.NDArray[np.bool_], column_of: npt.NDArray[np.intp], columns: int
) -> npt.NDArray[np.float32]:
    """``[reports, columns + S + 1]``: which cells each report has, whether it is perfect, and a 1."""
    systems, size, findings = codes.shape
    table = np.zeros((size, columns + systems + 2), dtype=np.float32)
    rows = np.arange(size)
    for s in range(systems):
        for f in range(findings):
            table[rows, column_of[s, f, codes[s, :, f]]] = 1.0
        table[:, columns + s] = perfect[s]
    table[:, columns + systems] = 1.0
    return table[:, :-1]


def resample(
    codes: CodeArray, groups: npt.NDArray[np.integer], n_groups: int, resamples: int, seed: int
) -> ResampledCounts:
    """Confusion counts of every resample, apart for each group of reports (the length bins).

    codes: uint8 ``[S, n, F]``; groups: ``[n]``, values below n_groups.
    """
    systems, n, findings = codes.shape
    seen = _occurring(codes)
    columns = int(seen.sum())
    # Column of each (system, finding, code); what never occurs, and SKIP cells, go to a spare last one.
    column_of = np.full(seen.shape, columns + systems + 1, dtype=np.intp)
    column_of[seen] = np.arange(columns)
    sums = np.zeros((resamples, n_groups, columns + systems + 1), dtype=np.float32)
    perfect = errors_of_reports(codes) == 0
    for batch, weights, inside in _blocks(sums, n, seed):
        indicators = _indicators(codes[:, inside], perfect[:, inside], column_of, columns)
        for group in np.unique(groups[inside]).tolist():
            members = np.flatnonzero(groups[inside] == group)
            chosen = slice(None) if len(members) == len(indicators) else members
            batch[:, group] += weights[:, chosen] @ indicators[chosen]
    confusion = np.zeros((resamples, n_groups, *seen.shape), dtype=np.float32)
    confusion[:, :, seen] = sums[:, :, :columns]
    return ResampledCounts(
        confusion[..., :NOT_SCORED].reshape(resamples, n_groups, systems, findings, GOLDS, ANSWERS),
        sums[:, :, columns : columns + systems],
        sums[:, :, columns + systems],
    )


def resample_sums(values: FloatArray, resamples: int, seed: int) -> FloatArray:
    """Sums over resampled rows: ``[n, K]`` -> ``[B, K]``; the same draws as :func:`resample` for n and seed."""
    n = len(values)
    sums = np.zeros((resamples, values.shape[1]))
    for batch, weights, inside in _blocks(sums, n, seed):
        batch += weights @ values[inside]
    return sums


def interval(draws: FloatArray) -> tuple[FloatArray, FloatArray]:
    """95% percentile interval over axis 0; undefined resamples are left out, and NaN stands where there is no other."""
    tail = (1 - CONFIDENCE) / 2 * 100
    values = np.asarray(draws, dtype=np.float64)
    flat = values.reshape(len(values), math.prod(values.shape[1:]))
    bounds = np.full((2, flat.shape[1]), np.nan)
    defined = np.isfinite(flat)
    whole = defined.all(axis=0)
    if len(values):
        bounds[:, whole] = np.percentile(flat[:, whole], [tail, 100 - tail], axis=0)
        for column in np.flatnonzero(~whole & defined.any(axis=0)):
            bounds[:, column] = np.percentile(flat[defined[:, column], column], [tail, 100 - tail])
    shaped = bounds.reshape(2, *values.shape[1:])
    return shaped[0], shaped[1]


def differing(rows: npt.NDArray[np.generic]) -> npt.NDArray[np.int64]:
    """On how many reports each two systems are not the same: ``[S, n]`` or ``[S, n, F] -> [S, S]``."""
    cells = rows if rows.ndim == 3 else rows[..., None]
    return np.array([[(a != b).any(axis=1).sum() for b in cells] for a in cells], dtype=np.int64)


def p_value(differences: FloatArray, differing: int) -> float:
    """Two-sided bootstrap p of "no difference": twice the smaller share of resamples on either side of zero.

    One is added to both counts, so that p is never 0, and it is never below that of a sign test on the ``differing``
    reports: resampling three reports that all point one way always gives that way. NaN where no resample is defined.
    """
    values = differences[np.isfinite(differences)]
    if not len(values):
        return float("nan")
    tail = min(int((values <= 0).sum()), int((values >= 0).sum()))
    return min(1.0, max(2 * (tail + 1) / (len(values) + 1), 2.0 ** (1 - differing)))


def detectable(differences: FloatArray) -> float:
    """The smallest true difference that a two-sided test at 5% would find with 80% power here.

    (1.96 + 0.84) x the bootstrap standard error of the paired difference: a normal approximation. NaN where the
    difference does not vary, which says nothing about others.
    """
    values = differences[np.isfinite(differences)]
    if len(values) < 2 or np.ptp(values) == 0:
        return float("nan")
    normal = NormalDist()
    factor = normal.inv_cdf(1 - (1 - CONFIDENCE) / 2) + normal.inv_cdf(POWER)
    return float(factor * values.std(ddof=1))


def paired(a: float, b: float, draws_a: FloatArray, draws_b: FloatArray, differing: int) -> Difference:
    """b less a: the figures, their resamples ``[B]``, and on how many reports the two systems differ."""
    # Rounded, so that sums in another order do not turn "equal" into a difference of 1e-17, or of -0.
    difference, delta = np.round(draws_b - draws_a, 12) + 0.0, float(np.round(b - a, 12) + 0.0)
    low, high = interval(difference[:, None])
    figures = (delta, float(low[0]), float(high[0]), p_value(difference, int(differing)), detectable(difference))
    delta_, low_, high_, p, smallest = (x if math.isfinite(x) else None for x in figures)
    return Difference(delta_, low_, high_, p, int(differing), smallest)


def with_holm(differences: Sequence[Difference]) -> list[Difference]:
    """The same with p adjusted over all of them."""
    adjusted = holm([float("nan") if d.p is None else d.p for d in differences])
    return [replace(d, p_holm=None if d.p is None else p) for d, p in zip(differences, adjusted, strict=True)]


def holm(p_values: list[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the given order; NaN stays NaN and is no test."""
    order = sorted((i for i, p in enumerate(p_values) if p == p), key=lambda i: p_values[i])
    adjusted = [float("nan")] * len(p_values)
    running = 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(order) - rank) * p_values[i]))
        adjusted[i] = running
    return adjusted
