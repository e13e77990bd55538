"""Temperature per certainty: honest probabilities without another label (after Guo et al. 2017, one T per class).

With z the log-probabilities of a decision's allowed candidates, the calibrated ones are
``p_k ~ exp(z_k / T_k)``: four numbers for the whole model. Labels come from the logits as ever, so they
never change; the probability of the answer given need not be the largest any more.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lite_chex.data.files import atomic_path
from lite_chex.errors import UserError
from lite_chex.findings import CERTAINTY_WORDS, SKIP, FindingSet, LabelArray

FILE = "calibration.json"
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Calibration:
    """The temperatures of one adapter, in Certainty's order, and what they were fitted on.

    fingerprint: of the adapter. cells: scored free decisions of ``reports``; nll and ece (mean negative
    log-likelihood, expected calibration error) of those, before and after. The figures after are
    cross-fitted: each report under temperatures that were fitted without it.
    """

    temperatures: tuple[float, ...]
    fingerprint: str
    source: str
    reports: int
    cells: int
    nll_before: float
    nll_after: float
    ece_before: float
    ece_after: float

    def save(self, folder: Path) -> None:
        found = asdict(self) | {"temperatures": dict(zip(CERTAINTY_WORDS, self.temperatures, strict=True))}
        with atomic_path(folder / FILE) as temporary:
            temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Calibration | None:
        """The calibration beside an adapter, or None.

        Raises:
            UserError: if the file is not one that litechex calibrate wrote.
        """
        path = folder / FILE
        if not path.is_file():
            return None
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            named = found.pop("temperatures")
            temperatures = tuple(float(named[word]) for word in CERTAINTY_WORDS)
            made = cls(temperatures, **found)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{path}: is damaged; run litechex calibrate again, or remove it") from None
        if not all(np.isfinite(t) and t > 0 for t in temperatures):
            raise UserError(f"{path}: temperatures must be positive numbers; run litechex calibrate again")
        return made

    def describe(self) -> str:
        return f"calibrated on {self.source} ({self.cells:,} cells, ECE {self.ece_before:.3f} -> {self.ece_after:.3f})"


def log_probabilities(logits: FloatArray, values: LabelArray, findings: FindingSet) -> FloatArray:
    """``[n, T, 4]`` over the allowed candidates; a forced decision holds 0 at absent."""
    import torch

    from lite_chex.decode import decisions

    log_p, _ = decisions.log_probs(torch.from_numpy(logits), torch.from_numpy(values).long(), findings)
    return log_p.numpy()


def tempered(log_p: FloatArray, temperatures: npt.ArrayLike) -> FloatArray:
    """Calibrated log-probabilities of ``[..., 4]``; what was not allowed stays so."""
    z = log_p / np.asarray(temperatures, dtype=np.float32)
    z = z - z.max(axis=-1, keepdims=True)
    return (z - np.log(np.exp(z).sum(axis=-1, keepdims=True))).astype(np.float32)


def countable(log_p: FloatArray, gold: LabelArray) -> npt.NDArray[np.bool_]:
    """``[n, T]``: the cells that say something about confidence: scored, free to decide, and gold an allowed answer."""
    allowed = log_p > -1e8
    known = np.where(gold == SKIP, 0, gold)[..., None].astype(np.intp)
    return (gold != SKIP) & (allowed.sum(axis=-1) > 1) & np.take_along_axis(allowed, known, axis=-1)[..., 0]


def fit(log_p: FloatArray, gold: LabelArray) -> npt.NDArray[np.float64]:
    """Temperatures ``[4]`` that minimise the negative log-likelihood of ``gold`` ``[m]`` under ``log_p`` ``[m, 4]``.

    A standard normal prior on log T, of the weight of one cell, keeps them finite where a certainty never
    occurs or is never mistaken.
    """
    import torch
    from torch.nn.functional import nll_loss

    z = torch.from_numpy(np.asarray(log_p, dtype=np.float64))
    y = torch.from_numpy(gold.astype(np.int64))
    log_t = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_t], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        fitted = torch.log_softmax(z / log_t.exp(), dim=-1)
        loss = nll_loss(fitted, y) + log_t.square().sum() / (2 * max(len(y), 1))
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return log_t.detach().exp().numpy()


def cross_fitted(log_p: FloatArray, gold: LabelArray, usable: npt.NDArray[np.bool_], folds: int = 5) -> FloatArray:
    """Calibrated log-probabilities ``[n, T, 4]``, each report's by temperatures fitted on the other folds."""
    result = log_p.copy()
    fold = np.random.default_rng(0).permutation(len(log_p)) % folds
    for k in range(folds):
        rest = usable & (fold != k)[:, None]
        result[fold == k] = tempered(log_p[fold == k], fit(log_p[rest], gold[rest]))
    return result
