"""The blinded reader study: readers counted errors in single outputs; the paper's Table 2 from the counts.

The file (CSV, JSONL or Parquet, as ``annotate`` exports it) has one row per reading: ``reader`` (or
``annotator``), ``study_id``, ``system`` and the counts ``missed``, ``hallucinated``,
``wrong_certainty`` and ``format``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lite_chex.data.readers import id_text
from lite_chex.data.tables import Table
from lite_chex.errors import UserError
from lite_chex.evaluate import bootstrap as boot
from lite_chex.evaluate.counts import ERROR_KINDS
from lite_chex.evaluate.results import Difference, Estimate

NAMES = {"reader": ("reader", "annotator"), "study_id": ("study_id",), "system": ("system", "version", "model")}
MOST = 3
"""Counts from here on are one category when readers' counts are compared."""

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Readings:
    """One row per reading: who read which report's output of which system, and the errors by kind ``[n, 4]``."""

    readers: list[str]
    studies: list[str]
    systems: list[str]
    counts: IntArray

    @property
    def errors(self) -> IntArray:
        """Errors of each reading, all kinds."""
        return self.counts.sum(axis=1)

    def of(self, system: str | None = None, reader: str | None = None) -> npt.NDArray[np.bool_]:
        """Which readings are of that system and by that reader."""
        mine = np.ones(len(self.readers), dtype=bool)
        if system is not None:
            mine &= np.array(self.systems) == system
        if reader is not None:
            mine &= np.array(self.readers) == reader
        return mine


@dataclass(frozen=True)
class ReaderFigures:
    """Table 2 of one system: over all readings (pooled), or over one reader's. kinds: mean errors by kind."""

    errors_per_report: Estimate
    perfect_reports: Estimate
    kinds: dict[str, float]


@dataclass(frozen=True)
class ReaderComparison:
    """Errors per report of b against a, over the n readings of a that have their like of b: one report, one reader."""

    a: str
    b: str
    n: int
    errors: Difference


@dataclass(frozen=True)
class Agreement:
    """Kappa of a group of readers over the n outputs that all of them read; None where undefined."""

    readers: tuple[str, ...]
    kind: str
    n: int
    perfect: float | None
    errors: float | None


@dataclass(frozen=True)
class ReaderStudy:
    """pooled: per system; single: per (system, reader). readings and reports: how many there are."""

    pooled: dict[str, ReaderFigures]
    single: dict[tuple[str, str], ReaderFigures]
    comparisons: list[ReaderComparison]
    agreement: list[Agreement]
    readings: int
    reports: int
    bootstrap: int
    seed: int


def read_reader_study(path: Path) -> Readings:
    """Read the counts.

    Raises:
        UserError: if a column is missing, a count is no whole number from 0, or a reading stands twice.
    """
    table = Table(path)
    chosen = []
    for meaning, names in NAMES.items():
        name = next((n for n in names if n in table.columns), None)
        if name is None:
            raise UserError(f'{path}: no column "{meaning}"; its columns are {", ".join(table.columns)}')
        chosen.append(name)
    lacking = [kind for kind in ERROR_KINDS if kind not in table.columns]
    if lacking:
        raise UserError(f"{path}: no column {', '.join(lacking)}; the counts are {', '.join(ERROR_KINDS)}")
    keys: list[tuple[str, str, str]] = []
    counts: list[list[int]] = []
    for row in table.rows([*chosen, *ERROR_KINDS]):
        if row.error:
            raise UserError(f"{path}: row {row.number} (the first is 0): {row.error}")
        reader, study, system = (id_text(cell) for cell in row.cells[:3])
        if not (reader and study and system):
            raise UserError(f"{path}: row {row.number} (the first is 0): reader, study_id and system must not be empty")
        by_kind = dict(zip(ERROR_KINDS, row.cells[3:], strict=True))
        if not any(id_text(cell) for cell in by_kind.values()):
            raise UserError(f"{path}: row {row.number} (the first is 0): no count; leave out what was not read")
        counts.append([_count(path, row.number, kind, by_kind.get(kind)) for kind in ERROR_KINDS])
        keys.append((reader, study, system))
    if not keys:
        raise UserError(f"{path}: has no readings")
    if len(set(keys)) < len(keys):
        reader, study, system = next(key for i, key in enumerate(keys) if key in keys[:i])
        raise UserError(f'{path}: reader "{reader}" read "{study}" of "{system}" twice; keep one row')
    return Readings([k[0] for k in keys], [k[1] for k in keys], [k[2] for k in keys], np.array(counts))


def _count(path: Path, row: int, kind: str, cell: object) -> int:
    text = id_text(cell)
    if not text:
        return 0
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not math.isfinite(value) or value < 0 or value != int(value):
        raise UserError(f'{path}: row {row} (the first is 0), column "{kind}": a whole number from 0 is expected')
    return int(value)


def cohen(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Cohen's kappa of two raters over the same items; NaN where chance agreement is complete."""
    first, second = np.asarray(a), np.asarray(b)
    if not len(first):
        return float("nan")
    classes = np.union1d(first, second)
    observed = float((first == second).mean())
    expected = float(sum((first == c).mean() * (second == c).mean() for c in classes))
    return (observed - expected) / (1 - expected) if expected < 1 else float("nan")


def fleiss(ratings: IntArray) -> float:
    """Fleiss' kappa, items x raters (>= 2) -> one figure; NaN where chance agreement is complete."""
    items, raters = ratings.shape
    classes = np.unique(ratings)
    if items == 0 or raters < 2:
        return float("nan")
    votes = np.stack([(ratings == c).sum(axis=1) for c in classes], axis=1)
    agreement = ((votes**2).sum(axis=1) - raters) / (raters * (raters - 1))
    expected = float(((votes.sum(axis=0) / (items * raters)) ** 2).sum())
    return (float(agreement.mean()) - expected) / (1 - expected) if expected < 1 else float("nan")


def _unique(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _figures(
    readings: Readings, chosen: npt.NDArray[np.bool_], studies: list[str], resamples: int, seed: int
) -> ReaderFigures:
    """The figures of some readings; a report's readings stay together in the bootstrap."""
    index = {study: i for i, study in enumerate(studies)}
    sums = np.zeros((len(studies), 3))
    for i in np.flatnonzero(chosen).tolist():
        sums[index[readings.studies[i]]] += (1, readings.errors[i], readings.errors[i] == 0)
    n = int(sums[:, 0].sum())
    drawn = boot.resample_sums(sums, resamples, seed)
    drawn = drawn / np.where(drawn[:, :1] > 0, drawn[:, :1], np.nan)
    low, high = boot.interval(drawn)
    errors, perfect = (Estimate(float(sums[:, k].sum() / n), _defined(low[k]), _defined(high[k]), n) for k in (1, 2))
    means = readings.counts[chosen].mean(axis=0).tolist()
    return ReaderFigures(errors, perfect, dict(zip(ERROR_KINDS, means, strict=True)))


def _defined(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _ratings(readings: Readings, group: Sequence[str]) -> IntArray:
    """Errors that each reader of the group counted, ``[items, readers]``, over the outputs that all of them read."""
    by_item: dict[tuple[str, str], dict[str, int]] = {}
    for i, item in enumerate(zip(readings.studies, readings.systems, strict=True)):
        by_item.setdefault(item, {})[readings.readers[i]] = int(readings.errors[i])
    shared = [[counts[r] for r in group] for counts in by_item.values() if all(r in counts for r in group)]
    return np.array(shared, dtype=np.int64).reshape(-1, len(group))


def _agreement(readings: Readings, readers: list[str]) -> list[Agreement]:
    found = []
    for pair in combinations(readers, 2):
        both = _ratings(readings, pair)
        capped = np.minimum(both, MOST)
        perfect, errors = cohen(both[:, 0] == 0, both[:, 1] == 0), cohen(capped[:, 0], capped[:, 1])
        found.append(Agreement(pair, "Cohen", len(both), _defined(perfect), _defined(errors)))
    if len(readers) > 2:
        every = _ratings(readings, readers)
        perfect, errors = fleiss((every == 0).astype(np.int64)), fleiss(np.minimum(every, MOST))
        found.append(Agreement(tuple(readers), "Fleiss", len(every), _defined(perfect), _defined(errors)))
    return found


def _comparisons(readings: Readings, resamples: int, seed: int) -> list[ReaderComparison]:
    """Each two systems, over the reports of which the same reader read both; all readings of a report together."""
    errors: dict[str, dict[tuple[str, str], int]] = {system: {} for system in _unique(readings.systems)}
    for i, key in enumerate(zip(readings.studies, readings.readers, strict=True)):
        errors[readings.systems[i]][key] = int(readings.errors[i])
    pairs, counts, found = list(combinations(errors, 2)), [], []
    for a, b in pairs:
        shared = [key for key in errors[a] if key in errors[b]]
        index = {study: i for i, study in enumerate(_unique([study for study, _ in shared]))}
        sums = np.zeros((len(index), 3))
        for key in shared:
            sums[index[key[0]]] += (1, errors[a][key], errors[b][key])
        counts.append(len(shared))
        if not shared:
            found.append(Difference(None, None, None, None, 0))
            continue
        drawn, total = boot.resample_sums(sums, resamples, seed), sums.sum(axis=0)
        means, means_drawn = total[1:] / total[0], drawn[:, 1:] / drawn[:, :1]
        differing = int((sums[:, 1] != sums[:, 2]).sum())
        found.append(boot.paired(means[0], means[1], means_drawn[:, 0], means_drawn[:, 1], differing))
    return [ReaderComparison(a, b, n, d) for (a, b), n, d in zip(pairs, counts, boot.with_holm(found), strict=True)]


def evaluate_reader_study(readings: Readings, bootstrap: int = 1000, seed: int = 0) -> ReaderStudy:
    """Table 2 pooled and per reader, the differences between systems, and the agreement of the readers."""
    readers, studies = _unique(readings.readers), _unique(readings.studies)
    pooled: dict[str, ReaderFigures] = {}
    single: dict[tuple[str, str], ReaderFigures] = {}
    for system in _unique(readings.systems):
        pooled[system] = _figures(readings, readings.of(system), studies, bootstrap, seed)
        for reader in readers:
            mine = readings.of(system, reader)
            if mine.any():
                single[system, reader] = _figures(readings, mine, studies, bootstrap, seed)
    return ReaderStudy(
        pooled=pooled,
        single=single,
        comparisons=_comparisons(readings, bootstrap, seed),
        agreement=_agreement(readings, readers),
        readings=len(readings.readers),
        reports=len(studies),
        bootstrap=bootstrap,
        seed=seed,
    )
