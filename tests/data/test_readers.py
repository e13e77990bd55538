"""Reports from every kind of file: the same rows, and a bad row never ends the run."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from lite_chex.data import tables
from lite_chex.data.labels import read_labels
from lite_chex.data.readers import count_rows, id_column_of, iter_reports, report_columns
from lite_chex.errors import UserError
from lite_chex.findings import PAPER13

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


def test_half_a_character_costs_its_own_row_alone(tmp_path: Path) -> None:
    """JSON can hold what no UTF-8 file, tokenizer or database takes; its id is kept where that is whole."""
    path = tmp_path / "r.jsonl"
    rows = [{"study_id": "a", "report": "Effusion \ud83d."}, {"study_id": "b\udc00", "report": "Clear \U0001f600."}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    reports = list(iter_reports(path))
    assert [(r.study_id, r.error) for r in reports] == [("a", tables.HALF_CHARACTER), ("row 1", tables.HALF_CHARACTER)]
    assert not any(r.text for r in reports)


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
    path = write(tmp_path / "r.jsonl", ["id", "report"], [["1", None], ["2", 5], ["3", True]])
    assert [(r.text, r.error) for r in iter_reports(path)] == [("", None), *[("", "the report is not text")] * 2]


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
    path = write(tmp_path / "r.csv", ["study_id", "report"], [["50414267.0", "a"]])
    assert next(iter_reports(path)).study_id == "50414267.0"  # text: nothing says that it was a number


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
        ("row 5", False),
        ("s7", True),
        ("s8", True),
    ]
    assert reports[1].error == "3 cells, but the header has 2"
    assert reports[3].error == tables.NOT_UTF8
    assert "iconv -f cp1252 -t utf-8" in tables.NOT_UTF8
    assert all(r.text == "" for r in reports if r.error)
    assert reports[4].text == "état normal"
    assert [r.row for r in reports] == list(range(8))
    assert count_rows(path) == 8


@pytest.mark.parametrize("limit", [300, 1_000_000])
@pytest.mark.parametrize(
    ("row", "broken", "lines"),
    [
        ("{},Clear lungs {}.\n", '100,"Clear lungs.\n', "line 102 is"),
        ('{},"Heart, lungs {}."\n', '100,"Heart, lungs.\n', "line 102 is"),
        ('{},"Heart, lungs {}."\n', '100,"The "heart", lungs."\n', "line 102 is"),
        (
            '{},"Heart,\n2. no ""new""\n\nfinding, {}."\n',
            '100,"Heart, big.\nHowever, it\nis.\n',
            "lines 402 to 404 are",
        ),
        ('{},"Heart\nof size {}."\n', '100,"The "heart".\nIt, I think,\nis "big"."\n', "lines 202 to 204 are"),
        ('"s-{}","Heart\nof size {}."\n', '"s-100","Heart,\nbig.\n', "lines 202 to 203 are"),
        ('"Heart\nof size {1}.",{0}\n', '"Heart\nbig, or not.,100\n', "lines 202 to 203 are"),
    ],
)
def test_a_broken_quote_loses_its_own_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: str, broken: str, lines: str, limit: int
) -> None:
    monkeypatch.setattr(tables, "CELL_LIMIT", limit)
    header = "report,id\n" if "{1}" in row else "id,report\n"
    path = tmp_path / "r.csv"
    path.write_text(header + "".join(row.format(i, i) for i in range(1000)))
    whole = list(iter_reports(path))
    path.write_text(header + "".join(broken if i == 100 else row.format(i, i) for i in range(1000)))
    reports = list(iter_reports(path))
    assert len(whole) == 1000
    assert reports[:100] + reports[101:] == whole[:100] + whole[101:]
    assert reports[100].error == f"{lines} not readable as CSV (a quote is stray or never closed, or a cell too long)"
    assert count_rows(path) == 1000


def test_two_broken_quotes_and_one_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text('id,report\n1,"a\n2,"b\n3,c\n4,"d\ne\n')
    reports = list(iter_reports(path))
    assert [(r.row, r.text, bool(r.error)) for r in reports] == [
        (0, "", True),
        (1, "", True),
        (2, "c", False),
        (3, "", True),
    ]
    assert str(reports[3].error).startswith("lines 5 to 6 are not readable")
    path.write_text('id,"report\n1,a\n')
    with pytest.raises(UserError, match=r"line 1 is not readable as CSV .*: a header line|lines 1 to 2 are"):
        iter_reports(path)


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
        tables.NOT_UTF8,
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


@pytest.mark.parametrize(
    "lines",
    [
        "7,Heart is enlarged. No pneumothorax.\n8,Clear.\n",
        "s7,Heart without any sign of enlargement today\n",
        "s7,Heart is enlarged.,Heart is enlarged.\n",
        "7,Heart\n",
    ],
)
def test_no_message_repeats_a_report_that_stands_in_the_headers_place(tmp_path: Path, lines: str) -> None:
    path = tmp_path / "r.csv"
    path.write_text(lines)
    for read in (iter_reports, lambda p: iter_reports(p, "befund"), lambda p: read_labels(p, PAPER13)):
        with pytest.raises(UserError, match=r"columns have no usual names: the file may have no header") as error:
            read(path)
        assert "Heart" not in str(error.value)


def test_report_text_in_the_ids_place_of_a_bad_row_is_no_id(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("id,report\ns1,Heart, lungs\nNo pneumothorax\nA-2,\n")
    assert [r.study_id for r in iter_reports(path)] == ["s1", "row 1", "A-2"]


@pytest.mark.parametrize(("delimiter", "name"), [(";", '";"'), ("\t", "tabs"), ("|", r'"\|"')])
def test_another_delimiter_is_named(tmp_path: Path, delimiter: str, name: str) -> None:
    path = tmp_path / "r.csv"
    path.write_text(f"study_id{delimiter}report\n1{delimiter}Clear, as before.\n")
    for column in (None, "report"):
        with pytest.raises(UserError, match=f"its columns are separated by {name}: save it with commas"):
            iter_reports(path, column)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("Fall-Nr.;Datum, Zeit;Befund", 'its columns are separated by ";": save it with commas'),
        ("sep=,\nid,befund", "its first line is Excel's sep=, not a header: remove that line"),
        ("sep=;\nid;befund", "its first line is Excel's sep=, not a header: remove that line"),
        ("id,befund;alt", "its columns are id, befund;alt"),
    ],
)
def test_headers_of_spreadsheets_are_named(tmp_path: Path, header: str, said: str) -> None:
    path = tmp_path / "r.csv"
    path.write_text(header + "\n")
    with pytest.raises(UserError, match=said):
        iter_reports(path)


def test_another_encoding_is_named_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("study_id,report\n1,Clear.\n", encoding="utf-16")
    with pytest.raises(UserError, match="is UTF-16; convert it with iconv -f utf-16 -t utf-8"):
        iter_reports(path)
    path.write_text("study_id,täxt\n1,Clear.\n", encoding="cp1252")
    with pytest.raises(UserError, match=r"its header is not UTF-8; .*iconv -f cp1252 -t utf-8"):
        iter_reports(path)


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
