"""Files as people have them on disk: keys that come late, links, bytes that are no text, names that are reports."""

from __future__ import annotations

import json
import os
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lite_chex.data.archives import iter_files
from lite_chex.data.labels import read_labels
from lite_chex.data.readers import iter_reports
from lite_chex.data.tables import Table
from lite_chex.errors import UserError
from lite_chex.findings import PAPER13


def test_a_key_that_comes_late_is_a_column(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    rows: list[dict[str, object]] = [{"study_id": i, "report": "Clear."} for i in range(300)]
    rows[250] |= {"Fracture": 1, "patient_id": "p1", "split": "test"}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_labels(path, PAPER13).values[250, PAPER13.index("Fracture")] == 0
    late = list(iter_reports(path))[250]
    assert (late.patient_id, late.split) == ("p1", "test")
    path.write_text('{"study_id": 1, "text": "Wet."}\n')  # the file is another one now
    assert Table(path).columns == ["study_id", "text"]


def test_folders_behind_links_are_read_once(tmp_path: Path) -> None:
    for folder, name in (("a/p10", "s1.txt"), ("b/p11", "s2.txt")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / name).write_text("Clear.")
    (tmp_path / "a" / "p11").symlink_to(tmp_path / "b" / "p11")
    (tmp_path / "a" / "again").symlink_to(tmp_path / "a")
    assert [name for name, _ in iter_files(tmp_path / "a", ".txt")] == ["p10/s1.txt", "p11/s2.txt"]


def test_a_folder_that_cannot_be_opened_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "p10").mkdir()
    (tmp_path / "p10" / "s1.txt").write_text("Clear.")
    scandir = os.scandir

    def refused(path: str) -> object:
        if str(path).endswith("p10"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(UserError, match=r"p10: cannot be read \(Permission denied\)"):
        list(iter_files(tmp_path, ".txt"))


def test_links_in_a_tar_and_hidden_files_in_a_zip(tmp_path: Path) -> None:
    (tmp_path / "s1.txt").write_text("Clear.")
    (tmp_path / "s2.txt").hardlink_to(tmp_path / "s1.txt")
    with tarfile.open(tmp_path / "t.tar.gz", "w:gz") as archive:
        for name in ("s1.txt", "s2.txt"):
            archive.add(tmp_path / name, name)
    with pytest.raises(UserError, match=r"t\.tar\.gz: has links in it"):
        list(iter_files(tmp_path / "t.tar.gz", ".txt"))
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as packed:
        packed.writestr("1.xml", "<r/>")
        packed.writestr("__MACOSX/._1.xml", "junk")
    assert [name for name, _ in iter_files(tmp_path / "z.zip", ".xml")] == ["1.xml"]


def test_parquet_text_that_is_not_utf8_is_one_bad_row_and_bytes_are_text(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    raw = pa.array([b"Clear.", "Caf\xe9.".encode("cp1252"), None], pa.binary())
    ids = pa.array([b"1", b"2", b"3"], pa.binary())
    for texts in (raw, pa.StringArray.from_buffers(3, raw.buffers()[1], raw.buffers()[2], raw.buffers()[0])):
        pq.write_table(pa.table({"study_id": ids, "report": texts}), path)
        reports = list(iter_reports(path))
        assert [r.study_id for r in reports] == ["1", "2", "3"]
        assert [r.text for r in reports] == ["Clear.", "", ""]
        assert [(r.error or "")[:9] for r in reports] == ["", "not UTF-8", ""]


def test_no_report_text_in_messages(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    for first in ("s50414267,No acute process\n", "No acute process\n"):
        path.write_text(first * 2)
        with pytest.raises(UserError, match="may have no header line") as refused:
            list(iter_reports(path))
        assert "acute" not in str(refused.value)
    path.write_text("study_id,Edema\n1,mild edema\n")
    with pytest.raises(UserError, match="a cell of 10 characters is no code"):
        read_labels(path, PAPER13)


def test_a_name_that_is_too_long_is_no_traceback() -> None:
    with pytest.raises(UserError, match="cannot be read"):
        Table(Path("x" * 300 + ".csv"))
