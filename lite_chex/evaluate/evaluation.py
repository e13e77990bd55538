"""Score any number of systems against one gold, with intervals and paired comparisons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from lite_chex.errors import UserError
from lite_chex.evaluate import bootstrap as boot
from lite_chex.evaluate.counts import (
    ERROR_KINDS,
    NOT_SCORED,
    CodeArray,
    cell_codes,
    confusion,
    error_counts,
    errors_of_reports,
)
from lite_chex.evaluate.lengths import LENGTH_BINS, length_bins
from lite_chex.evaluate.protocols import (
    MIN_SUPPORT,
    BoolArray,
    CellCounts,
    FloatArray,
    Protocol,
    averaged_cells,
    cell_counts,
    kappa,
    protocol_named,
    rrg_f1,
    scores,
)
from lite_chex.evaluate.results import CellScore, Comparison, Difference, Estimate, Evaluation, SystemResult
from lite_chex.findings import SKIP, FindingSet, LabelArray


@dataclass(frozen=True)
class Score:
    """The figures that a training loop watches. None = undefined (the gold has none of it)."""

    macro_f1: float | None
    macro_f1_supported: float | None
    errors_per_report: float
    per_finding: dict[str, float | None]
    per_certainty: dict[str, float | None]


def _number(value: float | np.floating) -> float | None:
    return float(value) if np.isfinite(value) else None


def _estimates(
    values: FloatArray,
    draws: FloatArray,
    n: npt.NDArray[np.integer] | int,
    differing: npt.NDArray[np.int64],
    lower_is_better: bool = False,
) -> list[Estimate]:
    """One row of a table: values ``[S]`` with their resamples ``[B, S]`` and the reports on which each two systems
    differ ``[S, S]`` -> an Estimate per system."""
    sign = -1.0 if lower_is_better else 1.0
    low, high = boot.interval(draws)
    support = np.broadcast_to(np.asarray(n), values.shape)
    defined = np.isfinite(values)
    best = int(np.argmax(np.where(defined, sign * values, -np.inf))) if defined.any() else None
    row = []
    for s, value in enumerate(values):
        is_best = best is not None and bool(defined[s] and abs(value - values[best]) < 1e-12)
        tied = False
        if best is not None and defined[s] and not is_best and len(draws):
            d = boot.paired(values[s], values[best], draws[:, s], draws[:, best], differing[s, best])
            tied = d.low is not None and not d.resolved
        row.append(Estimate(_number(value), _number(low[s]), _number(high[s]), int(support[s]), is_best, tied))
    return row


def _rows(
    keys: tuple[str, ...],
    values: FloatArray,
    draws: FloatArray,
    n: npt.NDArray[np.integer],
    differing: npt.NDArray[np.int64],
) -> list[dict[str, Estimate]]:
    """values ``[S, K]``, draws ``[B, S, K]``, n ``[K]``, differing ``[K, S, S]`` or the same for all, ``[S, S]`` ->
    per system a dict over the keys."""
    each = np.broadcast_to(differing, (len(keys), *differing.shape[-2:]))
    columns = [_estimates(values[:, k], draws[:, :, k], int(n[k]), each[k]) for k in range(len(keys))]
    return [{key: columns[k][s] for k, key in enumerate(keys)} for s in range(len(values))]


def score(gold: LabelArray, pred: LabelArray, findings: FindingSet, protocol: str = "macro") -> Score:
    """The point figures of one system, without a bootstrap: cheap enough for every validation step.

    gold, pred: int8 ``[n, F]``; SKIP cells of the gold are not scored.
    """
    chosen = protocol_named(protocol)
    counts = confusion(cell_codes(gold, {"prediction": pred}, presence=chosen.presence))[0]
    cells = cell_counts(counts, chosen.cells)
    result = scores(cells, chosen, averaged_cells(cells.gold, chosen, findings))
    supported = scores(cells, chosen, averaged_cells(cells.gold, chosen, findings, MIN_SUPPORT))
    errors = float(sum(error_counts(counts).values()))
    reports = int((np.asarray(gold) != SKIP).any(axis=1).sum())
    return Score(
        macro_f1=_number(float(result.headline)),
        macro_f1_supported=_number(float(supported.headline)),
        errors_per_report=errors / max(reports, 1),
        per_finding={name: _number(v) for name, v in zip(findings.names, result.per_finding, strict=True)},
        per_certainty={name: _number(v) for name, v in zip(chosen.cells, result.per_cell, strict=True)},
    )


@dataclass(frozen=True)
class _Part:
    """Counts of a set of reports (all, or one length bin) with their resamples, for every system, and on how many of
    the reports each two systems differ."""

    counts: npt.NDArray[np.int64]
    draws: npt.NDArray[np.float32]
    differing: npt.NDArray[np.int64]

    @classmethod
    def of(cls, codes: CodeArray, draws: npt.NDArray[np.float32]) -> _Part:
        return cls(confusion(codes), draws, boot.differing(codes))

    def headline(self, protocol: Protocol, findings: FindingSet, at_least: int) -> tuple[FloatArray, FloatArray, int]:
        """Values ``[S]``, draws ``[B, S]`` and how many cells are averaged."""
        cells = cell_counts(self.counts, protocol.cells)
        averaged = averaged_cells(cells.gold[0], protocol, findings, at_least)
        drawn = scores(cell_counts(self.draws, protocol.cells), protocol, averaged).headline
        return scores(cells, protocol, averaged).headline, drawn, int(averaged.sum())


def evaluate(
    gold: LabelArray,
    systems: Mapping[str, LabelArray],
    findings: FindingSet,
    *,
    protocol: str = "macro",
    lengths: npt.NDArray[np.integer] | None = None,
    format_errors: Mapping[str, npt.NDArray[np.bool_]] | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    notes: list[str] | None = None,
) -> Evaluation:
    """Score every system against the gold on the same resamples.

    gold and each system: int8 ``[n, F]`` in the order of ``findings``; SKIP cells of the gold are not
    scored, and a report with no other cell is left out. lengths: tokens per report ``[n]`` (negative = not
    known). format_errors: per system, bool ``[n]``, True where there was no readable answer. bootstrap:
    resamples, 0 for no intervals.

    Raises:
        UserError: where there is nothing to score, shapes disagree, or a value is no label.
    """
    chosen = protocol_named(protocol)
    if not systems:
        raise UserError("there is no prediction to score: give at least one --pred NAME=FILE")
    if len(gold) == 0:
        raise UserError("the gold has no row: there is nothing to score")
    if bootstrap < 0:
        raise UserError(f"--bootstrap {bootstrap}: the number of resamples cannot be negative")
    codes = cell_codes(gold, systems, format_errors, chosen.presence)
    if codes.shape[2] != len(findings):
        raise UserError(f'the labels have {codes.shape[2]} columns, findings "{findings.name}" has {len(findings)}')
    scored = (codes[0] != NOT_SCORED).any(axis=1)
    if not scored.any():
        raise UserError("every cell of the gold is marked as not scored: there is nothing to score")
    codes = codes[:, scored]
    bins = np.zeros(codes.shape[1], dtype=np.int8) if lengths is None else length_bins(np.asarray(lengths)[scored])
    groups = len(LENGTH_BINS) + 1 if lengths is not None else 1
    drawn = boot.resample(codes, bins, groups, bootstrap, seed)
    whole = _Part.of(codes, drawn.confusion.sum(axis=1))
    parts = None
    if lengths is not None:
        parts = [_Part.of(codes[:, bins == b], drawn.confusion[:, b]) for b in range(len(LENGTH_BINS))]
    reports_in_bin = np.bincount(bins, minlength=groups)
    notes = list(notes or [])
    if n := int((~scored).sum()):
        notes.append(f"{n:,} gold {'row has' if n == 1 else 'rows have'} no cell to score: in no count.")
    return _assemble(
        chosen, findings, list(systems), codes, whole, parts, reports_in_bin, drawn.perfect.sum(axis=1), seed, notes
    )


def _assemble(
    protocol: Protocol,
    findings: FindingSet,
    names: list[str],
    codes: CodeArray,
    whole: _Part,
    parts: list[_Part] | None,
    reports_in_bin: npt.NDArray[np.integer],
    perfect_draws: npt.NDArray[np.float32],
    seed: int,
    notes: list[str],
) -> Evaluation:
    n, resamples = codes.shape[1], len(whole.draws)
    cells, drawn_cells = cell_counts(whole.counts, protocol.cells), cell_counts(whole.draws, protocol.cells)
    averaged = averaged_cells(cells.gold[0], protocol, findings)
    result, drawn = scores(cells, protocol, averaged), scores(drawn_cells, protocol, averaged)
    support = np.where(averaged, cells.gold[0], 0).astype(np.int64)
    # The cells of "chexpert" overlap (a mention may be a negation): the support of a finding is its mentions.
    finding_support = support[:, 0] if protocol.name == "chexpert" else support.sum(axis=1)
    supported_value, supported_draws, supported_cells = whole.headline(protocol, findings, MIN_SUPPORT)

    differing = whole.differing
    of_finding = np.stack([boot.differing(codes[:, :, f]) for f in range(len(findings))])
    macro = _estimates(result.headline, drawn.headline, int(finding_support.sum()), differing)
    supported = _estimates(supported_value, supported_draws, supported_cells, differing)
    per_finding = _rows(findings.names, result.per_finding, drawn.per_finding, finding_support, of_finding)
    per_certainty = _rows(tuple(protocol.cells), result.per_cell, drawn.per_cell, support.sum(axis=0), differing)
    per_length: list[dict[str, Estimate]] | None = None
    if parts is not None:
        bins = [part.headline(protocol, findings, 1) for part in parts]
        values, draws = np.stack([b[0] for b in bins], -1), np.stack([b[1] for b in bins], -1)
        differing_in_bin = np.stack([part.differing for part in parts])
        per_length = _rows(LENGTH_BINS, values, draws, reports_in_bin[: len(LENGTH_BINS)], differing_in_bin)

    kinds = error_counts(whole.counts)
    errors, error_draws = sum(kinds.values()) / n, sum(error_counts(whole.draws).values()) / n
    wrong = errors_of_reports(codes)
    wrong_differing = boot.differing(wrong)
    errors_row = _estimates(np.asarray(errors), np.asarray(error_draws), n, wrong_differing, lower_is_better=True)
    perfect, perfect_share = (wrong == 0).mean(axis=1), np.asarray(perfect_draws, dtype=np.float64) / n
    perfect_row = _estimates(perfect, perfect_share, n, boot.differing(wrong == 0))
    kappas, rrgs = _extras(protocol, findings, whole, codes, of_finding)

    systems = {
        name: SystemResult(
            name=name,
            macro_f1=macro[s],
            macro_f1_supported=supported[s],
            per_finding=per_finding[s],
            per_certainty=per_certainty[s],
            per_length=None if per_length is None else per_length[s],
            cells=_cell_scores(findings, protocol, cells, averaged, s),
            errors={kind: int(kinds[kind][s]) for kind in ERROR_KINDS},
            errors_per_report=errors_row[s],
            perfect_reports=perfect_row[s],
            kappa=None if kappas is None else kappas[s],
            rrg=None if rrgs is None else rrgs[s],
            confusion=whole.counts[s],
        )
        for s, name in enumerate(names)
    }
    emptied = averaged & (drawn_cells.gold[:, 0] == 0) if resamples else np.zeros((0, *averaged.shape), dtype=bool)
    return Evaluation(
        protocol=protocol,
        findings=findings,
        n=n,
        systems=systems,
        comparisons=[
            Comparison(a, b, f1, errors)
            for (a, b), f1, errors in zip(
                combinations(names, 2),
                _differences(result.headline, drawn.headline, differing),
                _differences(np.asarray(errors), np.asarray(error_draws), wrong_differing),
                strict=True,
            )
        ],
        bootstrap=resamples,
        seed=seed,
        supported_cells=supported_cells,
        averaged_cells=int(averaged.sum()),
        left_out=int(emptied.any(axis=(1, 2)).sum()),
        notes=[*notes, *_empty_findings(findings, finding_support)],
    )


def _empty_findings(findings: FindingSet, support: npt.NDArray[np.integer]) -> list[str]:
    names = [name for name, n in zip(findings.names, support.tolist(), strict=True) if not n]
    if not names:
        return []
    return [f"The gold has no label to score for {', '.join(names)}: undefined, and left out of the means."]


def _extras(
    protocol: Protocol, findings: FindingSet, whole: _Part, codes: CodeArray, differing: npt.NDArray[np.int64]
) -> tuple[list[dict[str, Estimate]] | None, list[dict[str, Estimate]] | None]:
    """Kappa per finding and the rrg-style F1; both need four certainties."""
    if protocol.presence:
        return None, None
    scored = whole.counts[0].sum(axis=(-1, -2))
    kappas = _rows(findings.names, kappa(whole.counts), kappa(whole.draws), scored, differing)
    values, draws = rrg_f1(whole.counts, findings), rrg_f1(whole.draws, findings)
    rrgs = _rows(
        tuple(values),
        np.stack(list(values.values()), -1),
        np.stack(list(draws.values()), -1),
        np.full(len(values), codes.shape[1]),
        whole.differing,
    )
    return kappas, rrgs


def _cell_scores(
    findings: FindingSet, protocol: Protocol, cells: CellCounts, averaged: BoolArray, s: int
) -> dict[str, dict[str, CellScore]]:
    f1, precision, recall = cells.f1()[s], cells.precision()[s], cells.recall()[s]
    gold = cells.gold[s]
    return {
        finding: {
            cell: CellScore(
                _number(f1[f, k]),
                _number(precision[f, k]),
                _number(recall[f, k]),
                int(gold[f, k]),
                bool(averaged[f, k]),
            )
            for k, cell in enumerate(protocol.cells)
        }
        for f, finding in enumerate(findings.names)
    }


def _differences(values: FloatArray, draws: FloatArray, differing: npt.NDArray[np.int64]) -> list[Difference]:
    """Of each pair of systems: values ``[S]``, draws ``[B, S]``, differing ``[S, S]``."""
    pairs = combinations(range(len(values)), 2)
    return boot.with_holm(
        [boot.paired(values[a], values[b], draws[:, a], draws[:, b], differing[a, b]) for a, b in pairs]
    )
