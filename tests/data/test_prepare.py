"""``litechex prepare`` on made-up files of exactly the layouts that people have on disk."""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

import lite_chex.cli.data  # noqa: F401  (registers the commands)
from lite_chex.cli.app import main
from lite_chex.data.labels import read_labels
from lite_chex.data.prepare import LabelFiles, prepare, read_splits
from lite_chex.data.readers import iter_reports
from lite_chex.data.sources import SourceOptions
from lite_chex.data.summary import Summary
from lite_chex.errors import UserError
from lite_chex.findings import CHEXPERT14, PAPER13, SKIP, Certainty

P, N, U, A = Certainty.POSITIVE, Certainty.NEGATIVE, Certainty.UNCERTAIN, Certainty.ABSENT
OPTIONS = SourceOptions(CHEXPERT14)
JPG_COLUMNS = ["subject_id", "study_id", "Atelectasis", "Cardiomegaly", "Lung Opacity", "No Finding", "Pneumonia"]


def mimic_text(findings: str, impression: str) -> str:
    return (
        "                                 FINAL REPORT\n EXAMINATION:  CHEST (PA AND LAT)\n \n"
        " INDICATION:  ___F with cough  // pneumonia?\n \n"
        f" FINDINGS: \n \n {findings}\n \n IMPRESSION: \n \n {impression}\n"
    )


MIMIC = {
    "files/p10/p10000032/s50000001.txt": mimic_text("The right base is\n hazy.", "Haze, perhaps\n atelectasis."),
    "files/p10/p10000032/s50000002.txt": mimic_text("The lungs look clear.", "Nothing new."),
    "files/p10/p10000764/s50000003.txt": " FINAL REPORT\n INDICATION:  Fever.\n \n Heart of usual size.\n",
    "files/p11/p11000011/s50000004.txt": "",
    "files/README.txt": "not a report",
}


def csv_file(path: Path, rows: Sequence[Sequence[object]]) -> Path:
    opener = gzip.open if path.name.endswith(".gz") else open
    with opener(path, "wt", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


@pytest.fixture
def mimic(tmp_path: Path) -> Path:
    path = tmp_path / "mimic-cxr-reports.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in MIMIC.items():
            archive.writestr(name, text)
    return path


@pytest.fixture
def jpg(tmp_path: Path) -> LabelFiles:
    labels = csv_file(
        tmp_path / "mimic-cxr-2.0.0-chexpert.csv.gz",
        [
            JPG_COLUMNS,
            ["10000032", "50000001", "-1.0", "", "1.0", "", "0.0"],
            ["10000032", "50000002", "", "", "", "1.0", ""],
            ["10000764", "50000003", "", "0.0", "", "1.0", ""],
            ["11000011", "50000004", "", "", "", "", ""],
        ],
    )
    splits = csv_file(
        tmp_path / "mimic-cxr-2.0.0-split.csv.gz",
        [["dicom_id", "study_id", "subject_id", "split"]]
        + [[f"d{i}{view}", f"5000000{i}", "1", ["train", "train", "validate", "test"][i - 1]] for i in (1, 2, 3, 4)
           for view in "ab"],
    )  # fmt: skip
    return LabelFiles(labels=labels, splits=splits)


def rows_of(path: Path) -> list[dict[str, object]]:
    import pyarrow.parquet as pq

    return list(pq.read_table(path).to_pylist())


def count(summary: Summary, finding: str, certainty: int) -> int:
    return int(summary.label_counts[summary.findings.index(finding), certainty])


def test_mimic_zip_with_the_jpg_releases_labels_and_splits(tmp_path: Path, mimic: Path, jpg: LabelFiles) -> None:
    output = tmp_path / "out" / "mimic.parquet"
    summary = prepare("mimic-cxr", mimic, output, OPTIONS, jpg)
    rows = rows_of(output)
    assert [r["study_id"] for r in rows] == ["50000001", "50000002", "50000003", "50000004"]
    assert [r["patient_id"] for r in rows] == ["10000032", "10000032", "10000764", "11000011"]
    assert [r["split"] for r in rows] == ["train", "train", "validation", "test"]
    assert rows[0]["findings"] == "The right base is hazy."
    assert rows[0]["impression"] == "Haze, perhaps atelectasis."
    assert rows[0]["report"] == "The right base is hazy.\nHaze, perhaps atelectasis."
    assert (rows[2]["report"], rows[2]["findings"]) == ("Heart of usual size.", None)
    assert rows[3]["report"] == ""
    assert [r["Atelectasis"] for r in rows] == [-1.0, None, None, None]
    assert [r["No Finding"] for r in rows] == [None, 1.0, 1.0, None]
    assert "Fracture" not in rows[0]
    assert (summary.reports, summary.empty, summary.patients, summary.unreadable) == (4, 1, 3, 0)
    assert summary.splits == {"train": 2, "validation": 1, "test": 1}
    assert [count(summary, "Cardiomegaly", c) for c in Certainty] == [0, 1, 0, 3]
    assert any("1 text files are not named like a study" in note for note in summary.notes)


def test_what_is_written_is_read_by_the_readers(tmp_path: Path, mimic: Path, jpg: LabelFiles) -> None:
    output = tmp_path / "mimic.parquet"
    prepare("mimic-cxr", mimic, output, OPTIONS, jpg)
    reports = list(iter_reports(output))
    assert [r.text for r in reports][:2] == [
        "The right base is hazy.\nHaze, perhaps atelectasis.",
        "The lungs look clear.\nNothing new.",
    ]
    assert reports[0].findings == "The right base is hazy."
    assert reports[0].patient_id == "10000032"
    table = read_labels(output, PAPER13)
    assert table.ids == [r.study_id for r in reports]
    assert table.values[:, PAPER13.index("Atelectasis")].tolist() == [U, A, A, A]
    assert table.columns.sum() == 5


def test_a_folder_reads_as_the_zip_does(tmp_path: Path, mimic: Path) -> None:
    for name, text in MIMIC.items():
        path = tmp_path / "unpacked" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    prepare("mimic-cxr", mimic, tmp_path / "a.parquet", OPTIONS)
    prepare("mimic-cxr", tmp_path / "unpacked", tmp_path / "b.parquet", OPTIONS)
    assert rows_of(tmp_path / "a.parquet") == rows_of(tmp_path / "b.parquet")
    prepare("mimic-cxr", mimic, tmp_path / "c.parquet", SourceOptions(CHEXPERT14, sections=False))
    whole = rows_of(tmp_path / "c.parquet")[0]
    assert whole["report"] == MIMIC["files/p10/p10000032/s50000001.txt"]
    assert whole["findings"] == "The right base is hazy."


def test_gold_replaces_labels_and_what_no_file_knows_is_not_scored(
    tmp_path: Path, mimic: Path, jpg: LabelFiles
) -> None:
    gold = csv_file(
        tmp_path / "mimic-cxr-2.1.0-test-set-labeled.csv",
        [["study_id", "Airspace Opacity", "Pneumonia"], ["50000001", "0.0", "-1.0"], ["59999999", "1.0", ""]],
    )
    output = tmp_path / "m.parquet"
    summary = prepare("mimic-cxr", mimic, output, OPTIONS, LabelFiles(jpg.labels, gold))
    table = read_labels(output, CHEXPERT14)
    opacity, atelectasis = CHEXPERT14.index("Lung Opacity"), CHEXPERT14.index("Atelectasis")
    assert table.values[:, opacity].tolist() == [N, A, A, A]
    assert table.values[0, CHEXPERT14.index("Pneumonia")] == U
    # Gold has no column for it: that study's cell says nothing, and is not read as absent.
    assert table.values[:, atelectasis].tolist() == [SKIP, A, A, A]
    assert [r["label_source"] for r in rows_of(output)] == ["gold", "labels", "labels", "labels"]
    assert any("1 of its 2 rows has no report" in note for note in summary.notes)

    prepare("mimic-cxr", mimic, output, OPTIONS, LabelFiles(gold=gold))
    table = read_labels(output, CHEXPERT14)
    assert table.values[:, opacity].tolist() == [N, SKIP, SKIP, SKIP]
    assert [r["Lung Opacity"] for r in rows_of(output)] == ["0.0", "x", "x", "x"]


def test_files_that_do_not_belong_together(tmp_path: Path, mimic: Path, jpg: LabelFiles) -> None:
    output = tmp_path / "m.parquet"
    output.write_text("old")
    other = csv_file(tmp_path / "other.csv", [["study_id", "Edema", "split"], ["7", "1.0", "train"]])
    with pytest.raises(UserError, match=r'other\.csv: none of its 1 ids .*"7".*"50000001"'):
        prepare("mimic-cxr", mimic, output, OPTIONS, LabelFiles(labels=other))
    with pytest.raises(UserError, match=r"other\.csv: none of its studies"):
        prepare("mimic-cxr", mimic, output, OPTIONS, LabelFiles(splits=other))
    assert output.read_text() == "old"
    assert not list(tmp_path.glob(".*"))
    twice = csv_file(tmp_path / "twice.csv", [["study_id", "split"], ["7", "train"], ["7", "test"]])
    with pytest.raises(UserError, match='study "7" is in two splits'):
        read_splits(twice)


def test_chexpert_plus(tmp_path: Path) -> None:
    columns = ["path_to_image", "deid_patient_id", "report", "section_findings", "section_impression"]
    report = "NARRATIVE:\nAP CHEST\n\nIMPRESSION:\n\n1. The left base is hazy."
    path = csv_file(
        tmp_path / "df_chexpert_plus_240401.csv",
        [
            columns,
            ["train/patient00001/study1/view1_frontal.jpg", "patient00001", report, "", "1. The left base is hazy."],
            ["train/patient00001/study1/view2_lateral.jpg", "patient00001", report, "", "1. The left base is hazy."],
            ["valid/patient00002/study1/view1_frontal.jpg", "patient00002", report.replace("hazy", "clear"), "", ""],
        ],
    )
    labels = tmp_path / "report_fixed.json"
    labels.write_text(
        "".join(
            json.dumps({"path_to_image": image, "Lung Opacity": code, "Fracture": None}) + "\n"
            for image, code in (
                ("train/patient00001/study1/view1_frontal.jpg", 1),
                ("train/patient00001/study1/view2_lateral.jpg", 1),
                ("valid/patient00002/study1/view1_frontal.jpg", 0),
            )
        )
    )
    output = tmp_path / "o.parquet"
    summary = prepare("chexpert-plus", path, output, OPTIONS, LabelFiles(labels=labels))
    rows = rows_of(output)
    assert [(r["study_id"], r["patient_id"], r["split"]) for r in rows] == [
        ("train/patient00001/study1/view1_frontal.jpg", "patient00001", "train"),
        ("valid/patient00002/study1/view1_frontal.jpg", "patient00002", "validation"),
    ]
    assert [r["report"] for r in rows] == ["1. The left base is hazy.", "1. The left base is clear."]
    assert [r["Lung Opacity"] for r in rows] == [1.0, 0.0]
    assert any("1 row of further views" in note for note in summary.notes)


def openi_xml(findings: str, impression: str) -> bytes:
    return (
        '<?xml version="1.0" encoding="utf-8"?><eCitation><MedlineCitation><Article><Abstract>'
        '<AbstractText Label="COMPARISON">None.</AbstractText><AbstractText Label="INDICATION">XXXX &amp; cough'
        f'</AbstractText><AbstractText Label="FINDINGS">{findings}</AbstractText>'
        f'<AbstractText Label="IMPRESSION">{impression}</AbstractText>'
        "</Abstract></Article></MedlineCitation><MeSH><major>normal</major></MeSH></eCitation>"
    ).encode()


def test_openi_archive_folder_and_csv(tmp_path: Path) -> None:
    files = {
        "ecgen-radiology/1.xml": openi_xml("Clear lungs &lt; XXXX.", "Normal."),
        "ecgen-radiology/2.xml": openi_xml("", "No\n  change."),
        "ecgen-radiology/3.xml": b"<eCitation><broken",
    }
    archive = tmp_path / "NLMCXR_reports.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(content)
    summary = prepare("openi", archive, tmp_path / "a.parquet", OPTIONS)
    prepare("openi", tmp_path / "ecgen-radiology", tmp_path / "b.parquet", OPTIONS)
    rows = rows_of(tmp_path / "a.parquet")
    assert rows == rows_of(tmp_path / "b.parquet")
    assert [(r["study_id"], r["patient_id"], r["report"]) for r in rows] == [
        ("1", "1", "Clear lungs < XXXX.\nNormal."),
        ("2", "2", "No change."),
        ("3", "3", ""),
    ]
    assert (summary.unreadable, summary.empty) == (1, 1)
    assert summary.first_unreadable.startswith("3 (")

    table = csv_file(
        tmp_path / "openi.csv",
        [
            ["uid", "MeSH", "Problems", "image", "indication", "comparison", "findings", "impression"],
            ["1", "normal", "normal", "a", "XXXX & cough", "None.", "Clear lungs < XXXX.", "Normal."],
            ["2", "normal", "normal", "b", "", "", "", "No change."],
        ],
    )
    prepare("openi", table, tmp_path / "c.parquet", OPTIONS)
    assert rows_of(tmp_path / "c.parquet") == rows[:2]


def test_chexgpt_json_lines_are_presence_gold(tmp_path: Path) -> None:
    path = tmp_path / "test500_findings.jsonl"
    path.write_text(
        "".join(
            json.dumps({"study_id": study, "text": text, "label": {k: {"status": [v]} for k, v in label.items()}})
            + "\n"
            for study, text, label in (
                (501, "Fluid on the left.", {"effusion": "exist", "nodule": "not_exist", "hyperinflation": "exist"}),
                (502, "A round shadow.", {"effusion": "not_exist", "nodule": "exist", "pulmonary edema": "not_exist"}),
            )
        )
    )
    output = tmp_path / "o.parquet"
    summary = prepare("chexgpt", path, output, OPTIONS)
    rows = rows_of(output)
    assert [r["study_id"] for r in rows] == ["501", "502"]
    assert [r["Pleural Effusion"] for r in rows] == [1.0, None]
    assert [r["Lung Lesion"] for r in rows] == [None, 1.0]
    assert "Pneumonia" not in rows[0]
    assert any("hyperinflation" in note for note in summary.notes)
    with pytest.raises(UserError, match="holds presence gold"):
        read_labels(output, PAPER13)
    assert read_labels(output, PAPER13, presence=True).values[0, PAPER13.index("Pleural Effusion")] == P
    path.write_text('{"study_id": 1, "text": "a", "label": {"effusion": {"status": ["maybe"]}}}\n')
    with pytest.raises(UserError, match=r'row 0 .*status of "effusion"'):
        prepare("chexgpt", path, output, OPTIONS)


def test_chexpert_labelers_headerless_input_and_its_output(tmp_path: Path) -> None:
    path = csv_file(tmp_path / "in.csv", [["Clear lungs, as before."], ["Big heart."], ["Clear lungs, as before"]])
    output = tmp_path / "o.parquet"
    summary = prepare("chexpert-labeler", path, output, OPTIONS)
    assert [(r["study_id"], r["report"]) for r in rows_of(output)] == [
        ("0", "Clear lungs, as before."),
        ("1", "Big heart."),
        ("2", "Clear lungs, as before"),
    ]
    assert summary.duplicate_texts == 1
    names = ["No Finding", *CHEXPERT14.names[:-1]]
    labelled = csv_file(
        tmp_path / "labeled_reports.csv",
        [["Reports", *names], ["Clear.", "1.0", *[""] * 13], ["Big heart.", "", "", "1.0", *[""] * 11]],
    )
    prepare("chexpert-labeler", labelled, output, OPTIONS)
    assert [r["Cardiomegaly"] for r in rows_of(output)] == [None, 1.0]
    # The labels of the one belong to the reports of the other by row number.
    path = csv_file(tmp_path / "in2.csv", [["Clear."], ["Big heart."]])
    prepare("chexpert-labeler", path, output, OPTIONS, LabelFiles(labels=labelled))
    assert [r["No Finding"] for r in rows_of(output)] == [1.0, None]
    with pytest.raises(UserError, match="2 columns; the CheXpert labeler reads one"):
        prepare("chexpert-labeler", csv_file(tmp_path / "x.csv", [["a", "b"]]), output, OPTIONS)


def test_chexbert(tmp_path: Path) -> None:
    path = csv_file(
        tmp_path / "labeled_reports.csv",
        [["Report Impression", *CHEXPERT14.names], ["Wet lungs.", *[""] * 4, "-1.0", *[""] * 9]],
    )
    output = tmp_path / "o.parquet"
    prepare("chexbert", path, output, OPTIONS)
    assert rows_of(output)[0]["Edema"] == -1.0
    with pytest.raises(UserError, match='no column "Report Impression"'):
        prepare("chexbert", csv_file(tmp_path / "x.csv", [["report"], ["a"]]), output, OPTIONS)


def test_any_table(tmp_path: Path) -> None:
    path = csv_file(
        tmp_path / "export.csv",
        [
            ["case", "patient_id", "befund", "split", "Edema", "Fracture"],
            ["c1", "p1", "HISTORY: Cough.\nFINDINGS: Wet lungs.\nIMPRESSION: Edema.", "dev", "1", ""],
            ["c2", "p1", "Clear.", "train", "0", "x"],
            ["c3", "p2", "one", "cell", "too", "many", "1"],
            ["c2", "p3", "clear", "", "", ""],
        ],
    )
    output = tmp_path / "o.parquet"
    options = SourceOptions(PAPER13, text_column="befund", id_column="case")
    summary = prepare("table", path, output, options)
    rows = rows_of(output)
    assert [r["split"] for r in rows] == ["validation", "train", None, None]
    assert [r["Edema"] for r in rows] == ["1.0", "0.0", "x", None]
    assert [r["Fracture"] for r in rows] == [None, "x", "x", None]
    assert str(rows[0]["report"]).startswith("HISTORY")
    assert rows[0]["impression"] == "Edema."
    assert (summary.reports, summary.unreadable, summary.repeated_ids, summary.duplicate_texts) == (4, 1, 1, 1)
    assert summary.across_splits == 2
    prepare("table", path, output, SourceOptions(PAPER13, "befund", "case", sections=True))
    assert rows_of(output)[0]["report"] == "Wet lungs.\nEdema."


def test_label_files_are_matched_by_the_named_id_column(tmp_path: Path) -> None:
    path = csv_file(tmp_path / "accn.csv", [["Accession", "report"], ["2", "Wet."], ["0", "Dry."], ["1", "Dry."]])
    labels = csv_file(tmp_path / "l.csv", [["Accession", "Edema"], ["2", "1.0"], ["0", "0.0"], ["1", "0.0"]])
    output = tmp_path / "o.parquet"
    options = SourceOptions(PAPER13, id_column="Accession")
    prepare("table", path, output, options, LabelFiles(labels=labels, gold=labels))
    assert [(r["study_id"], r["Edema"]) for r in rows_of(output)] == [("2", 1.0), ("0", 0.0), ("1", 0.0)]
    nameless = csv_file(tmp_path / "n.csv", [["Edema"], ["1.0"], ["0.0"], ["0.0"]])
    with pytest.raises(UserError, match=r"n\.csv: its ids are row numbers, the reports' are in column \"Accession\""):
        prepare("table", path, output, options, LabelFiles(labels=nameless))


def test_wrong_codes_and_sources_are_named(tmp_path: Path, mimic: Path) -> None:
    output = tmp_path / "o.parquet"
    path = csv_file(tmp_path / "t.csv", [["id", "report", "Edema"], ["1", "a", "1"], ["2", "b", "3"]])
    with pytest.raises(UserError, match=r't\.csv: row 1 .*column "Edema"'):
        prepare("table", path, output, OPTIONS)
    assert not output.exists()
    with pytest.raises(UserError, match='unknown source "mimic": choose one of mimic-cxr, chexpert-plus'):
        prepare("mimic", mimic, output, OPTIONS)
    with pytest.raises(UserError, match=r"ends in \.parquet"):
        prepare("mimic-cxr", mimic, tmp_path / "o.csv", OPTIONS)
    with pytest.raises(UserError, match="no such file"):
        prepare("table", tmp_path / "none.csv", output, OPTIONS)
    mimic.write_bytes(mimic.read_bytes()[:200])
    with pytest.raises(UserError, match="damaged archive"):
        prepare("mimic-cxr", mimic, output, OPTIONS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no \.txt file"):
        prepare("mimic-cxr", tmp_path / "empty", output, OPTIONS)


def test_a_full_disk_leaves_the_old_output(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    path = csv_file(
        tmp_path / "r.csv", [["id", "report"], *([i, f"Report {i * 7919 % 104729}."] for i in range(20000))]
    )
    output = tmp_path / "o.parquet"
    output.write_text("old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"o\.parquet: could not be written"):
            prepare("table", path, output, OPTIONS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert output.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o.parquet", "r.csv"]


def test_presence_gold_stays_presence_gold(tmp_path: Path) -> None:
    path = csv_file(tmp_path / "r.csv", [["uid", "findings", "impression"], ["1", "Wet.", ""], ["2", "Dry.", ""]])
    codes = csv_file(tmp_path / "p.csv", [["uid", "Edema", "Fracture"], ["1", "1", "A"], ["2", "", ""]])
    output = tmp_path / "o.parquet"
    with pytest.raises(UserError, match="looks like presence gold"):
        prepare("openi", path, output, OPTIONS, LabelFiles(labels=codes))
    prepare("openi", path, output, SourceOptions(CHEXPERT14, presence=True), LabelFiles(labels=codes))
    assert [r["label_source"] for r in rows_of(output)] == ["presence", "presence"]
    table = read_labels(output, CHEXPERT14, presence=True)
    assert table.values[:, CHEXPERT14.index("Edema")].tolist() == [P, A]
    assert table.values[:, CHEXPERT14.index("Fracture")].tolist() == [SKIP, A]
    with pytest.raises(UserError, match="holds presence gold"):
        read_labels(output, CHEXPERT14)


def test_the_command(
    tmp_path: Path, mimic: Path, jpg: LabelFiles, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    output = tmp_path / "o.parquet"
    arguments = ["--source", "mimic-cxr", "--input", mimic, "--labels", jpg.labels, "--split", jpg.splits]
    monkeypatch.setattr(sys, "argv", ["litechex", "prepare", *map(str, arguments), "--output", str(output)])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert not exit_.value.code
    out = capsys.readouterr().out
    assert "split validation" in out
    assert "Cardiomegaly" in out
    assert "hazy" not in out
    assert max(len(line) for line in out.splitlines() if not line.startswith("written: ")) <= 80
    assert len(rows_of(output)) == 4
    monkeypatch.setattr(sys, "argv", ["litechex", "prepare", "--source", "table", "--input", "x.csv", "--output", "y"])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 1
    assert capsys.readouterr().err.startswith("litechex: y: the output is one Parquet file")
