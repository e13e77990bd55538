"""What an evaluation says: of each system, of each pair of systems, and of the test set."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from lite_chex.evaluate.protocols import Protocol
from lite_chex.findings import FindingSet


@dataclass(frozen=True)
class Estimate:
    """One figure with its 95% interval. None = undefined. n: its support (gold labels, or reports).

    best: no other system is better. tied: not the best, but the paired interval of its difference from
    the best holds zero.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    best: bool = False
    tied: bool = False


@dataclass(frozen=True)
class CellScore:
    """One finding at one certainty. averaged: whether means average it."""

    f1: float | None
    precision: float | None
    recall: float | None
    support: int
    averaged: bool


@dataclass(frozen=True)
class SystemResult:
    """Everything that is known of one system; the keys are findings, cells of the protocol, length bins.

    errors: wrong cells by kind (counts); errors_per_report and perfect_reports (a share) with intervals.
    confusion: int64 ``[F, 4, 5]`` (see counts.py). kappa and rrg are None under ``presence``.
    """

    name: str
    macro_f1: Estimate
    macro_f1_supported: Estimate
    per_finding: dict[str, Estimate]
    per_certainty: dict[str, Estimate]
    per_length: dict[str, Estimate] | None
    cells: dict[str, dict[str, CellScore]]
    errors: dict[str, int]
    errors_per_report: Estimate
    perfect_reports: Estimate
    kappa: dict[str, Estimate] | None
    rrg: dict[str, Estimate] | None
    confusion: npt.NDArray[np.int64] = field(repr=False)


FEWEST_DIFFERING = 6
"""Reports on which two systems must differ for a difference to be resolved: where five all point one way, a sign test
has p = .06, while every resample points that way too."""


@dataclass(frozen=True)
class Difference:
    """A figure of b less that of a, on the same resamples. None where undefined.

    differing: reports on which the two are not the same. p_holm: adjusted over all comparisons of this figure.
    detectable: see bootstrap.detectable.
    """

    delta: float | None
    low: float | None
    high: float | None
    p: float | None
    differing: int
    detectable: float | None = None
    p_holm: float | None = None

    @property
    def resolved(self) -> bool:
        """Whether the interval leaves zero out, and not for a handful of reports."""
        if self.low is None or self.high is None or self.differing < FEWEST_DIFFERING:
            return False
        return not self.low <= 0 <= self.high


@dataclass(frozen=True)
class Comparison:
    """Two systems: b against a, in macro F1 and in errors per report."""

    a: str
    b: str
    f1: Difference
    errors: Difference


@dataclass(frozen=True)
class Evaluation:
    """systems in the order given. left_out: resamples in which an averaged cell had no gold."""

    protocol: Protocol
    findings: FindingSet
    n: int
    systems: dict[str, SystemResult]
    comparisons: list[Comparison]
    bootstrap: int
    seed: int
    supported_cells: int
    averaged_cells: int
    left_out: int
    notes: list[str] = field(default_factory=list)
