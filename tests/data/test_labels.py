"""Label files: CheXpert's codes read and written, and what is refused."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lite_chex.data.labels import (
    id_column_beside,
    label_cells,
    label_header,
    read_labels,
    unlabelled_rows,
    write_labels,
)
from lite_chex.data.records import LabelTable
from lite_chex.errors import UserError
from lite_chex.findings import CHEXPERT14, PAPER13, SKIP, Certainty

P, N, U, A = Certainty.POSITIVE, Certainty.NEGATIVE, Certainty.UNCERTAIN, Certainty.ABSENT
LABELER_COLUMNS = ["No Finding", *CHEXPERT14.names[:-1]]


def csv_file(path: Path, text: str) -> Path:
    opener = gzip.open if path.name.endswith(".gz") else open
    with opener(path, "wt", encoding="utf-8") as file:
        file.write(text)
    return path


values_strategy = st.lists(
    st.lists(st.sampled_from([P, N, U, A, int(SKIP)]), min_size=13, max_size=13).map(
        # No Finding is never negative or uncertain.
        lambda row: [*row[:-1], row[-1] if row[-1] in (P, int(SKIP)) else A]
    ),
    max_size=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(values=values_strategy)
def test_what_is_written_is_read_again(tmp_path: Path, values: list[list[int]]) -> None:
    array = np.array(values, dtype=np.int8).reshape(-1, 13)
    table = LabelTable(PAPER13, [f"s{i}" for i in range(len(values))], array, np.ones(13, dtype=bool), "uid")
    write_labels(tmp_path / "labels.csv", table)
    again = read_labels(tmp_path / "labels.csv", PAPER13)
    assert again.ids == table.ids
    assert np.array_equal(again.values, array)
    assert again.columns.all()
    assert again.id_column == "uid"
    assert again.warnings == []


def test_cells_and_header() -> None:
    assert label_header(PAPER13, "uid") == ["uid", *PAPER13.names]
    assert label_cells([P, N, U, A, int(SKIP)]) == ["1.0", "0.0", "-1.0", "", "x"]


def test_blank_is_absent_and_never_negative(tmp_path: Path) -> None:
    path = csv_file(tmp_path / "l.csv", "study_id,Edema,Pneumonia,Fracture\ns1,,nan,0\ns2,1,-1,0.0\n")
    table = read_labels(path, PAPER13)
    picked = table.values[:, [PAPER13.index(n) for n in ("Edema", "Pneumonia", "Fracture")]]
    assert picked.tolist() == [[A, A, N], [P, U, N]]
    assert table.columns.sum() == 3
    assert (table.values[:, ~table.columns] == A).all()


def test_ids_of_labels_are_looked_for_where_the_reports_have_theirs(tmp_path: Path) -> None:
    path = csv_file(tmp_path / "l.csv", "Accession,Edema\n2,1.0\n")
    assert id_column_beside(path, "Accession") == "Accession"
    assert id_column_beside(path, "row") is None
    with pytest.raises(UserError, match='its ids are row numbers, the reports\' are in column "uid"'):
        id_column_beside(path, "uid")
    path = csv_file(tmp_path / "l.csv", "study_id,uid,Edema\n2,3,1.0\n")
    assert id_column_beside(path, "uid") == "uid"
    assert id_column_beside(path, "Accession") is None
    with pytest.raises(UserError, match='its ids are in column "study_id", the reports\' are row numbers'):
        id_column_beside(path, "row")


def test_mimic_jpg_layout_in_any_order(tmp_path: Path) -> None:
    path = csv_file(
        tmp_path / "mimic-cxr-2.0.0-chexpert.csv.gz",
        "subject_id,study_id,Pneumothorax,Atelectasis,No Finding\n"
        "10000032,50414267,0.0,-1.0,\n10000033,50414268,,,1.0\n",
    )
    table = read_labels(path, CHEXPERT14)
    assert table.ids == ["50414267", "50414268"]
    assert table.id_column == "study_id"
    assert table.values[0, CHEXPERT14.index("Pneumothorax")] == N
    assert table.values[1, -1] == P


def test_radiologist_test_set_calls_lung_opacity_airspace_opacity(tmp_path: Path) -> None:
    path = csv_file(tmp_path / "gold.csv", "study_id,Airspace Opacity\n1,1.0\n2,x\n")
    assert read_labels(path, PAPER13).values[:, PAPER13.index("Lung Opacity")].tolist() == [P, SKIP]
    path = csv_file(tmp_path / "both.csv", "study_id,Airspace Opacity,Lung Opacity\n1,1.0,1.0\n")
    with pytest.raises(UserError, match='two columns mean "Lung Opacity"'):
        read_labels(path, PAPER13)


@pytest.mark.parametrize("text_column", ["Reports", "Report Impression"])
def test_peers_files_have_row_numbers_as_ids(tmp_path: Path, text_column: str) -> None:
    path = tmp_path / "peer.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([text_column, *LABELER_COLUMNS])
        writer.writerow(["Clear, as before.", "1.0", *[""] * 13])
        writer.writerow(["Big heart.", "", "", "1.0", *[""] * 11])
    table = read_labels(path, PAPER13)
    assert table.ids == ["0", "1"]
    assert table.id_column == "row"
    assert table.values[1, PAPER13.index("Cardiomegaly")] == P
    # What we then write under "row" is found again under those ids.
    write_labels(tmp_path / "ours.csv", table)
    assert read_labels(tmp_path / "ours.csv", PAPER13).ids == ["0", "1"]


def test_json_lines_and_parquet(tmp_path: Path) -> None:
    path = tmp_path / "impression.json"
    path.write_text(
        '{"path_to_image": "train/patient1/study1/view1.jpg", "Edema": 1, "Fracture": null}\n'
        '{"path_to_image": "train/patient2/study1/view1.jpg", "Edema": -1.0, "Fracture": 0}\n'
    )
    table = read_labels(path, PAPER13)
    assert table.id_column == "path_to_image"
    assert table.values[:, PAPER13.index("Edema")].tolist() == [P, U]
    assert table.values[:, PAPER13.index("Fracture")].tolist() == [A, N]

    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(
        pa.table({"study_id": [1, 2], "Edema": [1.0, None], "Fracture": [float("nan"), 0.0]}), tmp_path / "l.parquet"
    )
    table = read_labels(tmp_path / "l.parquet", PAPER13)
    assert table.ids == ["1", "2"]
    assert table.values[:, PAPER13.index("Edema")].tolist() == [P, A]
    assert table.values[:, PAPER13.index("Fracture")].tolist() == [A, N]


def test_a_wrong_code_names_file_row_column_and_codes(tmp_path: Path) -> None:
    path = csv_file(tmp_path / "l.csv", "study_id,Edema,Fracture\ns1,1.0,\ns2,,2\n")
    with pytest.raises(UserError, match=r'l\.csv: row 1 .*column "Fracture".*1\.0, 0\.0, -1\.0, blank'):
        read_labels(path, PAPER13)


def test_report_text_under_a_finding_is_not_repeated_in_the_error(tmp_path: Path) -> None:
    path = csv_file(tmp_path / "l.csv", "study_id,Edema\ns1,The lungs look wet to me.\n")
    with pytest.raises(UserError) as error:
        read_labels(path, PAPER13)
    assert "wet" not in str(error.value)
    assert 'column "Edema"' in str(error.value)


def test_presence_gold(tmp_path: Path) -> None:
    path = csv_file(tmp_path / "p.csv", "uid,mesh_status,Edema,Fracture\n1,coded,A,1\n2,normal,,x\n3,coded,1,A\n")
    with pytest.raises(UserError, match=r"presence gold; declare it: --protocol presence .*--presence.*presence: true"):
        read_labels(path, PAPER13)
    table = read_labels(path, PAPER13, presence=True)
    assert table.values[:, PAPER13.index("Edema")].tolist() == [SKIP, A, P]
    assert table.values[:, PAPER13.index("Fracture")].tolist() == [P, SKIP, SKIP]
    assert table.warnings == []


def test_presence_of_four_certainty_labels_keeps_the_positives_and_says_so(tmp_path: Path) -> None:
    path = csv_file(tmp_path / "p.csv", "uid,Edema,Fracture\n1,0.0,1\n2,-1.0,0\n")
    table = read_labels(path, PAPER13, presence=True)
    assert set(table.values.ravel().tolist()) == {P, A}
    assert len(table.warnings) == 1
    assert "3 codes" in table.warnings[0]


def test_no_finding_is_only_positive_or_blank(tmp_path: Path) -> None:
    path = csv_file(tmp_path / "l.csv", "id,No Finding\n1,0.0\n2,-1.0\n3,1.0\n4,\n5,x\n")
    table = read_labels(path, PAPER13)
    assert table.values[:, -1].tolist() == [A, A, P, A, SKIP]
    assert len(table.warnings) == 1
    assert "2 other codes read as blank" in table.warnings[0]


def test_duplicate_ids(tmp_path: Path) -> None:
    path = csv_file(tmp_path / "l.csv", "id,Edema\n1,\n2,1.0\n1,1.0\n")
    with pytest.raises(UserError, match='1 id stands in more than one row, the first is "1"'):
        read_labels(path, PAPER13)
    assert read_labels(path, PAPER13, allow_duplicates=True).ids == ["1", "2", "1"]


def test_no_finding_column_no_id_and_bad_rows(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no column is a finding .* its columns are id, edema"):
        read_labels(csv_file(tmp_path / "a.csv", "id,edema\n1,1.0\n"), PAPER13)
    with pytest.raises(UserError, match=r'row 1 .*column "id" is empty'):
        read_labels(csv_file(tmp_path / "b.csv", "id,Edema\n1,1.0\n,1.0\n"), PAPER13)
    with pytest.raises(UserError, match=r"row 0 .*3 cells, but the header has 2"):
        read_labels(csv_file(tmp_path / "c.csv", "id,Edema\n1,1.0,\n"), PAPER13)
    with pytest.raises(UserError, match='no column "case"'):
        read_labels(csv_file(tmp_path / "d.csv", "id,Edema\n1,1.0\n"), PAPER13, id_column="case")


@pytest.mark.parametrize("id_column", ["study_id", "Accession", "row"])
def test_rows_without_an_answer_are_found_by_id_after_sorting(tmp_path: Path, id_column: str) -> None:
    path = csv_file(tmp_path / "l.csv", f"{id_column},Edema\n7,1.0\n2,\n5,0.0\n")
    table = read_labels(path, PAPER13, id_column=id_column)
    assert unlabelled_rows(path, table) == set()
    # What label writes: rows without an id column have their number as id.
    name = "id" if id_column == "row" else id_column
    csv_file(
        tmp_path / "l.csv.errors.csv", f"row,{name},reason\n{2 if id_column == 'row' else 0},2,the report is empty\n"
    )
    assert unlabelled_rows(path, table) == {1}


def test_rows_without_an_answer_are_found_by_number_where_ids_were_not_read(tmp_path: Path) -> None:
    path = csv_file(tmp_path / "l.csv", "Accession,Edema\nx,1.0\ny,\n")
    csv_file(tmp_path / "l.csv.errors.csv", "row,Accession,reason\n1,y,the report is empty\n")
    assert unlabelled_rows(path, read_labels(path, PAPER13)) == {1}


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = csv_file(tmp_path / "l.csv", "old")
    broken = LabelTable(PAPER13, ["s1"], np.full((1, 13), 7, dtype=np.int8), np.ones(13, dtype=bool))
    with pytest.raises(KeyError):
        write_labels(path, broken)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["l.csv"]


def test_a_full_disk_is_one_sentence_and_leaves_the_old_file(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    path = csv_file(tmp_path / "l.csv", "old")
    table = LabelTable(PAPER13, [str(i) for i in range(2000)], np.full((2000, 13), A, np.int8), np.ones(13, bool))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The system refuses to make a file longer than this: the same way out as a disk that is full.
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"l\.csv: could not be written \(.*\); what was there before is unchanged"):
            write_labels(path, table)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["l.csv"]


@pytest.mark.parametrize("name", [".", "..", "/"])
def test_a_folder_is_no_output_file(name: str) -> None:
    with pytest.raises(UserError, match="is a folder; name a file in it"):
        write_labels(Path(name), LabelTable(PAPER13, [], np.zeros((0, 13), np.int8), np.ones(13, bool)))


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="could not be written"):
        write_labels(
            tmp_path / "file" / "l.csv", LabelTable(PAPER13, [], np.zeros((0, 13), np.int8), np.ones(13, bool))
        )


def test_rows_without_an_answer_where_the_id_column_is_called_row(tmp_path: Path) -> None:
    labels = tmp_path / "out.csv"
    labels.write_text("row,Edema\n5,1.0\n17,\n1,0.0\n")
    labels.with_name("out.csv.errors.csv").write_text("row,id,reason\n1,17,the report is empty\n")
    table = read_labels(labels, CHEXPERT14, "row")
    assert unlabelled_rows(labels, table) == {1}
