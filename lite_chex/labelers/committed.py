"""Files that survive ``kill -9``: appended to, committed with a sidecar, cut back to it when reopened.

A commit is: flush and fsync every file, then replace the sidecar (``<output>.state.json``), which
holds the length of each file and the number of rows they stand for. Whatever lies beyond a committed
length (a torn last line, rows whose commit never came) is cut off on the next run and done again, so
that a resumed run writes the same bytes as one that was never interrupted.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from lite_chex.errors import UserError


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content: the same wherever the file lies and whenever it was copied."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(file)


def _digest(file: io.BufferedReader) -> str:  # Python 3.10 has no hashlib.file_digest
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _write_error(path: Path, error: OSError) -> UserError:
    why = (error.strerror or type(error).__name__).lower()
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        advice = "make room, then run the same command again to go on"
    else:
        advice = "give --output a place that can be written"
    return UserError(f"{path}: cannot write ({why}); {advice}")


class CommittedCsv:
    """An append-only CSV file; rows wait in memory until :meth:`sync`.

    Args:
        path: the file; made at the first row unless it is there.
        committed: the length in bytes that is known to be good; the first sync cuts off the rest.
        header: written before the first row.
    """

    def __init__(self, path: Path, committed: int = 0, header: Sequence[str] = ()) -> None:
        self.path = path
        self.size = committed
        self.header = header
        self._buffer = io.StringIO(newline="")
        self._writer = csv.writer(self._buffer, lineterminator="\n")
        self._fd: int | None = None

    def open(self) -> None:
        """Open, and lock against a second run; what is in the file stays."""
        if self._fd is not None:
            return
        try:
            fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)
        except OSError as error:
            raise _write_error(self.path, error) from error
        try:
            self._lock(fd)
        except UserError:
            os.close(fd)
            raise
        self._fd = fd

    def _lock(self, fd: int) -> None:
        try:
            import fcntl
        except ImportError:  # Windows: no advisory lock, nothing else changes
            return
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{self.path}: another litechex run is writing this file; wait for it") from error

    def write_row(self, cells: Iterable[object]) -> None:
        self.write_header()
        self._writer.writerow(cells)

    def write_header(self) -> None:
        """Write the header unless it, or a row, was written."""
        if self.header and not self.size and not self._buffer.tell():
            self._writer.writerow(self.header)

    def sync(self) -> int:
        """Cut back to the committed length, write what waits, fsync, and return the file's length."""
        data = self._buffer.getvalue().encode("utf-8", errors="backslashreplace")
        if not data:
            return self.size
        self.open()
        assert self._fd is not None
        try:
            os.ftruncate(self._fd, self.size)
            os.lseek(self._fd, self.size, os.SEEK_SET)
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._fd, rest) :]
            os.fsync(self._fd)
        except OSError as error:
            raise _write_error(self.path, error) from error
        self._buffer.seek(0)
        self._buffer.truncate()
        self.size += len(data)
        return self.size

    def close(self) -> None:
        """Give the file back; rows that were not synced are dropped (their commit never came), and so is an empty
        file."""
        if self._fd is not None:
            if not os.fstat(self._fd).st_size:
                with suppress(OSError):  # Windows unlinks no open file
                    self.path.unlink()
            os.close(self._fd)
            self._fd = None


@dataclass
class RunState:
    """The sidecar: what is being labelled, by what, and how far it came.

    input / model / options: fingerprints; a run goes on only where all three are unchanged.
    rows: input rows that the files stand for. sizes: committed bytes by file name. total: rows of
    the input. counts: running totals for the summary.
    """

    input: str
    model: str
    options: dict[str, object]
    rows: int = 0
    total: int = 0
    done: bool = False
    sizes: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    @staticmethod
    def path_for(output: Path) -> Path:
        return output.with_name(output.name + ".state.json")

    @classmethod
    def load(cls, output: Path) -> RunState | None:
        """The sidecar beside ``output``, or None where there is none.

        Raises:
            UserError: if it is there but unreadable.
        """
        path = cls.path_for(output)
        try:
            text = path.read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror or type(error).__name__})") from error
        try:
            raw = json.loads(text)
            return cls(**{f.name: raw[f.name] for f in fields(cls)})
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: not a state file of litechex label; --overwrite starts again") from error

    def save(self, output: Path) -> None:
        """Replace the sidecar in one step: after a crash it is the old one or the new one, never half."""
        path = self.path_for(output)
        temporary = path.with_name(path.name + ".tmp")
        try:
            with temporary.open("w", encoding="utf-8") as file:
                json.dump(asdict(self), file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise _write_error(path, error) from error

    def changed(self, other: RunState) -> str | None:
        """What differs from ``other`` in a way that forbids going on, in words, or None."""
        if self.input != other.input:
            return "the input file"
        if self.model != other.model:
            return "the model or labeler"
        keys = [k for k in {**self.options, **other.options} if self.options.get(k) != other.options.get(k)]
        return f"the option {sorted(keys)[0]}" if keys else None
