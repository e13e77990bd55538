"""``litechex prepare``: files beside the reports that match less than they seem to, and options of other sources."""

from __future__ import annotations

from pathlib import Path

import pytest

from lite_chex.data.prepare import LabelFiles, prepare
from lite_chex.data.readers import iter_reports
from lite_chex.data.sources import SourceOptions
from lite_chex.errors import UserError
from lite_chex.findings import PAPER13
from tests.data.test_prepare import csv_file, rows_of

OPTIONS = SourceOptions(PAPER13)
REPORTS = [["study_id", "report", "split"], ["1", "Wet.", "TRAIN"], ["2", "Dry.", "train"]]


def test_a_split_file_comes_before_the_sources_own_splits(tmp_path: Path) -> None:
    reports, output = csv_file(tmp_path / "r.csv", REPORTS), tmp_path / "o.parquet"
    splits = csv_file(tmp_path / "s.csv", [["study_id", "split"], ["1", "Test"]])
    prepare("table", reports, output, OPTIONS, LabelFiles(splits=splits))
    assert [r["split"] for r in rows_of(output)] == ["test", "train"]
    other = csv_file(tmp_path / "other.csv", [["study_id", "split"], ["9", "test"]])
    with pytest.raises(UserError, match=r"other\.csv: none of its studies is a report"):
        prepare("table", reports, output, OPTIONS, LabelFiles(splits=other))


def test_labels_that_match_nothing_are_refused_also_beside_gold(tmp_path: Path) -> None:
    reports, output = csv_file(tmp_path / "r.csv", REPORTS), tmp_path / "o.parquet"
    gold = csv_file(tmp_path / "g.csv", [["study_id", "Edema"], ["1", "1.0"]])
    labels = csv_file(tmp_path / "l.csv", [["study_id", "Edema"], ["s1", "1.0"], ["s2", ""]])
    with pytest.raises(UserError, match=r"l\.csv: none of its 2 ids"):
        prepare("table", reports, output, OPTIONS, LabelFiles(labels=labels, gold=gold))
    same = csv_file(tmp_path / "same.csv", [["study_id", "Edema"], ["1", ""]])
    prepare("table", reports, output, OPTIONS, LabelFiles(labels=same, gold=gold))  # all of them have gold
    assert rows_of(output)[0]["Edema"] == "1.0"


def test_rows_of_a_label_file_are_counted_once_and_its_other_columns_named(tmp_path: Path) -> None:
    reports = csv_file(tmp_path / "r.csv", [["study_id", "report"], ["1", "Wet."], ["1", "Dry."], ["1", "Dry."]])
    labels = csv_file(tmp_path / "l.csv", [["study_id", "Edema", "lung_opacity"], ["1", "1.0", ""], ["7", "", ""]])
    notes = prepare("table", reports, tmp_path / "o.parquet", OPTIONS, LabelFiles(labels=labels)).notes
    assert notes == [
        "l.csv has columns that are no finding of paper13: lung_opacity",
        "l.csv: 1 of its 2 rows has no report here",
    ]


def test_a_patient_is_the_same_as_a_whole_float(tmp_path: Path) -> None:
    rows = [["study_id", "subject_id", "report"], ["1.0", "10000032.0", "Wet."], ["2", "10000032", "Dry."]]
    one, other = iter_reports(csv_file(tmp_path / "r.csv", rows))
    assert one.patient_id == other.patient_id == "10000032"
    assert one.study_id == "1.0"


@pytest.mark.parametrize("source", ["mimic-cxr", "chexpert-plus", "chexgpt"])
def test_an_option_that_a_source_does_not_take_is_refused(tmp_path: Path, source: str) -> None:
    path = csv_file(tmp_path / "r.csv", [["path_to_image", "report", "text", "label"], ["a", "Wet.", "Wet.", "{}"]])
    with pytest.raises(UserError, match=f"--text-column: --source {source} has a text of its own"):
        prepare(source, path, tmp_path / "o.parquet", SourceOptions(PAPER13, text_column="section_impression"))
    if source == "chexgpt":
        with pytest.raises(UserError, match="nope"):
            prepare(source, path, tmp_path / "o.parquet", SourceOptions(PAPER13, id_column="nope"))


def test_chexberts_own_text_column_is_read(tmp_path: Path) -> None:
    path = csv_file(tmp_path / "r.csv", [["report", "Report Impression"], ["whole", "Edema."]])
    prepare("chexbert", path, tmp_path / "o.parquet", OPTIONS)
    assert rows_of(tmp_path / "o.parquet")[0]["report"] == "Edema."


def test_a_view_without_text_does_not_stand_for_its_study(tmp_path: Path) -> None:
    view = "CheXpert-v1.0/train/patient00001/study1/view{}_frontal.jpg"
    rows = [["path_to_image", "report"], [view.format(1), ""], [view.format(2), "FINDINGS: Wet."]]
    prepare("chexpert-plus", csv_file(tmp_path / "c.csv", rows), tmp_path / "o.parquet", OPTIONS)
    assert [r["report"] for r in rows_of(tmp_path / "o.parquet")] == ["", "Wet."]


def test_the_folder_of_one_patient_has_the_patient_in_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "p10000032"
    folder.mkdir()
    (folder / "s50000001.txt").write_text(" IMPRESSION:  Clear.\n")
    prepare("mimic-cxr", folder, tmp_path / "o.parquet", OPTIONS)
    assert rows_of(tmp_path / "o.parquet")[0]["patient_id"] == "10000032"


def test_one_bad_first_row_is_one_bad_report(tmp_path: Path) -> None:
    path = tmp_path / "reports.csv"
    path.write_bytes("Caf\xe9.\nClear.\n".encode("cp1252"))
    summary = prepare("chexpert-labeler", path, tmp_path / "o.parquet", OPTIONS)
    assert (summary.reports, summary.unreadable) == (2, 1)
    assert rows_of(tmp_path / "o.parquet")[1]["report"] == "Clear."


def test_a_file_name_that_is_not_utf8_is_no_traceback(tmp_path: Path) -> None:
    folder = tmp_path / "xml"
    folder.mkdir()
    content = b'<r><AbstractText Label="FINDINGS">Wet.</AbstractText></r>'
    Path(str(folder / "caf") + "\udce9.xml").write_bytes(content)
    prepare("openi", folder, tmp_path / "o.parquet", OPTIONS)
    assert rows_of(tmp_path / "o.parquet")[0]["study_id"] == "caf?"
