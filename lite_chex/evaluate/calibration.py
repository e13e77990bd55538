"""Are the probabilities honest? Reliability of the answers' own confidence, and its summary figures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lite_chex.evaluate import bootstrap as boot
from lite_chex.evaluate.inputs import EvalInput
from lite_chex.evaluate.protocols import protocol_named
from lite_chex.evaluate.results import Estimate
from lite_chex.evaluate.tables import Cell, Table, estimate_cell, number
from lite_chex.findings import SKIP, Certainty

BINS = 15
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """One system. confidence, accuracy, count: ``[BINS]`` over equal-width bins of confidence (NaN where empty).

    ece: expected calibration error (Guo et al. 2017), with its interval. brier: mean squared distance
    between the four probabilities and the gold's one-hot (two under ``presence``, where confidence is the
    probability of positive, and accuracy the share that is positive in the gold).
    """

    confidence: FloatArray
    accuracy: FloatArray
    count: npt.NDArray[np.int64]
    ece: Estimate
    brier: float
    presence: bool = False


def ece_of(sums: FloatArray) -> FloatArray:
    """``[..., 3, BINS]`` sums of count, confidence and correctness per bin -> ECE ``[...]``."""
    count, confidence, correct = sums[..., 0, :], sums[..., 1, :], sums[..., 2, :]
    total = count.sum(axis=-1)
    return np.abs(correct - confidence).sum(axis=-1) / np.where(total > 0, total, np.nan)


def calibrate(
    gold: npt.NDArray[np.int8],
    answers: npt.NDArray[np.int8],
    probabilities: npt.NDArray[np.float32],
    *,
    presence: bool = False,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Calibration | None:
    """Calibration of ``[n, F, 4]`` probabilities over the scored cells; None where there is no figure at all.

    The confidence of a cell is the probability of the answer that was given, and it is right where the
    answer is the gold. Under presence it is the probability of positive, and right where gold is positive.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    scored = (gold != SKIP) & np.isfinite(p).all(axis=-1)
    if not scored.any():
        return None
    safe = np.where(scored[..., None], p, 0.0)
    if presence:
        confidence, correct = safe[..., Certainty.POSITIVE], gold == Certainty.POSITIVE
        brier = 2 * (confidence - correct) ** 2
    else:
        confidence = np.take_along_axis(safe, answers[..., None].astype(np.intp), axis=-1)[..., 0]
        correct = answers == gold
        brier = ((safe - np.eye(4)[np.where(scored, gold, 0)]) ** 2).sum(axis=-1)
    bins = np.minimum((confidence * BINS).astype(np.intp), BINS - 1)
    n = len(gold)
    per_report = np.zeros((n, 3, BINS))
    rows = np.broadcast_to(np.arange(n)[:, None], bins.shape)
    for i, values in enumerate((scored, np.where(scored, confidence, 0.0), scored & correct)):
        np.add.at(per_report[:, i], (rows[scored], bins[scored]), values[scored])
    sums = per_report.sum(axis=0)
    drawn = boot.resample_sums(per_report.reshape(n, -1), bootstrap, seed).reshape(-1, 3, BINS)
    low, high = boot.interval(ece_of(drawn)[:, None])
    count = np.where(sums[0] > 0, sums[0], np.nan)
    bounds = [float(x[0]) if np.isfinite(x[0]) else None for x in (low, high)]
    return Calibration(
        confidence=sums[1] / count,
        accuracy=sums[2] / count,
        count=sums[0].astype(np.int64),
        ece=Estimate(float(ece_of(sums)), bounds[0], bounds[1], int(scored.sum())),
        brier=float(brier[scored].mean()),
        presence=presence,
    )


def calibrations(data: EvalInput, bootstrap: int = 1000, seed: int = 0) -> dict[str, Calibration]:
    """Calibration of every system that came with probabilities."""
    presence = protocol_named(data.protocol).presence
    found = {}
    for name, probabilities in data.probabilities.items():
        result = calibrate(
            data.gold, data.systems[name], probabilities, presence=presence, bootstrap=bootstrap, seed=seed
        )
        if result is not None:
            found[name] = result
    return found


def calibration_table(found: dict[str, Calibration]) -> Table:
    """ECE with its interval, and the Brier score."""
    rows = []
    for name, c in found.items():
        total = max(int(c.count.sum()), 1)
        mean, right = np.nansum(c.confidence * c.count) / total, np.nansum(c.accuracy * c.count) / total
        figures = (Cell(number(float(mean))), Cell(number(float(right))), Cell(number(c.brier)))
        rows.append([Cell(name), Cell(f"{c.ece.n:,}"), estimate_cell(c.ece), *figures])
    presence = any(c.presence for c in found.values())
    of, over = ("P(positive)", "positive or not") if presence else ("confidence in the answer", "the four certainties")
    caption = [
        f"n: scored cells with probabilities. ECE: expected calibration error over {BINS} equal-width bins of {of}, "
        f"95% bootstrap interval over reports; Brier: over {over}. 0 is best."
    ]
    columns = ["ECE", *(("P(pos.)", "positive\nin gold") if presence else ("confidence", "right")), "Brier"]
    return Table("calibration", "Calibration", caption, ["system", "n"], columns, rows, splittable=False)
