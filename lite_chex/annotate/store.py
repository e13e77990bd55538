"""The store of judgements: one SQLite file to which rows are only ever added.

Every judgement is a row of its own, committed and synced to disk before the page hears "saved", so
that a killed server loses nothing that was acknowledged. Taking one back is a row as well: nothing is
changed or deleted (two triggers see to it). The report and the answers stand beside the judgements,
so that an export needs no other file. Several annotators, and several servers, may write at once:
WAL mode (which needs a local disk), and each write takes its lock up front.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

from lite_chex.annotate.items import Answer, Item
from lite_chex.errors import UserError

SCHEMA_VERSION = 1
TASKS = ("compare", "review", "label", "adjudicate")
UNDO = "undo"
SKIP = "skip"
_WAL_ATTEMPTS = 200

_SCHEMA = """
CREATE TABLE item (
    key TEXT PRIMARY KEY, task TEXT NOT NULL, study_id TEXT NOT NULL, finding_set TEXT NOT NULL,
    report TEXT NOT NULL, answers TEXT NOT NULL
);
CREATE TABLE judgement (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at TEXT NOT NULL, annotator TEXT NOT NULL, task TEXT NOT NULL, item TEXT NOT NULL REFERENCES item(key),
    verdict TEXT NOT NULL, detail TEXT NOT NULL, comment TEXT NOT NULL, seconds REAL,
    seed INTEGER NOT NULL, versions TEXT NOT NULL,
    request TEXT NOT NULL UNIQUE, undoes INTEGER UNIQUE REFERENCES judgement(id)
);
CREATE INDEX judgement_by_annotator ON judgement (task, annotator, item);
CREATE TRIGGER judgement_is_final BEFORE UPDATE ON judgement
    BEGIN SELECT RAISE(ABORT, 'judgements are never changed'); END;
CREATE TRIGGER judgement_is_kept BEFORE DELETE ON judgement
    BEGIN SELECT RAISE(ABORT, 'judgements are never deleted'); END;
"""


@dataclass(frozen=True)
class Judgement:
    """One row of the store.

    at: UTC, ISO 8601. verdict: ``left|right|tie|both_wrong|skip`` (compare), ``done|skip`` (review,
    label, adjudicate). detail: the task's own data (answers as they were shown, corrections, marks,
    labels). seconds: time the item was on screen. seed: the seed of order and sides. versions: of
    LiteChex and of every input file, and the reports' id column. request: the page's own id of the
    judgement, so that sending it twice stores it once.
    """

    id: int
    at: str
    annotator: str
    task: str
    item: str
    verdict: str
    detail: Mapping[str, Any]
    comment: str
    seconds: float | None
    seed: int
    versions: Mapping[str, Any]
    request: str


class Store:
    """The judgements of one project, in one file.

    Args:
        path: the SQLite file; made where there is none.
        create: False refuses to make one (for exports).

    Raises:
        UserError: if the file is not a store of this version, or is missing where it must not be.
    """

    def __init__(self, path: Path, create: bool = True) -> None:
        self.path = path
        self._lock = threading.Lock()
        if not create and not path.exists():
            raise UserError(f"{path}: no such store; `litechex annotate compare --store {path}` makes one")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Autocommit: every transaction below is written out, none is left open by accident.
            self._db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            self._prepare()  # before anything else: another program's file stays as it is
            self._use_wal()
            # FULL: in WAL mode NORMAL would survive a kill but not a power cut.
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA foreign_keys = ON")
        except (OSError, sqlite3.OperationalError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"{path}: cannot be opened ({reason}); keep the store on a local disk") from None
        except sqlite3.DatabaseError as error:
            raise UserError(f"{path}: not a store of judgements ({error}); name another --store") from None

    def _use_wal(self) -> None:
        """Turn WAL mode on; while another process does the same, SQLite fails at once instead of waiting."""
        for attempt in range(_WAL_ATTEMPTS):
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError:
                if attempt == _WAL_ATTEMPTS - 1:
                    raise
                time.sleep(0.05)

    def _prepare(self) -> None:
        """Make the tables of a new file; refuse another program's file, or one of another version."""
        self._db.execute("BEGIN IMMEDIATE")
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        tables = {row[0] for row in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if version == 0 and not tables:
            for statement in _statements(_SCHEMA):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        elif not {"item", "judgement"} <= tables:
            self._db.execute("ROLLBACK")
            raise UserError(f"{self.path}: another program's database, no store of judgements; name another --store")
        elif version != SCHEMA_VERSION:
            self._db.execute("ROLLBACK")
            raise UserError(
                f"{self.path}: a store of version {version}, LiteChex writes version {SCHEMA_VERSION}; "
                "name another --store"
            )
        self._db.execute("COMMIT")

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def add_items(self, items: Iterable[Item]) -> None:
        """Keep report and answers of items; those already there stay as they are."""
        with self._lock, _transaction(self._db):
            self._insert_items(items)

    def _insert_items(self, items: Iterable[Item]) -> None:
        rows = [
            (i.key, i.task, i.study_id, i.finding_set, i.report, json.dumps([vars(a) for a in i.answers]))
            for i in items
        ]
        self._db.executemany("INSERT INTO item VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING", rows)

    def items(self, task: str | None = None) -> dict[str, Item]:
        """The kept items by key, of one task or of all."""
        query = "SELECT key, task, study_id, finding_set, report, answers FROM item WHERE ?1 IS NULL OR task = ?1"
        with self._lock:
            rows = self._db.execute(query, (task,)).fetchall()
        found = {}
        for key, kind, study_id, finding_set, report, answers in rows:
            parsed = tuple(Answer(text=a["text"], systems=tuple(a["systems"])) for a in json.loads(answers))
            found[key] = Item(key, kind, study_id, finding_set, report, parsed)
        return found

    def add(
        self,
        *,
        item: Item,
        annotator: str,
        verdict: str,
        request: str,
        detail: Mapping[str, Any],
        comment: str = "",
        seconds: float | None = None,
        seed: int = 0,
        versions: Mapping[str, Any] | None = None,
        at: str | None = None,
    ) -> int:
        """Commit one judgement and return its id; the same ``request`` again returns the first id."""
        row: tuple[Any, ...] = (
            at or _now(),
            annotator,
            item.task,
            item.key,
            verdict,
            json.dumps(dict(detail), ensure_ascii=False),
        )
        row += (comment, seconds, seed, json.dumps(dict(versions or {})), request)
        with self._lock, _transaction(self._db):
            self._insert_items([item])
            self._db.execute(
                "INSERT INTO judgement (at, annotator, task, item, verdict, detail, comment, seconds, seed, versions,"
                " request) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (request) DO NOTHING",
                row,
            )
            return int(self._db.execute("SELECT id FROM judgement WHERE request = ?", (request,)).fetchone()[0])

    def undo(self, task: str, annotator: str, request: str) -> Judgement | None:
        """Take back the annotator's last standing judgement of a task; None where there is none.

        The same ``request`` again takes back nothing more and returns the same judgement.
        """
        with self._lock, _transaction(self._db):
            done = self._db.execute("SELECT undoes FROM judgement WHERE request = ?", (request,)).fetchone()
            if done is None:
                last = self._db.execute(
                    f"SELECT max(id) FROM judgement j WHERE task = ? AND annotator = ? AND {_STANDING}",
                    (task, annotator),
                ).fetchone()[0]
                if last is None:
                    return None
                self._db.execute(
                    "INSERT INTO judgement (at, annotator, task, item, verdict, detail, comment, seed, versions,"
                    " request, undoes) SELECT ?, annotator, task, item, ?, '{}', '', seed, versions, ?, id"
                    " FROM judgement WHERE id = ?",
                    (_now(), UNDO, request, last),
                )
            else:
                last = done[0]
        return self._select("WHERE j.id = ?", (last,))[0]

    def judgements(self, task: str | None = None, annotator: str | None = None) -> list[Judgement]:
        """What stands: no undone rows, and of an annotator's rows on one item the latest; oldest first."""
        rows = self._select(
            f"WHERE (?1 IS NULL OR task = ?1) AND (?2 IS NULL OR annotator = ?2) AND {_STANDING} ORDER BY j.id",
            (task, annotator),
        )
        latest = {(r.task, r.annotator, r.item): r for r in rows}
        return sorted(latest.values(), key=lambda r: r.id)

    def history(self) -> int:
        """The number of rows ever written, undone ones and undos included."""
        with self._lock:
            return int(self._db.execute("SELECT count(*) FROM judgement").fetchone()[0])

    def _select(self, where: str, values: tuple[Any, ...]) -> list[Judgement]:
        with self._lock:
            rows = self._db.execute(f"SELECT {', '.join(_COLUMNS)} FROM judgement j {where}", values).fetchall()
        found = (dict(zip(_COLUMNS, row)) for row in rows)
        return [Judgement(**r | {name: json.loads(r[name]) for name in ("detail", "versions")}) for r in found]


_COLUMNS = tuple(field.name for field in fields(Judgement))
_STANDING = "undoes IS NULL AND NOT EXISTS (SELECT 1 FROM judgement u WHERE u.undoes = j.id)"


class _transaction:
    """BEGIN IMMEDIATE ... COMMIT: the write lock is taken first, so that two writers wait, never clash.

    What was committed then goes from the WAL into the file itself, so that a copy of that file has it.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db

    def __enter__(self) -> None:
        self.db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.db.execute("COMMIT" if kind is None else "ROLLBACK")
        with suppress(sqlite3.OperationalError):  # it is committed all the same, and the next commit tries again
            self.db.execute("PRAGMA wal_checkpoint(PASSIVE)")


def _statements(script: str) -> list[str]:
    """Split a script at complete statements (``executescript`` would commit on its own)."""
    statements, current = [], ""
    for line in script.splitlines(keepends=True):
        current += line
        if sqlite3.complete_statement(current):
            statements.append(current)
            current = ""
    return statements


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
