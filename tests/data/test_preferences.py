"""Preference files: whose pairs they are survives reading and writing, whatever the annotators say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lite_chex.data.preferences import AnswerGroup, read_pairs, split_groups, write_pairs
from lite_chex.errors import UserError
from lite_chex.findings import PAPER13, Certainty

REPORT = "Small left effusion. Possible edema."
ABSENT = (int(Certainty.ABSENT),) * len(PAPER13)


def with_(**words: Certainty) -> tuple[int, ...]:
    names = {name.replace("_", " "): value for name, value in words.items()}
    return tuple(int(names.get(name, Certainty.ABSENT)) for name in PAPER13.names)


EDEMA = with_(Edema=Certainty.UNCERTAIN)
EFFUSION = with_(Pleural_Effusion=Certainty.POSITIVE)


def group(study: str, annotator: str, pairs: list[tuple[int, int]], source: str = "human") -> AnswerGroup:
    return AnswerGroup(study, f"{study}: {REPORT}", [EDEMA, EFFUSION, ABSENT], pairs, source, annotator)


def rows(path: Path) -> list[tuple[str, str, str, str, str]]:
    keys = ("study_id", "source", "annotator", "chosen", "rejected")
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return sorted(tuple(row[key] for key in keys) for row in found)  # type: ignore[misc]


def test_every_annotators_pairs_of_a_report_are_kept_as_theirs(tmp_path: Path) -> None:
    given = [
        group("s1", "Ann", [(0, 1), (0, 2)]),
        group("s1", "Bob", [(1, 0)]),  # the other way round
        group("s1", "generator", [(1, 2)], source="gold"),
        group("s2", "Bob", [(1, 2)]),
    ]
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    assert write_pairs(first, given, PAPER13) == 5
    read = read_pairs(first, PAPER13)
    assert {(g.study_id, g.source, g.annotator): len(g.pairs) for g in read} == {
        ("s1", "human", "Ann"): 2,
        ("s1", "human", "Bob"): 1,
        ("s1", "gold", "generator"): 1,
        ("s2", "human", "Bob"): 1,
    }
    assert write_pairs(second, read, PAPER13) == 5
    assert rows(second) == rows(first)


def test_interleaved_rows_of_two_annotators_are_two_groups(tmp_path: Path) -> None:
    path, mixed = tmp_path / "a.jsonl", tmp_path / "mixed.jsonl"
    write_pairs(path, [group("s1", "Ann", [(0, 1), (0, 2)]), group("s1", "Bob", [(1, 0), (1, 2)])], PAPER13)
    lines = path.read_text().splitlines()
    mixed.write_text("\n".join(lines[i] for i in (0, 2, 1, 3)))
    assert [(g.annotator, len(g.answers), g.pairs) for g in read_pairs(mixed, PAPER13)] == [
        ("Ann", 3, [(0, 1), (0, 2)]),
        ("Bob", 3, [(0, 1), (0, 2)]),
    ]


def test_which_answer_is_gold_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    made = group("s1", "generator", [(0, 2), (1, 2), (1, 0)], source="gold")
    made.gold = 1
    write_pairs(path, [made, group("s1", "Ann", [(0, 1)])], PAPER13)
    assert [json.loads(line).get("gold") for line in path.read_text().splitlines()] == [None, True, True, None]
    read, anns = read_pairs(path, PAPER13)
    assert read.gold is not None
    assert read.answers[read.gold] == EFFUSION
    assert anns.gold is None


def test_a_reports_annotators_are_held_out_together(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write_pairs(path, [group(f"s{i}", name, [(0, 1)]) for i in range(20) for name in ("Ann", "Bob")], PAPER13)
    train, held = split_groups(read_pairs(path, PAPER13), 0.25, seed=1)
    assert len(held) == 10
    assert {g.study_id for g in train}.isdisjoint(g.study_id for g in held)


def test_a_patients_reports_are_held_out_together() -> None:
    made = [group(f"s{i}", "Ann", [(0, 1)]) for i in range(30)]
    for i, each in enumerate(made):
        each.patient_id = f"p{i // 3}"
    train, held = split_groups(made, 0.3, seed=1)
    assert (len(train), len(held)) == (21, 9)
    assert {g.patient_id for g in train}.isdisjoint(g.patient_id for g in held)


def test_a_row_that_is_no_answer_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write_pairs(path, [group("s1", "Ann", [(0, 1), (0, 2)])], PAPER13)
    good, other = (json.loads(line) for line in path.read_text().splitlines())
    path.write_text(json.dumps(good) + "\n" + json.dumps(other | {"rejected": "{}"}))
    with pytest.raises(UserError, match=r'a\.jsonl, row 1, key "rejected"'):
        read_pairs(path, PAPER13)
