"""Every protocol against scikit-learn on random label tables, to 1e-9."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from label_tables import random_labels
from sklearn.metrics import classification_report, cohen_kappa_score, f1_score, precision_score, recall_score

from lite_chex.evaluate import evaluate, score
from lite_chex.evaluate.protocols import RRG_FIVE
from lite_chex.findings import CHEXPERT14, PAPER13, SKIP, FindingSet

EXACT = 1e-9


tables = st.tuples(
    st.sampled_from([PAPER13, CHEXPERT14]), st.integers(1, 60), st.integers(0, 2**31), st.sampled_from([0.0, 0.2, 0.7])
)


def drawn(case: tuple[FindingSet, int, int, float]) -> tuple[FindingSet, np.ndarray, np.ndarray]:
    findings, n, seed, skip = case
    gold, pred = random_labels(findings, n, np.random.default_rng(seed), skip)
    if (gold == SKIP).all():
        gold[0, 0] = 0
    return findings, gold, pred


def column(gold: np.ndarray, pred: np.ndarray, f: int) -> tuple[np.ndarray, np.ndarray]:
    scored = gold[:, f] != SKIP
    return gold[scored, f], pred[scored, f]


def same(ours: float | None, theirs: float) -> bool:
    return np.isnan(theirs) if ours is None else abs(ours - theirs) < EXACT


def binary_f1(gold: np.ndarray, pred: np.ndarray) -> float:
    return float(f1_score(gold, pred, zero_division=0)) if gold.any() else float("nan")


def mean(values: list[float]) -> float:
    kept = [v for v in values if not np.isnan(v)]
    return float(np.mean(kept)) if kept else float("nan")


@settings(deadline=None, max_examples=30)
@given(tables)
def test_macro_is_the_mean_over_findings_of_the_mean_over_the_certainties_that_gold_has(case):
    findings, gold, pred = drawn(case)
    ours = score(gold, pred, findings, "macro")
    f1 = np.full((len(findings), 3), np.nan)
    for f in range(len(findings)):
        g, p = column(gold, pred, f)
        f1[f] = [binary_f1(g == k, p == k) for k in range(3)]
    per_finding = [mean(list(row)) for row in f1]
    assert all(same(ours.per_finding[name], value) for name, value in zip(findings.names, per_finding, strict=True))
    assert same(ours.macro_f1, mean(per_finding))
    for k, name in enumerate(("positive", "negative", "uncertain")):
        assert same(ours.per_certainty[name], mean(list(f1[:, k])))


@settings(deadline=None, max_examples=30)
@given(tables)
def test_supported_macro_averages_only_cells_with_ten_gold_labels(case):
    findings, gold, pred = drawn(case)
    per_finding = []
    for f in range(len(findings)):
        g, p = column(gold, pred, f)
        per_finding.append(mean([binary_f1(g == k, p == k) for k in range(3) if (g == k).sum() >= 10]))
    assert same(score(gold, pred, findings, "macro").macro_f1_supported, mean(per_finding))


@settings(deadline=None, max_examples=30)
@given(tables)
def test_chexbert_weighs_by_gold_counts_and_leaves_blanks_out(case):
    findings, gold, pred = drawn(case)
    per_finding = []
    for f, name in enumerate(findings.names):
        g, p = column(gold, pred, f)
        labels = [0] if name == "No Finding" else [0, 1, 2]
        has_mention = np.isin(g, labels).any()
        weighted = f1_score(g, p, labels=labels, average="weighted", zero_division=0) if has_mention else np.nan
        per_finding.append(float(weighted))
    ours = score(gold, pred, findings, "chexbert")
    assert all(same(ours.per_finding[name], value) for name, value in zip(findings.names, per_finding, strict=True))
    assert same(ours.macro_f1, mean(per_finding))


@settings(deadline=None, max_examples=30)
@given(tables)
def test_chexpert_is_mention_negation_and_uncertainty_with_undefined_left_out(case):
    findings, gold, pred = drawn(case)
    f1 = np.full((len(findings), 3), np.nan)
    for f in range(len(findings)):
        g, p = column(gold, pred, f)
        f1[f] = [binary_f1(g != 3, p != 3), binary_f1(g == 1, p == 1), binary_f1(g == 2, p == 2)]
    ours = score(gold, pred, findings, "chexpert")
    for k, name in enumerate(("mention", "negation", "uncertainty")):
        assert same(ours.per_certainty[name], mean(list(f1[:, k])))
    assert same(ours.macro_f1, mean([mean(list(row)) for row in f1]))


@settings(deadline=None, max_examples=30)
@given(tables)
def test_presence_is_positive_against_everything_else(case):
    findings, gold, pred = drawn(case)
    f1 = []
    for f in range(len(findings)):
        g, p = column(gold, pred, f)
        f1.append(binary_f1(g == 0, p == 0))
    ours = evaluate(gold, {"s": pred}, findings, protocol="presence", bootstrap=0)
    result = ours.systems["s"]
    assert same(result.macro_f1.value, mean(f1))
    wrong = ((gold == 0) != (pred == 0)) & (gold != SKIP)
    assert result.errors["missed"] == (wrong & (gold == 0)).sum()
    assert result.errors["hallucinated"] == (wrong & (gold != 0)).sum()
    assert result.errors["wrong_certainty"] == 0


@settings(deadline=None, max_examples=20)
@given(tables)
def test_cells_kappa_and_rrg_agree_with_scikit_learn(case):
    findings, gold, pred = drawn(case)
    result = evaluate(gold, {"s": pred}, findings, bootstrap=0).systems["s"]
    for f, name in enumerate(findings.names):
        g, p = column(gold, pred, f)
        for k, certainty in enumerate(("positive", "negative", "uncertain")):
            cell = result.cells[name][certainty]
            assert cell.support == (g == k).sum()
            if (p == k).any():
                assert same(cell.precision, precision_score(g == k, p == k))
            else:
                assert cell.precision is None
            if (g == k).any():
                assert same(cell.recall, recall_score(g == k, p == k))
            else:
                assert cell.recall is None
                assert cell.f1 is None
        one_class = len(g) == 0 or (len(np.unique(g)) == 1 and np.array_equal(np.unique(g), np.unique(p)))
        theirs = float("nan") if one_class else cohen_kappa_score(g, p, labels=[0, 1, 2, 3])
        assert same(result.kappa[name].value, theirs)


@settings(deadline=None, max_examples=20)
@given(tables)
def test_report_generation_f1_agrees_with_classification_report(case):
    findings, gold, pred = drawn(case)
    gold = np.where(gold == SKIP, 3, gold).astype(np.int8)
    result = evaluate(gold, {"s": pred}, findings, bootstrap=0).systems["s"]
    g, p = np.isin(gold, [0, 2]).astype(int), np.isin(pred, [0, 2]).astype(int)
    five = [findings.index(name) for name in RRG_FIVE]
    for label, chosen in (("all", list(range(len(findings)))), ("five", five)):
        theirs = classification_report(g[:, chosen], p[:, chosen], output_dict=True, zero_division=0)
        assert same(result.rrg[f"macro_{label}"].value, theirs["macro avg"]["f1-score"])
        if g[:, chosen].any() or p[:, chosen].any():
            assert same(result.rrg[f"micro_{label}"].value, theirs["micro avg"]["f1-score"])
        else:
            assert result.rrg[f"micro_{label}"].value is None


def test_a_hand_worked_table():
    """Three findings, four reports. Gold/prediction by row (P N U blank as -):

    Edema:        P/P  P/N  N/N  -/P   P: tp 1, gold 2, pred 2 -> 1/2;  N: tp 1, gold 1, pred 2 -> 2/3
    Pneumothorax: U/U  -/-  -/U  -/-   U: tp 1, gold 1, pred 2 -> 2/3
    No Finding:   -/P  -/-  -/-  -/-   gold has none: undefined, left out
    """
    three = FindingSet("three", ("Edema", "Pneumothorax", "No Finding"))
    gold = np.array([[0, 2, 3], [0, 3, 3], [1, 3, 3], [3, 3, 3]], dtype=np.int8)
    pred = np.array([[0, 2, 0], [1, 3, 3], [1, 2, 3], [0, 3, 3]], dtype=np.int8)
    result = evaluate(gold, {"s": pred}, three, bootstrap=0).systems["s"]
    edema = (1 / 2 + 2 / 3) / 2
    assert result.per_finding["Edema"].value == pytest.approx(edema, abs=1e-12)
    assert result.per_finding["Pneumothorax"].value == pytest.approx(2 / 3, abs=1e-12)
    assert result.per_finding["No Finding"].value is None
    assert result.macro_f1.value == pytest.approx((edema + 2 / 3) / 2, abs=1e-12)
    assert result.per_certainty["positive"].value == pytest.approx(1 / 2, abs=1e-12)
    assert result.per_certainty["negative"].value == pytest.approx(2 / 3, abs=1e-12)
    assert result.macro_f1_supported.value is None
    # Wrong cells: No Finding hallucinated; Edema P->N; Pneumothorax hallucinated; Edema hallucinated.
    assert result.errors == {"missed": 0, "hallucinated": 3, "wrong_certainty": 1, "format": 0}
    assert result.errors_per_report.value == pytest.approx(4 / 4)
    assert result.perfect_reports.value == 0.0
    chexbert = evaluate(gold, {"s": pred}, three, protocol="chexbert", bootstrap=0).systems["s"]
    assert chexbert.per_finding["Edema"].value == pytest.approx(2 / 3 * 1 / 2 + 1 / 3 * 2 / 3, abs=1e-12)
    chexpert = evaluate(gold, {"s": pred}, three, protocol="chexpert", bootstrap=0).systems["s"]
    # Mention of Edema: gold 3, predicted 4, tp 3 -> 6/7.
    assert chexpert.cells["Edema"]["mention"].f1 == pytest.approx(6 / 7, abs=1e-12)


def test_a_report_without_a_readable_answer_is_absent_for_scores_and_a_format_error_for_the_taxonomy():
    two = FindingSet("two", ("Edema", "Fracture"))
    gold = np.array([[0, 3], [0, int(SKIP)], [1, 1]], dtype=np.int8)
    pred = np.array([[0, 3], [0, 3], [1, 3]], dtype=np.int8)
    unreadable = np.array([True, True, False])
    result = evaluate(gold, {"s": pred}, two, format_errors={"s": unreadable}, bootstrap=0).systems["s"]
    # Three scored cells of the two unreadable answers; the third report misses its Fracture.
    assert result.errors == {"missed": 1, "hallucinated": 0, "wrong_certainty": 0, "format": 3}
    assert result.cells["Edema"]["positive"].recall == 0.0
    assert result.cells["Edema"]["positive"].precision is None
    assert result.perfect_reports.value == 0.0
