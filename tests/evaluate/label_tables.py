"""Random gold and predictions for the tests of the evaluator."""

from __future__ import annotations

import numpy as np

from lite_chex.findings import SKIP, FindingSet


def random_labels(findings: FindingSet, n: int, rng: np.random.Generator, skip: float) -> tuple[np.ndarray, np.ndarray]:
    """Gold and prediction of random rarity and agreement; No Finding is positive or absent."""
    rarity = rng.dirichlet([0.6, 0.6, 0.3, 1.5])
    gold = rng.choice(4, size=(n, len(findings)), p=rarity).astype(np.int8)
    other = rng.choice(4, size=gold.shape, p=rarity).astype(np.int8)
    pred = np.where(rng.random(gold.shape) < rng.random(), gold, other).astype(np.int8)
    for table in (gold, pred):
        table[:, -1] = np.where(table[:, -1] == 0, 0, 3)
    gold[rng.random(gold.shape) < skip] = SKIP
    return gold, pred
