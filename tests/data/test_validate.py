"""``litechex validate``: what is wrong, row by row, in 80 columns and without report text."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import lite_chex.cli.data  # noqa: F401  (registers the commands)
from lite_chex.cli.app import main
from lite_chex.data.prepare import prepare
from lite_chex.data.sources import SourceOptions
from lite_chex.data.tables import NOT_UTF8
from lite_chex.data.validate import validate_file, validate_labels, validate_reports
from lite_chex.errors import UserError
from lite_chex.findings import CHEXPERT14, PAPER13


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "argv", ["litechex", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_:
        main()
    return int(exit_.value.code or 0)


@pytest.fixture
def bad_reports(tmp_path: Path) -> Path:
    path = tmp_path / "reports.csv"
    path.write_bytes(
        b"study_id,report\ns1,The lungs are clear.\ns2,\ns1,A hazy base.\ns4\n,Big heart.\ns6,caf\xe9\ns7,___ .\n"
        b"s8,the lungs are CLEAR\n"
    )
    return path


def test_reports(bad_reports: Path) -> None:
    found = validate_reports(bad_reports)
    assert [(p.row, p.column, p.what) for p in found.problems] == [
        (1, "report", "empty report"),
        (2, "study_id", "id already used by an earlier row"),
        (3, None, "1 cell, but the header has 2"),
        (4, "study_id", "no id"),
        (5, None, NOT_UTF8),
        (6, "report", "report without a word"),
    ]
    assert found.rows == 8
    assert any("2 reports share their text" in note for note in found.notes)


def test_labels(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(
        "id,Edema,Fracture,No Finding\n1,1.0,,1.0\n2,2,A,\n2,,,0.0\n4,,\n5,the lungs are wet,,\n6,-1.0,x,\n"
    )
    found = validate_labels(path, PAPER13)
    assert [(p.row, p.column) for p in found.problems] == [
        (1, "Edema"),
        (1, "Fracture"),
        (2, "id"),
        (3, None),
        (4, "Edema"),
    ]
    assert not any("wet" in p.what for p in found.problems)
    assert any("1 row has No Finding beside" in note for note in found.notes)
    assert any("1 other code read as blank" in note for note in found.notes)
    assert validate_labels(path, PAPER13, presence=True).wrong == 4


def test_a_file_is_checked_as_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "both.csv"
    path.write_text("study_id,report,Edema\n1,,7\n")
    assert [f.wrong for f in validate_file(path, CHEXPERT14)] == [1, 1]
    assert [f.wrong for f in validate_file(path, CHEXPERT14, labels=True)] == [1]
    path.write_text("study_id,Edema\n1,1.0\n")
    assert [f.wrong for f in validate_file(path, CHEXPERT14)] == [0]
    path.write_text("study_id,befund\n1,clear\n")
    with pytest.raises(UserError, match="no text column"):
        validate_file(path, CHEXPERT14)
    with pytest.raises(UserError, match="no column is a finding"):
        validate_file(path, CHEXPERT14, labels=True)
    path.write_text("study_id,report\n")
    assert validate_file(path, CHEXPERT14)[0].problems[0].what == "no rows"


def test_a_parquet_file_says_itself_that_it_is_presence_gold(tmp_path: Path) -> None:
    source = tmp_path / "r.csv"
    source.write_text("uid,report,Edema\n1,Wet.,A\n2,Dry.,1\n")
    prepare("table", source, tmp_path / "p.parquet", SourceOptions(CHEXPERT14, presence=True))
    reports, labels = validate_file(tmp_path / "p.parquet", CHEXPERT14)
    assert labels.kind.startswith("presence gold")
    assert reports.wrong == labels.wrong == 0


def test_a_damaged_file_is_a_problem_with_its_good_rows_counted(tmp_path: Path) -> None:
    import gzip
    import random

    path = tmp_path / "r.csv.gz"
    rng = random.Random(0)
    rows = "".join(f"{i},Report {rng.random()}\n" for i in range(20000))
    path.write_bytes(gzip.compress(f"id,report\n{rows}".encode())[:-5000])
    found = validate_reports(path)
    assert found.rows > 1000
    assert found.problems[-1].what.startswith("ends early: is no complete gzip")


def test_the_command(
    bad_reports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "validate", bad_reports) == 1
    out = capsys.readouterr().out
    assert "6 problems" in out
    assert "empty report" in out
    assert "hazy" not in out
    assert "Big heart" not in out
    assert max(map(len, out.splitlines())) <= 80
    assert run(monkeypatch, "validate", bad_reports, "--limit", "2") == 1
    assert "and 4 more" in capsys.readouterr().out
    good = tmp_path / "good.csv"
    good.write_text("uid,Edema\n1,1.0\n2,\n")
    assert run(monkeypatch, "validate", good, "--labels") == 0
    assert "nothing wrong" in capsys.readouterr().out
    good.write_text("uid,Edema\n1,1\n2,A\n")
    assert run(monkeypatch, "validate", good) == 1
    assert run(monkeypatch, "validate", good, "--presence", "--findings", "paper13") == 0


def test_the_command_on_a_wrong_file_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "validate", tmp_path / "none.csv") == 1
    error = capsys.readouterr().err
    assert error == f"litechex: {tmp_path / 'none.csv'}: no such file\n"
    assert run(monkeypatch, "validate", tmp_path / "none.csv", "--findings", "mine") == 1
    assert '"mine" is none of paper13, chexpert14' in capsys.readouterr().err
