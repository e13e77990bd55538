"""Temperature per certainty: known temperatures come back, labels and forced decisions stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lite_chex.decode.temperature import (
    FILE,
    Calibration,
    countable,
    cross_fitted,
    fit,
    log_probabilities,
    tempered,
)
from lite_chex.errors import UserError
from lite_chex.findings import PAPER13, SKIP, Certainty

KNOWN = (2.0, 0.7, 1.3, 3.0)
MADE = Calibration(KNOWN, "abc", "gold.csv", 10, 130, 0.5, 0.4, 0.1, 0.02)


def drawn(n: int, temperatures: tuple[float, ...], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities ``[n, 4]`` and gold that follows them under the given temperatures."""
    rng = np.random.default_rng(seed)
    log_p = tempered(rng.normal(0, 3, (n, 4)).astype(np.float32), np.ones(4))
    noisy = tempered(log_p, temperatures) + rng.gumbel(size=(n, 4))
    return log_p, noisy.argmax(axis=1).astype(np.int8)


def nll(log_p: np.ndarray, gold: np.ndarray) -> float:
    return float(-log_p[np.arange(len(gold)), gold].mean())


def test_known_temperatures_come_back() -> None:
    log_p, gold = drawn(20_000, KNOWN)
    found = fit(log_p, gold)
    np.testing.assert_allclose(found, KNOWN, rtol=0.1)
    assert nll(tempered(log_p, found), gold) <= nll(tempered(log_p, KNOWN), gold) + 1e-5
    np.testing.assert_allclose(fit(*drawn(20_000, (1.0, 1.0, 1.0, 1.0), 1)), 1.0, rtol=0.1)


def test_a_certainty_that_never_occurs_stays_finite() -> None:
    log_p = np.log(np.array([[0.97, 0.01, 0.01, 0.01], [0.01, 0.97, 0.01, 0.01]], dtype=np.float32))
    found = fit(np.repeat(log_p, 50, axis=0), np.repeat([0, 1], 50).astype(np.int8))
    assert (found > 0.01).all()
    assert (found < 100).all()


def test_by_hand_and_forbidden_candidates_stay_out() -> None:
    half = np.log(np.array([0.5, 0.25, 0.25, 0.0], dtype=np.float32) + np.float32(1e-38))
    half[3] = -1e9
    # p ~ (.5^(1/2), .25, .25, 0) = (.7071, .25, .25, 0) / 1.2071
    p = np.exp(tempered(half, (2.0, 1.0, 1.0, 1.0)))
    np.testing.assert_allclose(p, [0.5858, 0.2071, 0.2071, 0.0], atol=1e-4)


def test_forced_decisions_stay_certain_and_are_not_counted() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, (40, 13, 4)).astype(np.float32)
    values = PAPER13.consistent(logits.argmax(-1).astype(np.int8))
    log_p = log_probabilities(logits, values, PAPER13)
    forced = PAPER13.vetoed(values)
    assert forced.any()
    p = np.exp(tempered(log_p, KNOWN))
    np.testing.assert_allclose(p.sum(-1), 1, atol=1e-5)
    np.testing.assert_array_equal(p[forced, -1], np.tile([0, 0, 0, 1], (forced.sum(), 1)))
    gold = values.copy()
    gold[0, 0] = SKIP
    usable = countable(log_p, gold)
    assert not usable[forced, -1].any()
    assert not usable[0, 0]
    assert usable[:, 1:-1].all()
    gold[~forced, -1] = Certainty.NEGATIVE  # never an answer for No Finding
    assert not countable(log_p, gold)[:, -1].any()


def test_cross_fitting_helps_on_reports_it_has_not_seen() -> None:
    log_p, gold = drawn(4_000, (3.0, 3.0, 3.0, 3.0), 2)
    after = cross_fitted(log_p.reshape(400, 10, 4), gold.reshape(400, 10), np.ones((400, 10), bool)).reshape(-1, 4)
    assert nll(after, gold) < nll(log_p, gold) - 0.1


def test_a_file_comes_back_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    assert Calibration.load(tmp_path) is None
    MADE.save(tmp_path)
    assert Calibration.load(tmp_path) == MADE
    text = (tmp_path / FILE).read_text(encoding="utf-8")
    for damaged in (text[:40], text.replace("0.7", "-0.7"), text.replace("negative", "no")):
        (tmp_path / FILE).write_text(damaged, encoding="utf-8")
        with pytest.raises(UserError, match=FILE):
            Calibration.load(tmp_path)
