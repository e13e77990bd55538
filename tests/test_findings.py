"""Codes, the JSON answer, and the constraint on No Finding."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lite_chex.findings import CHEXPERT14, PAPER13, SKIP, Certainty, FindingSet, from_code, to_code

LABELS = st.lists(st.integers(0, 3), min_size=14, max_size=14).map(lambda x: np.array(x, dtype=np.int8))


@pytest.mark.parametrize(
    ("cell", "certainty"),
    [("1.0", 0), ("1", 0), (0, 1), ("0.0", 1), ("-1.0", 2), (-1.0, 2), ("", 3), (None, 3), (float("nan"), 3), (" ", 3)],
)
def test_codes(cell: object, certainty: int) -> None:
    assert from_code(cell) == certainty


def test_blank_never_becomes_negative() -> None:
    assert to_code(Certainty.ABSENT) == ""
    assert from_code(to_code(Certainty.ABSENT)) == Certainty.ABSENT != Certainty.NEGATIVE


@pytest.mark.parametrize("cell", ["2", "yes", "0.5", "A"])
def test_other_codes_are_refused(cell: str) -> None:
    with pytest.raises(ValueError, match="CheXpert code"):
        from_code(cell)


def test_skip_round_trip() -> None:
    assert from_code("x") == SKIP
    assert to_code(SKIP) == "x"


@given(LABELS)
def test_json_round_trip(labels: np.ndarray) -> None:
    text = CHEXPERT14.to_json(labels)
    assert list(json.loads(text)) == list(CHEXPERT14.names)
    np.testing.assert_array_equal(CHEXPERT14.from_json(text), labels)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"Edema":"positive"}', PAPER13.to_json([3] * 13)[:-1]])
def test_unreadable_answers(text: str) -> None:
    assert PAPER13.from_json(text) is None


@given(LABELS)
def test_consistent(labels: np.ndarray) -> None:
    found = CHEXPERT14.consistent(labels)
    present = any(
        found[i] in (0, 2) for i, n in enumerate(CHEXPERT14.names) if n not in ("Support Devices", "No Finding")
    )
    assert found[-1] in (Certainty.POSITIVE, Certainty.ABSENT)
    if present:
        assert found[-1] == Certainty.ABSENT
    np.testing.assert_array_equal(found[:-1], labels[:-1])


def test_support_devices_do_not_veto() -> None:
    labels = np.full(14, 3, dtype=np.int8)
    labels[[-2, -1]] = 0
    np.testing.assert_array_equal(CHEXPERT14.consistent(labels), labels)


def test_airspace_opacity_is_lung_opacity() -> None:
    assert CHEXPERT14.column("Airspace Opacity") == CHEXPERT14.index("Lung Opacity")


def test_schema_lists_what_is_allowed() -> None:
    schema = FindingSet("s", ("Edema", "No Finding")).json_schema()
    assert schema["properties"]["No Finding"]["enum"] == ["positive", "absent"]  # type: ignore[index]
