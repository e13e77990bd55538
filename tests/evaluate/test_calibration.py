"""Calibration: by hand, and against a plain loop."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from lite_chex.evaluate.calibration import BINS, calibrate, calibration_table
from lite_chex.findings import SKIP


def loop_ece(confidence: np.ndarray, correct: np.ndarray) -> float:
    total, edges = 0.0, np.linspace(0, 1, BINS + 1)
    for low, high in pairwise(edges):
        inside = (confidence >= low) & ((confidence < high) | (high == 1))
        if inside.any():
            total += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    return total


def test_by_hand():
    gold = np.array([[0, 3], [1, int(SKIP)]], dtype=np.int8)
    answers = np.array([[0, 3], [0, 3]], dtype=np.int8)
    p = np.array([[[0.9, 0.1, 0, 0], [0, 0, 0, 1.0]], [[0.9, 0.1, 0, 0], [0, 0, 0, 1.0]]], dtype=np.float32)
    found = calibrate(gold, answers, p, bootstrap=0)
    # Three scored cells: .9 right, 1.0 right, .9 wrong: |1 - 1.8| / 3 + |1 - 1| / 3.
    assert found.ece.value == pytest.approx(0.8 / 3, abs=1e-6)
    assert found.ece.n == 3
    # Brier: .01 + .01, 0, .81 + .81 over three cells.
    assert found.brier == pytest.approx((0.02 + 0 + 1.62) / 3, abs=1e-6)


def test_against_a_loop_and_scikit_learn():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(4), size=(300, 5))
    gold = rng.integers(0, 4, size=(300, 5)).astype(np.int8)
    answers = p.argmax(axis=-1).astype(np.int8)
    found = calibrate(gold, answers, p, bootstrap=200)
    assert found.ece.value == pytest.approx(loop_ece(p.max(axis=-1).ravel(), (answers == gold).ravel()), abs=1e-9)
    assert found.ece.low < found.ece.high
    parts = sum(brier_score_loss(gold.ravel() == k, p[..., k].ravel()) for k in range(4))
    assert found.brier == pytest.approx(parts, abs=1e-9)


def test_presence_uses_the_probability_of_positive():
    rng = np.random.default_rng(1)
    p = rng.dirichlet(np.ones(4), size=(200, 3))
    gold = np.where(rng.random((200, 3)) < 0.3, 0, 3).astype(np.int8)
    found = calibrate(gold, p.argmax(axis=-1).astype(np.int8), p, presence=True, bootstrap=0)
    assert found.ece.value == pytest.approx(loop_ece(p[..., 0].ravel(), (gold == 0).ravel()), abs=1e-9)
    table = calibration_table({"a": found})
    assert "bins of P(positive)" in table.caption[0]
    assert table.columns[1:3] == ["P(pos.)", "positive\nin gold"]


def test_no_probabilities_is_no_figure():
    gold = np.zeros((2, 2), dtype=np.int8)
    assert calibrate(gold, gold, np.full((2, 2, 4), np.nan, dtype=np.float32), bootstrap=0) is None
