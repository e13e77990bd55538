"""Splits never share a patient or a text, whatever the reports."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lite_chex.data.records import Report
from lite_chex.data.splits import check_disjoint, connected_groups, normalised_text, split_reports, without_shared
from lite_chex.errors import UserError

FRACTIONS = {"train": 0.6, "validation": 0.2, "test": 0.2}


def report(row: int, text: str, patient: str | None = None) -> Report:
    return Report(row, str(row), text, patient)


report_lists = st.lists(
    st.tuples(st.sampled_from(["", "Clear.", "clear", "Big heart.", *(f"text {i}" for i in range(12))]),
              st.sampled_from([None, *(f"p{i}" for i in range(12))])),
    min_size=0,
    max_size=40,
).map(lambda rows: [report(i, text, patient) for i, (text, patient) in enumerate(rows)])  # fmt: skip


@settings(deadline=None)
@given(reports=report_lists, seed=st.integers(0, 5))
def test_never_a_shared_patient_or_text(reports: list[Report], seed: int) -> None:
    if len(connected_groups(reports)) < 3:
        with pytest.raises(UserError, match="too few for 3 splits"):
            split_reports(reports, FRACTIONS, seed)
        return
    splits = split_reports(reports, FRACTIONS, seed)
    assert list(splits) == list(FRACTIONS)
    assert sorted(i for part in splits.values() for i in part) == list(range(len(reports)))
    assert all(splits.values())
    patients = [{reports[i].patient_id for i in part} - {None} for part in splits.values()]
    texts = [{normalised_text(reports[i].text) for i in part} - {""} for part in splits.values()]
    for sets in (patients, texts):
        assert not any(a & b for k, a in enumerate(sets) for b in sets[k + 1 :])
    check_disjoint({name: [reports[i] for i in part] for name, part in splits.items()})
    assert splits == split_reports(reports, FRACTIONS, seed)


def test_groups_are_joined_through_others() -> None:
    # 0-1 by text, 1-2 by patient: 0 and 2 share nothing directly. 3 and 4 have neither text nor patient.
    reports = [report(0, "a", "p"), report(1, "A!", "q"), report(2, "b", "q"), report(3, ""), report(4, "")]
    assert connected_groups(reports) == [[0, 1, 2], [3], [4]]


def test_sizes_follow_the_fractions_and_the_seed_the_draw() -> None:
    reports = [report(i, f"report {i}", f"p{i // 2}") for i in range(1000)]
    splits = split_reports(reports, FRACTIONS, seed=3)
    assert {name: len(part) for name, part in splits.items()} == {"train": 600, "validation": 200, "test": 200}
    assert split_reports(reports, FRACTIONS, seed=4) != splits


def test_duplicates_do_not_all_go_to_one_split() -> None:
    # 40 texts of 5 reports each among 800 single ones: the test has its share of both.
    reports = [report(i, f"same {i // 5}" if i < 200 else f"own {i}") for i in range(1000)]
    in_test = sum(i < 200 for i in split_reports(reports, FRACTIONS, seed=0)["test"])
    assert 10 <= in_test <= 80


def test_fractions_that_are_none_are_refused() -> None:
    for fractions in ({"train": 0.5, "test": 0.4}, {"train": 1.0, "test": 0.0}, {}):
        with pytest.raises(UserError, match="add up to 1"):
            split_reports([report(0, "a"), report(1, "b")], fractions, 0)


def test_shared_patients_and_texts_are_named_and_counted() -> None:
    splits = {
        "train": [report(0, "a", "p"), report(1, "b", "q")],
        "validation": [report(2, "c", "r")],
        "test": [report(3, "A.", "s"), report(4, "B", "p")],
    }
    with pytest.raises(UserError, match='splits "train" and "test" share 1 patient and 2 report texts'):
        check_disjoint(splits)


@settings(deadline=None)
@given(reports=report_lists)
def test_what_is_left_without_the_shared_is_disjoint(reports: list[Report]) -> None:
    splits = {"train": reports[::2], "validation": reports[1::4], "test": reports[3::4]}
    left = without_shared(splits, keep=["test", "validation"])
    check_disjoint(left)
    assert list(left) == list(splits)
    assert left["test"] == splits["test"]
    # Nothing is dropped without a reason: what the test shares nothing with stays in validation.
    assert left["validation"] == [
        r
        for r in splits["validation"]
        if not any(
            (r.patient_id and r.patient_id == t.patient_id)
            or (r.text and normalised_text(r.text) == normalised_text(t.text))
            for t in splits["test"]
        )
    ]
