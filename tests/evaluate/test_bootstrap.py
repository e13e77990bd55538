"""The resamples are real resamples, paired over systems; the statistics on them are hand-worked."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from label_tables import random_labels
from scipy import stats

from lite_chex.evaluate import bootstrap as boot
from lite_chex.evaluate import evaluate, score
from lite_chex.evaluate.counts import NOT_SCORED, cell_codes, confusion
from lite_chex.findings import PAPER13, SKIP, FindingSet


def weights_of(n: int, resamples: int, seed: int) -> np.ndarray:
    """How often each report is drawn, read off the counts: finding i is "hit" by report i alone."""
    codes = np.full((1, n, n), NOT_SCORED, dtype=np.uint8)
    codes[0, np.arange(n), np.arange(n)] = 0
    drawn = boot.resample(codes, np.zeros(n, dtype=np.int8), 1, resamples, seed)
    return drawn.confusion[:, 0, 0, :, 0, 0].astype(np.int64)


def test_resampled_scores_equal_scores_of_the_repeated_rows():
    """Independent check of every resample: build it row by row and score it from scratch."""
    rng = np.random.default_rng(3)
    gold, a = random_labels(PAPER13, 40, rng, skip=0.1)
    b = np.where(rng.random(gold.shape) < 0.3, np.int8(3), a).astype(np.int8)
    weights = weights_of(40, 25, seed=11)
    codes = cell_codes(gold, {"a": a, "b": b})
    groups = (np.arange(40) % 3).astype(np.int8)
    drawn = boot.resample(codes, groups, 3, 25, 11)
    for i, w in enumerate(weights):
        rows = np.repeat(np.arange(40), w)
        assert len(rows) == 40
        assert np.array_equal(drawn.confusion[i].sum(axis=0), confusion(codes[:, rows]))
        for group in range(3):
            chosen = rows[groups[rows] == group]
            assert np.array_equal(drawn.confusion[i, group], confusion(codes[:, chosen]))
            assert drawn.reports[i, group] == len(chosen)
        perfect = [((gold == p) | (gold == SKIP))[rows].all(axis=1).sum() for p in (a, b)]
        assert drawn.perfect[i].sum(axis=0).tolist() == perfect


def test_weights_are_multinomial_across_blocks(monkeypatch):
    monkeypatch.setattr(boot, "BLOCK", 16)
    weights = weights_of(50, 4000, seed=0)
    assert (weights.sum(axis=1) == 50).all()
    # Marginally Binomial(50, 1/50), in whatever block a report stands (the last one is shorter).
    expected = stats.binom.pmf(np.arange(5), 50, 1 / 50)
    expected = np.append(expected, 1 - expected.sum())
    for report in (0, 15, 16, 49):
        observed = np.bincount(np.minimum(weights[:, report], 5), minlength=6)
        assert stats.chisquare(observed, expected * 4000).pvalue > 1e-3
    # Covariance -1/50 between any two reports, within a block and across.
    covariance = np.cov(weights.T)
    off = covariance[~np.eye(50, dtype=bool)]
    assert off.mean() == pytest.approx(-1 / 50, abs=2e-3)
    assert covariance[0, 1] == pytest.approx(-1 / 50, abs=0.06)
    assert covariance[0, 40] == pytest.approx(-1 / 50, abs=0.06)


def test_more_than_one_batch_of_resamples(monkeypatch):
    monkeypatch.setattr(boot, "BATCH", 7)
    weights = weights_of(20, 30, seed=5)
    assert (weights.sum(axis=1) == 20).all()
    assert len({tuple(w) for w in weights}) > 25


def test_draws_depend_on_seed_alone_not_on_systems_or_bins():
    gold, a = random_labels(PAPER13, 60, np.random.default_rng(0), skip=0.0)
    _, b = random_labels(PAPER13, 60, np.random.default_rng(1), skip=0.0)
    alone = evaluate(gold, {"a": a}, PAPER13, bootstrap=50)
    both = evaluate(gold, {"b": b, "a": a}, PAPER13, bootstrap=50, lengths=np.arange(60))
    other = evaluate(gold, {"a": a}, PAPER13, bootstrap=50, seed=1)
    assert alone.systems["a"].macro_f1.low == both.systems["a"].macro_f1.low
    assert alone.systems["a"].errors_per_report.high == both.systems["a"].errors_per_report.high
    assert alone.systems["a"].macro_f1.low != other.systems["a"].macro_f1.low


def test_the_interval_of_a_proportion_agrees_with_theory():
    """Perfect reports are a proportion: its bootstrap interval is close to the binomial one."""
    one = FindingSet("one", ("Edema",))
    gold = np.zeros((400, 1), dtype=np.int8)
    pred = gold.copy()
    pred[:100] = 3
    estimate = evaluate(gold, {"s": pred}, one, bootstrap=2000).systems["s"].perfect_reports
    assert estimate.value == 0.75
    half = 1.96 * np.sqrt(0.75 * 0.25 / 400)
    assert estimate.low == pytest.approx(0.75 - half, abs=0.006)
    assert estimate.high == pytest.approx(0.75 + half, abs=0.006)


def test_a_paired_difference_is_narrower_than_two_independent_intervals():
    gold, a = random_labels(PAPER13, 200, np.random.default_rng(2), skip=0.0)
    b = a.copy()
    b[:4] = 3
    comparison = evaluate(gold, {"a": a, "b": b}, PAPER13, bootstrap=300).comparisons[0]
    single = evaluate(gold, {"a": a}, PAPER13, bootstrap=300).systems["a"].errors_per_report
    assert comparison.errors.high - comparison.errors.low < (single.high - single.low) / 2


def test_equal_systems_differ_by_exactly_nothing_and_are_not_resolved():
    gold, a = random_labels(PAPER13, 50, np.random.default_rng(4), skip=0.1)
    comparison = evaluate(gold, {"a": a, "b": a.copy()}, PAPER13, bootstrap=100).comparisons[0]
    f1, errors = comparison.f1, comparison.errors
    assert (f1.delta, f1.low, f1.high, f1.p, f1.detectable) == (0.0, 0.0, 0.0, 1.0, None)
    assert not np.signbit([f1.delta, f1.low, f1.high]).any()
    assert not f1.resolved
    assert not errors.resolved


@pytest.mark.parametrize("n", [1, 5, 6])
def test_a_handful_of_reports_resolves_nothing(n):
    """All resamples of five reports that point one way point that way, and chance has them do so in 1 of 16 cases."""
    gold = np.zeros((n, len(PAPER13)), dtype=np.int8)
    result = evaluate(gold, {"worse": np.full_like(gold, 3), "gold": gold}, PAPER13, bootstrap=1000)
    comparison = result.comparisons[0]
    for d in (comparison.f1, comparison.errors):
        assert (d.low > 0 or d.high < 0, d.differing, d.p) == (True, n, pytest.approx(2.0 ** (1 - n)))
        assert d.resolved == (n == 6)
    assert result.systems["worse"].errors_per_report.tied == (n < 6)


def test_four_reports_of_many_resolve_nothing_either():
    gold, a = random_labels(PAPER13, 600, np.random.default_rng(6), skip=0.0)
    b = a.copy()
    b[:4] = np.where(gold[:4] == 3, 0, 3)  # every cell wrong
    a[:4] = gold[:4]
    errors = evaluate(gold, {"a": a, "b": b}, PAPER13, bootstrap=1000).comparisons[0].errors
    assert errors.low > 0
    assert (errors.resolved, errors.p) == (False, 0.125)


def test_a_length_bin_counts_its_own_reports():
    """Eight reports tell the two systems apart, but only two of them are short."""
    gold, _ = random_labels(PAPER13, 60, np.random.default_rng(7), skip=0.0)
    worse = gold.copy()
    changed = [*range(2), *range(50, 56)]
    worse[changed] = np.where(gold[changed] == 3, 0, 3)
    result = evaluate(gold, {"gold": gold, "worse": worse}, PAPER13, lengths=np.arange(60), bootstrap=500)
    tied = {name: e.tied for name, e in result.systems["worse"].per_length.items()}
    assert (tied["short"], tied["long"], result.systems["worse"].macro_f1.tied) == (True, False, False)
    few = evaluate(gold[:2], {"gold": gold[:2], "worse": worse[:2]}, PAPER13, lengths=np.arange(2), bootstrap=20)
    assert few.systems["worse"].per_length["long"].value is None  # no report is in it


def test_errors_are_corrected_for_the_number_of_comparisons():
    gold, _ = random_labels(PAPER13, 300, np.random.default_rng(8), skip=0.0)
    rng = np.random.default_rng(9)
    systems = {f"s{k}": np.where(rng.random(gold.shape) < 0.1, 3, gold).astype(np.int8) for k in range(6)}
    compared = evaluate(gold, systems, PAPER13, bootstrap=500).comparisons
    assert [c.errors.p_holm for c in compared] == pytest.approx(boot.holm([c.errors.p for c in compared]))


def test_differences_are_b_minus_a():
    gold, _ = random_labels(PAPER13, 80, np.random.default_rng(5), skip=0.0)
    worse = np.full_like(gold, 3)
    comparison = evaluate(gold, {"worse": worse, "gold": gold}, PAPER13, bootstrap=100).comparisons[0]
    assert (comparison.a, comparison.b) == ("worse", "gold")
    f1, errors = comparison.f1, comparison.errors
    assert f1.delta == pytest.approx(1 - score(gold, worse, PAPER13).macro_f1)
    assert f1.low > 0
    assert errors.delta == pytest.approx(-score(gold, worse, PAPER13).errors_per_report)
    assert errors.high < 0
    assert f1.resolved
    assert errors.resolved


def test_a_cell_that_a_resample_lacks_is_left_out_for_all_systems_and_counted():
    """One report of three holds the only uncertain: it is missing in (2/3)^3 = 30% of resamples."""
    one = FindingSet("one", ("Edema",))
    gold = np.array([[2], [0], [0]], dtype=np.int8)
    result = evaluate(gold, {"s": gold, "t": np.zeros_like(gold)}, one, bootstrap=4000)
    # Also emptied: no positive drawn, (1/3)^3.
    assert result.left_out / 4000 == pytest.approx((2 / 3) ** 3 + (1 / 3) ** 3, abs=0.02)
    assert result.systems["s"].macro_f1.low == result.systems["s"].macro_f1.high == 1.0


def test_p_value_and_detectable_by_hand():
    differences = np.array([-1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    # 2 at or below zero, 8 at or above: 2 (2 + 1) / (9 + 1).
    assert boot.p_value(differences, 9) == pytest.approx(0.6)
    assert boot.p_value(differences, 1) == 1.0
    assert boot.p_value(np.ones(99), 4) == 0.125
    assert boot.p_value(np.zeros(9), 0) == 1.0
    assert np.isnan(boot.detectable(np.zeros(9)))
    assert boot.detectable(differences) == pytest.approx((1.959963985 + 0.841621234) * np.sqrt(7.5), rel=1e-8)


def test_holm_by_hand():
    # Sorted .01 .02 .04: x3, x2, x1 with a running maximum; NaN is no test.
    assert boot.holm([0.04, 0.01, float("nan"), 0.02])[:2] == pytest.approx([0.04, 0.03])
    assert boot.holm([0.04, 0.01, float("nan"), 0.02])[3] == pytest.approx(0.04)
    assert np.isnan(boot.holm([0.04, 0.01, float("nan"), 0.02])[2])
    assert boot.holm([0.5, 0.6]) == pytest.approx([1.0, 1.0])


def test_interval_leaves_undefined_resamples_out():
    draws = np.array([[1.0, np.nan, np.nan], [2.0, 5.0, np.nan], [3.0, 5.0, np.nan]])
    low, high = boot.interval(draws)
    assert low[0] == pytest.approx(1.05)
    assert high[0] == pytest.approx(2.95)
    assert (low[1], high[1]) == (5.0, 5.0)
    assert np.isnan(low[2])
    assert np.isnan(high[2])


def test_memory_does_not_hold_the_weights_of_all_reports():
    """60,000 reports x 500 resamples would be 120 MB of weights; a block at a time needs a fraction."""
    rng = np.random.default_rng(0)
    gold, pred = random_labels(PAPER13, 60_000, rng, skip=0.0)
    codes = cell_codes(gold, {"s": pred})
    tracemalloc.start()
    boot.resample(codes, np.zeros(60_000, dtype=np.int8), 1, 500, 0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60e6


def test_intervals_agree_with_scipy_s_bootstrap():
    gold, pred = random_labels(PAPER13, 150, np.random.default_rng(8), skip=0.0)
    ours = evaluate(gold, {"s": pred}, PAPER13, bootstrap=4000, seed=1).systems["s"]
    errors = (gold != pred).sum(axis=1)
    theirs = stats.bootstrap(
        (errors,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours.errors_per_report.low == pytest.approx(theirs.low, abs=0.06 * width)
    assert ours.errors_per_report.high == pytest.approx(theirs.high, abs=0.06 * width)

    def f1(g: np.ndarray, p: np.ndarray, axis: int = -1) -> np.ndarray:
        return 2 * ((g == 0) & (p == 0)).sum(axis) / ((g == 0).sum(axis) + (p == 0).sum(axis))

    theirs = stats.bootstrap(
        (gold[:, -1], pred[:, -1]), f1, paired=True, n_resamples=4000, method="percentile", rng=np.random.default_rng(3)
    ).confidence_interval
    no_finding = ours.per_finding["No Finding"]
    width = theirs.high - theirs.low
    assert no_finding.low == pytest.approx(theirs.low, abs=0.08 * width)
    assert no_finding.high == pytest.approx(theirs.high, abs=0.08 * width)
