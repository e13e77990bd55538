"""Reports from every kind of file: the same rows, and a bad row never ends the run."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from lite_chex.data import tables
from lite_chex.data.readers import count_rows, id_column_of, iter_reports, report_columns
from lite_chex.errors import UserError

KINDS = (".csv", ".csv.gz", ".jsonl", ".jsonl.gz", ".parquet")


def write(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    """Write one table as the kind of file that the name asks for."""
    if path.name.endswith(".parquet"):
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({c: [row[i] for row in rows] for i, c in enumerate(columns)}), path)
        return path
    opener = gzip.open if path.name.endswith(".gz") else open
    with opener(path, "wt", encoding="utf-8", newline="") as file:
        if ".jsonl" in path.name:
            file.writelines(json.dumps(dict(zip(columns, row))) + "\n" for row in rows)
        else:
            csv.writer(file).writerows([columns, *rows])
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_gives_the_same_reports(tmp_path: Path, kind: str) -> None:
    rows = [["s1", "The lungs, as before,\nare clear."], ["s2", ""], ["s3", 'A "mass" at the left apex - 3 cm.']]
    path = write(tmp_path / f"reports{kind}", ["study_id", "report"], rows)
    reports = list(iter_reports(path))
    assert [(r.row, r.study_id, r.text, r.error) for r in reports] == [
        (i, study, text, None) for i, (study, text) in enumerate(rows)
    ]
    assert count_rows(path) == 3
    assert report_columns(path) == ["study_id", "report"]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (["text", "report"], "report"),
        (["Report Impression", "text"], "text"),
        (["Reports", "Report Impression"], "Report Impression"),
        (["other", "Reports"], "Reports"),
        (["findings", "impression", "text"], "text"),
    ],
)
def test_the_text_column_is_the_first_of_the_contract(tmp_path: Path, columns: list[str], expected: str) -> None:
    path = write(tmp_path / "r.csv", columns, [columns])
    assert next(iter_reports(path)).text == expected


def test_text_column_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv", ["report", "befund"], [["no", "yes"]])
    assert next(iter_reports(path, text_column="befund")).text == "yes"


@pytest.mark.parametrize("kind", [".csv", ".jsonl", ".parquet"])
def test_findings_and_impression_are_joined_and_empty_ones_left_out(tmp_path: Path, kind: str) -> None:
    rows = [["1", "Clear lungs.", "Normal."], ["2", "", "Normal."], ["3", "Clear lungs. ", ""], ["4", "", " "]]
    path = write(tmp_path / f"r{kind}", ["uid", "findings", "impression"], rows)
    reports = list(iter_reports(path))
    assert [r.text for r in reports] == ["Clear lungs.\nNormal.", "Normal.", "Clear lungs.", ""]
    assert [r.findings for r in reports] == ["Clear lungs.", None, "Clear lungs. ", None]
    assert reports[3].error is None


def test_nulls_are_empty_reports(tmp_path: Path) -> None:
    path = write(tmp_path / "r.parquet", ["id", "findings", "impression"], [["1", None, "Normal."], ["2", None, None]])
    assert [r.text for r in iter_reports(path)] == ["Normal.", ""]
    path = write(tmp_path / "r.jsonl", ["id", "report"], [["1", None], ["2", 5]])
    assert [r.text for r in iter_reports(path)] == ["", "5"]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (["path_to_image", "id", "uid", "study_id"], "study_id"),
        (["path_to_image", "id", "uid"], "uid"),
        (["path_to_image", "id"], "id"),
        (["path_to_image"], "path_to_image"),
        (["accession"], "row"),
    ],
)
def test_id_column(tmp_path: Path, columns: list[str], expected: str) -> None:
    path = write(tmp_path / "r.csv", [*columns, "report"], [[*columns, "a"], [*columns, "b"]])
    assert id_column_of(path) == expected
    assert [r.study_id for r in iter_reports(path)] == (["0", "1"] if expected == "row" else [expected] * 2)
    assert id_column_of(path, columns[0]) == columns[0]
    with pytest.raises(UserError, match='no column "case"'):
        id_column_of(path, "case")


def test_ids_are_the_same_text_whatever_their_type(tmp_path: Path) -> None:
    path = write(tmp_path / "r.parquet", ["study_id", "subject_id", "report"], [[50414267.0, 10000032, "a"]])
    report = next(iter_reports(path))
    assert (report.study_id, report.patient_id) == ("50414267", "10000032")


def test_headers_in_the_text_fill_the_sections_and_leave_the_text_whole(tmp_path: Path) -> None:
    text = "INDICATION: Cough.\nFINDINGS: No effusion.\nIMPRESSION: Normal chest."
    path = write(tmp_path / "r.csv", ["id", "report"], [["1", text]])
    report = next(iter_reports(path))
    assert (report.text, report.findings, report.impression) == (text, "No effusion.", "Normal chest.")


def test_sections_of_another_text_are_not_taken(tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv", ["id", "text_b", "findings"], [["1", "mine", "not mine"]])
    assert next(iter_reports(path, text_column="text_b")).findings is None


def test_bad_csv_rows_are_error_rows(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_bytes(
        b"\xef\xbb\xbfstudy_id,report\ns1,Clear.\ns2,Clear.,extra\ns3\ns4,caf\xe9\n\ns5,\xc3\xa9tat normal\n"
        b's6,"never closed\ns7,"next"\ns8,Clear.\n'
    )
    reports = list(iter_reports(path))
    assert [(r.study_id, r.error is None) for r in reports] == [
        ("s1", True),
        ("s2", False),
        ("s3", False),
        ("s4", False),
        ("s5", True),
        ("row 5", False),  # the quote's row, and the row that its quote runs into
        ("s8", True),
    ]
    assert reports[1].error == "3 cells, but the header has 2"
    assert reports[3].error == "not UTF-8"
    assert all(r.text == "" for r in reports if r.error)
    assert reports[4].text == "état normal"
    assert [r.row for r in reports] == list(range(7))
    assert count_rows(path) == 7


def test_a_quote_open_to_the_end_loses_only_what_is_behind_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.csv"
    path.write_text('id,report\n1,a\n2,"open\n3,b\n4,c\n')
    assert [(r.text, bool(r.error)) for r in iter_reports(path)] == [("a", False), ("", True)]
    # In a long file the row ends at the longest cell allowed, and the rows behind it are read again.
    monkeypatch.setattr(tables, "CELL_LIMIT", 300)
    path.write_text('id,report\n1,a\n2,"open\n' + "".join(f"{i},row {i}\n" for i in range(3, 200)))
    reports = list(iter_reports(path))
    assert reports[1].error is not None
    assert reports[-1].text == "row 199"
    assert count_rows(path) == len(reports) > 100


def test_bad_json_lines_are_error_rows(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(
        b'{"id": 1, "report": "a"}\n{"id": 2, "report": \n\n[1]\n{"id": 4, "report": "\xff"}\n'
        b'{"id": 5, "report": ["a"]}\n{"report": "b"}\n{"id": 7}\n'
    )
    reports = list(iter_reports(path))
    assert [r.text for r in reports] == ["a", "", "", "", "", "", ""]
    assert [r.error for r in reports] == [
        None,
        "not a JSON object",
        "not a JSON object",
        "not UTF-8",
        "the report is not text",
        "no id",
        None,
    ]
    assert count_rows(path) == 7


def test_missing_columns_are_named_with_those_present(tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv", ["study_id", "befund"], [["1", "a"]])
    with pytest.raises(UserError, match=r"r\.csv: no text column.*--text-column.*study_id, befund"):
        iter_reports(path)
    with pytest.raises(UserError, match=r'r\.csv: no column "bericht"; its columns are study_id, befund'):
        iter_reports(path, text_column="bericht")


def test_unreadable_files_are_user_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        iter_reports(tmp_path / "none.csv")
    (tmp_path / "r.xlsx").write_text("x")
    with pytest.raises(UserError, match=r"must end in one of \.csv"):
        iter_reports(tmp_path / "r.xlsx")
    (tmp_path / "r.parquet").write_text("not parquet")
    with pytest.raises(UserError, match="no readable Parquet"):
        iter_reports(tmp_path / "r.parquet")
    (tmp_path / "r.csv.gz").write_text("not gzip")
    with pytest.raises(UserError, match="no complete gzip"):
        iter_reports(tmp_path / "r.csv.gz")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(UserError, match="is empty"):
        iter_reports(tmp_path / "empty.csv")
    with pytest.raises(UserError, match="is a folder"):
        iter_reports(tmp_path)
    (tmp_path / "twice.csv").write_text("report,report\na,b\n")
    with pytest.raises(UserError, match='"report" stands twice'):
        iter_reports(tmp_path / "twice.csv")


def test_a_file_cut_off_in_the_middle_gives_its_rows_and_then_the_error(tmp_path: Path) -> None:
    rows = [[str(i), f"Report number {i * 7919 % 10007} of this file."] for i in range(20000)]
    path = write(tmp_path / "r.csv.gz", ["id", "report"], rows)
    path.write_bytes(path.read_bytes()[:-2000])
    reports = iter_reports(path)
    assert [next(reports).study_id for _ in range(1000)] == [str(i) for i in range(1000)]
    with pytest.raises(UserError, match=r"r\.csv\.gz: is no complete gzip file"):
        list(reports)
