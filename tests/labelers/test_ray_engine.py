"""``--engine ray``: exactly once per report, also when a worker is killed, on a local two-worker cluster."""

from __future__ import annotations

import csv
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from word_labeler import WordLabeler

from lite_chex.errors import UserError
from lite_chex.labelers.base import LabelBatch
from lite_chex.labelers.committed import RunState
from lite_chex.labelers.ray_engine import FolderSummary, label_folder, label_once
from lite_chex.labelers.runner import label_file

FILES, ROWS = 6, 40
QUIET = Console(file=StringIO())
run = partial(label_file, chunk_size=8)


@dataclass
class LoggingLabeler(WordLabeler):
    """Leaves a file per batch, named after its process, so that a test can find and kill a worker at work."""

    log: str = ""

    def label(self, reports: Sequence[str]) -> LabelBatch:
        Path(self.log, f"{os.getpid()}-{time.monotonic_ns()}").touch()
        return super().label(reports)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "in").mkdir()
    for f in range(FILES):
        ids = [f"{f}-{i}" for i in range(ROWS)]
        texts = [f"no edema {i}" if i % 3 else "fracture" for i in range(ROWS)]
        pq.write_table(pa.table({"study_id": ids, "report": texts}), tmp_path / "in" / f"part{f}.parquet")
    return tmp_path


def check(folder: Path) -> None:
    """Every report once, in its file's order, with its label."""
    assert sorted(p.name for p in (folder / "out").glob("*.csv")) == [f"part{f}.csv" for f in range(FILES)]
    for f in range(FILES):
        with (folder / "out" / f"part{f}.csv").open(newline="") as file:
            rows = list(csv.reader(file))[1:]
        assert rows == [[f"{f}-{i}", *(["0.0", "", ""] if i % 3 else ["", "1.0", ""])] for i in range(ROWS)]
    assert not list((folder / "out").glob(".part-*"))


def test_a_file_appears_only_when_it_is_complete(folder: Path) -> None:
    (folder / "out").mkdir()
    source, target = folder / "in" / "part0.parquet", folder / "out" / "part0.csv"

    class Stops(WordLabeler):
        batches = 0

        def label(self, reports: Sequence[str]) -> LabelBatch:
            self.batches += 1
            if self.batches == 3:
                raise KeyboardInterrupt
            return super().label(reports)

    with pytest.raises(KeyboardInterrupt):
        label_once(Stops(), run, source, target)
    assert list((folder / "out").iterdir()) == []
    assert label_once(WordLabeler(), run, source, target).rows == ROWS
    assert RunState.load(target) is not None
    assert label_once(WordLabeler(delay=1e6), run, source, target).resumed_from == ROWS
    with pytest.raises(UserError, match="the model or labeler changed"):
        label_once(WordLabeler(version="2"), run, source, target)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    ray = pytest.importorskip("ray")
    here = Path(__file__).parent
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(here), str(here.parents[1])]))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


def test_every_report_once_after_a_worker_is_killed(
    cluster: None, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)  # the folders are given as a user gives them: relative
    (folder / "log").mkdir()
    make = partial(LoggingLabeler, log=str(folder / "log"), delay=0.01)
    summaries: list[FolderSummary] = []
    work = threading.Thread(
        target=lambda: summaries.append(label_folder(make, run, Path("in"), Path("out"), workers=2, console=QUIET))
    )
    work.start()
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and len(seen := sorted((folder / "log").iterdir(), key=at)) < 3:
        time.sleep(0.005)
    os.kill(int(seen[-1].name.split("-")[0]), signal.SIGKILL)
    work.join(timeout=120)
    assert not work.is_alive()
    check(folder)
    assert (summaries[0].rows, summaries[0].files, summaries[0].skipped, summaries[0].errors) == (
        FILES * ROWS,
        FILES,
        0,
        0,
    )
    batches = len(list((folder / "log").iterdir()))
    assert batches > FILES * ROWS // 8, "the kill was to cost a batch, else this test says nothing"
    again = label_folder(make, run, Path("in"), Path("out"), workers=2, console=QUIET)
    assert again.skipped == FILES
    assert len(list((folder / "log").iterdir())) == batches, "a complete file is not labelled again"
    check(folder)
    with pytest.raises(UserError, match="the model or labeler changed"):
        label_folder(partial(make, version="2"), run, Path("in"), Path("out"), workers=2, console=QUIET)


def at(file: Path) -> int:
    return int(file.name.split("-")[1])


def test_a_folder_without_parquet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no \*\.parquet in it"):
        label_folder(WordLabeler, run, tmp_path, tmp_path / "out", console=QUIET)


def test_a_column_that_is_missing_is_told_before_anything_is_removed(folder: Path) -> None:
    source, target = folder / "in" / "part3.parquet", folder / "out" / "part3.csv"
    target.parent.mkdir()
    label_once(WordLabeler(), run, source, target)
    before = {path.name: path.read_bytes() for path in target.parent.iterdir()}
    for columns in ({"text_column": "impresion"}, {"id_column": "uid"}):
        (name,) = columns.values()
        with pytest.raises(UserError, match=rf'part0\.parquet: no column "{name}"; its columns are study_id, report'):
            label_folder(WordLabeler, run, folder / "in", folder / "out", overwrite=True, console=QUIET, **columns)
    assert {path.name: path.read_bytes() for path in target.parent.iterdir()} == before
