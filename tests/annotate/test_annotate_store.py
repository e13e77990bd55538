"""The store never loses what it acknowledged, whoever else writes and however the process ends."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from annotation_samples import RIGHT, WRONG, answer

from lite_chex.annotate.items import Answer, Item, make_item
from lite_chex.annotate.store import Store
from lite_chex.errors import UserError
from lite_chex.findings import PAPER13


def an_item(study: str = "s1") -> Item:
    answers = (Answer(answer(WRONG[study]), ("sft",)), Answer(answer(RIGHT[study]), ("ppo",)))
    return make_item("compare", PAPER13, study, f"report of {study}", answers)


def add(store: Store, request: str, annotator: str = "Ann", study: str = "s1", verdict: str = "left") -> int:
    return store.add(
        item=an_item(study), annotator=annotator, verdict=verdict, request=request, detail={"n": 1}, seed=7
    )


def test_a_row_keeps_who_when_versions_and_seed(tmp_path: Path) -> None:
    with Store(tmp_path / "j.sqlite") as store:
        versions = {"lite_chex": "1", "predictions": {"sft": "abc"}}
        item = an_item()
        store.add(item=item, annotator="Änn", verdict="tie", request="r1", detail={"a": "ü"}, comment="c", seconds=3.5,
                  seed=9, versions=versions)  # fmt: skip
    with Store(tmp_path / "j.sqlite") as store:
        (row,) = store.judgements()
        assert store.items() == {item.key: item}
    assert (row.annotator, row.verdict, row.comment, row.seconds, row.seed) == ("Änn", "tie", "c", 3.5, 9)
    assert row.versions == versions
    assert row.detail == {"a": "ü"}
    assert row.at.endswith("+00:00")


def test_the_same_request_is_one_judgement(tmp_path: Path) -> None:
    with Store(tmp_path / "j.sqlite") as store:
        assert add(store, "r1") == add(store, "r1", verdict="right")
        assert [j.verdict for j in store.judgements()] == ["left"]


def test_the_latest_judgement_of_a_person_stands(tmp_path: Path) -> None:
    with Store(tmp_path / "j.sqlite") as store:
        add(store, "r1", "Ann", verdict="left")
        add(store, "r2", "Bob", verdict="tie")
        add(store, "r3", "Ann", verdict="right")
        assert [(j.annotator, j.verdict) for j in store.judgements()] == [("Bob", "tie"), ("Ann", "right")]
        assert store.history() == 3


def test_undo_goes_back_one_by_one_and_deletes_nothing(tmp_path: Path) -> None:
    with Store(tmp_path / "j.sqlite") as store:
        add(store, "r1", study="s1")
        add(store, "r2", study="s2", verdict="tie")
        add(store, "r3", "Bob", study="s2")
        undone = store.undo("compare", "Ann", "u1")
        again = store.undo("compare", "Ann", "u1")  # the page did not hear the answer and sent it twice
        assert undone is not None
        assert again is not None
        assert (undone.verdict, again.id) == ("tie", undone.id)
        assert len(store.judgements(annotator="Ann")) == 1
        assert store.undo("compare", "Ann", "u2") is not None
        assert store.undo("compare", "Ann", "u3") is None
        assert [j.annotator for j in store.judgements()] == ["Bob"]
        assert store.history() == 5


def test_rows_can_be_neither_changed_nor_deleted(tmp_path: Path) -> None:
    with Store(tmp_path / "j.sqlite") as store:
        add(store, "r1")
    db = sqlite3.connect(tmp_path / "j.sqlite")
    for statement in ("UPDATE judgement SET verdict = 'right'", "DELETE FROM judgement"):
        with pytest.raises(sqlite3.IntegrityError, match="judgements are never"):
            db.execute(statement)


WRITER = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from lite_chex.annotate.store import Store
from test_annotate_store import add
with Store(Path({path!r})) as store:
    n = 0
    while {limit} is None or n < {limit}:
        add(store, f"{name}-{{n}}-request", {name!r}, study="s" + str(n % 10))
        print(n, flush=True)  # acknowledged
        n += 1
"""


def writer(path: Path, name: str, limit: int | None) -> subprocess.Popen[str]:
    code = WRITER.format(tests=str(Path(__file__).parent), path=str(path), name=name, limit=limit)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def test_kill_9_loses_nothing_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    process = writer(path, "Ann", None)
    assert process.stdout is not None
    for _ in range(25):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    acknowledged = 25 + len(process.stdout.read().split("\n")) - 1
    process.wait()
    with Store(path) as store:
        assert acknowledged <= store.history() <= acknowledged + 1
        assert add(store, "after", study="s3") > 0


def test_a_copy_of_the_file_alone_has_every_judgement(tmp_path: Path) -> None:
    with Store(tmp_path / "j.sqlite") as store:
        for n in range(3):
            add(store, f"r{n}", study=f"s{n}")
            (tmp_path / f"copy-{n}.sqlite").write_bytes(store.path.read_bytes())
        store.undo("compare", "Ann", "u1")
        (tmp_path / "copy-3.sqlite").write_bytes(store.path.read_bytes())
    for n in range(4):
        with Store(tmp_path / f"copy-{n}.sqlite") as copy:
            assert copy.history() == n + 1


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    both = [writer(path, name, 30) for name in ("Ann", "Bob")]
    assert [process.wait() for process in both] == [0, 0]
    with Store(path) as store:
        assert store.history() == 60
        assert len(store.judgements()) == 20  # ten items each, the latest stands


def test_files_that_are_no_store_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "labels.csv"
    text.write_text("study_id,Edema\n" * 200)
    with pytest.raises(UserError, match=r"labels\.csv: not a store of judgements"):
        Store(text)
    assert text.read_text().startswith("study_id")
    other = tmp_path / "other.sqlite"
    Store(other).close()
    sqlite3.connect(other).execute("PRAGMA user_version = 99").connection.commit()
    with pytest.raises(UserError, match="version 99"):
        Store(other)
    for version in (0, 1, 99):
        strange = tmp_path / f"strange-{version}.sqlite"
        db = sqlite3.connect(strange)
        db.executescript(f"CREATE TABLE bookmark (url TEXT); PRAGMA user_version = {version};")
        db.close()
        content = strange.read_bytes()
        with pytest.raises(UserError, match=rf"strange-{version}\.sqlite: another program's database, no store"):
            Store(strange)
        assert strange.read_bytes() == content
    for path in (text / "j.sqlite", Path("/proc/none/j.sqlite")):
        with pytest.raises(UserError, match=r"j\.sqlite: cannot be opened"):
            Store(path)
    with pytest.raises(UserError, match="no such store"):
        Store(tmp_path / "none.sqlite", create=False)
    assert not (tmp_path / "none.sqlite").exists()
