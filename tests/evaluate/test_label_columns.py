"""Reading a label file by columns gives what reading it row by row gives, errors included."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lite_chex.data.labels import read_labels
from lite_chex.errors import UserError
from lite_chex.evaluate.label_columns import _by_columns, read_label_file
from lite_chex.findings import PAPER13

HEADER = ["Edema", "study_id", "No Finding", "Airspace Opacity", "Reports"]
CELLS = st.sampled_from(["1.0", "0.0", "-1.0", "", "1", "0", "-1", " 1.0 ", "x", "nan", "A", "2", "yes"])
ROWS = st.lists(st.tuples(CELLS, CELLS, CELLS), max_size=12)


def outcome(read, path: Path, presence: bool) -> object:
    try:
        table = read(path, PAPER13, presence=presence)
    except UserError as error:
        return str(error)
    return table.ids, table.values.tolist(), table.columns.tolist(), table.id_column, table.warnings


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROWS, st.booleans(), st.sampled_from(["fine", "twice", "empty", "short row", "no id"]))
def test_same_as_row_by_row(tmp_path, rows, presence, ids):
    path = tmp_path / "labels.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        header = [h for h in HEADER if ids != "no id" or h != "study_id"]
        writer.writerow(header)
        for i, (edema, no_finding, opacity) in enumerate(rows):
            name = {"twice": f"s{i % 5}", "empty": f"s{i}" if i else ""}.get(ids, f"s{i}")
            row = {"Edema": edema, "study_id": name, "No Finding": no_finding, "Airspace Opacity": opacity}
            row["Reports"] = 'made up, "quoted"\nover two lines'
            writer.writerow([row[h] for h in header][: 3 if ids == "short row" and i == 3 else None])
    assert outcome(read_label_file, path, presence) == outcome(read_labels, path, presence)


def test_a_plain_file_is_read_by_columns_also_with_a_mark_blank_lines_and_gzip(tmp_path):
    text = "\ufeffstudy_id,Edema,No Finding\r\n1,1.0,\r\n\r\n2,,0.0\r\n3,-1.0,0.0\r\n"
    path = tmp_path / "labels.csv.gz"
    path.write_bytes(gzip.compress(text.encode()))
    table = _by_columns(path, PAPER13, None, False)
    assert table is not None
    assert table.ids == ["1", "2", "3"]
    assert table.values[:, PAPER13.index("Edema")].tolist() == [0, 3, 2]
    assert (table.values[:, -1] == 3).all()
    rows = read_labels(path, PAPER13)
    assert np.array_equal(table.values, rows.values)
    assert table.warnings == rows.warnings
    assert any("2" in warning for warning in table.warnings)


def test_errors_are_those_of_the_row_reader(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("study_id,Edema\n1,1.0\n2,7\n")
    with pytest.raises(UserError, match=r"row 1 .*Edema.*7"):
        read_label_file(path, PAPER13)
