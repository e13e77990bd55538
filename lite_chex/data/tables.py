"""CSV, CSV.GZ, JSONL and Parquet as one stream of rows, in which a bad row is a row with an error.

What differs from a plain ``csv.reader``: a row that cannot be read (wrong number of cells, bytes that
are not UTF-8, a broken JSON line, a quote that is never closed) does not end the file. It comes out as
a row with ``error`` set, at its own position, so that rows keep their numbers.

Behind a row with a stray or unclosed quote, reading goes on at the line after its first one. Where rows
have several lines, that may be the rest of the broken row: lines are left out until one begins with an id,
as the broken row did, or else has the header's number of cells. A line of report text of that very shape
is taken for a row.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING

from lite_chex.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

EXTENSIONS = (".csv", ".csv.gz", ".jsonl", ".jsonl.gz", ".parquet")
CELL_LIMIT = 1_000_000
"""Characters in one CSV cell; a longer one is nearly always a quote that is never closed."""
LONGEST_NAME = 60
HALF_CHARACTER = "half a character (an escape from \\ud800 to \\udfff without the other half); write it whole"
NOT_UTF8 = "not UTF-8; if the file is cp1252 (Windows), convert it with iconv -f cp1252 -t utf-8 OLD > NEW"
_ID = r"[\w./:-]{0,80}\d(?:[\w./:-]{0,80}\w)?"
_ID_ALONE = re.compile(r"[A-Za-z]{0,2}\d{3,}")
_ID_CELL = re.compile(f'"?{_ID}"?,')
_DELIMITERS = {";": '";"', "\t": "tabs", "|": '"|"'}


@dataclass(frozen=True)
class Row:
    """One data row. cells: the asked-for columns, in the order asked (None where null or missing)."""

    number: int
    cells: tuple[object, ...]
    error: str | None = None


def table_kind(path: Path) -> str:
    """``csv``, ``jsonl`` or ``parquet``.

    Raises:
        UserError: if the file does not exist or its extension is none of :data:`EXTENSIONS`.
    """
    path = Path(path)
    with _readable(path):
        if not path.exists():
            raise UserError(f"{path}: no such file")
    if path.is_dir():
        raise UserError(f"{path}: is a folder; give one file ({', '.join(EXTENSIONS)})")
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(".csv"):
        return "csv"
    if name.endswith((".jsonl", ".json")):
        # ".json": CheXpert Plus calls its JSON lines so.
        return "jsonl"
    if path.name.lower().endswith(".parquet"):
        return "parquet"
    raise UserError(f"{path}: unknown kind of file; the name must end in one of {', '.join(EXTENSIONS)}")


class Table:
    """A file of rows, opened anew for each pass. columns: the names its header (or schema) gives.

    header: False reads a CSV without a header line; its columns are then named ``0``, ``1``, ….

    Raises:
        UserError: if the file is missing, of an unknown kind, unreadable or without a header.
    """

    def __init__(self, path: Path, header: bool = True) -> None:
        self.path = Path(path)
        self.kind = table_kind(self.path)
        self.header = header
        with _readable(self.path):
            self.columns = self._read_columns()
        repeated = sorted({c for c in self.columns if self.columns.count(c) > 1})
        if repeated and self.headed:
            raise UserError(f'{self.path}: column "{repeated[0]}" stands twice in the header; rename one')
        if repeated:
            raise UserError(f"{self.path}: two columns have the same name; {self.described()}")

    @property
    def headed(self) -> bool:
        """Whether the columns' names look like names, not like a report or an id, which no message may repeat."""
        alone = len(self.columns) == 1 and " " in self.columns[0].strip()
        return not alone and all(map(_is_name, self.columns))

    def described(self) -> str:
        """The columns, for an error message: their names, or what seems wrong with the header."""
        names = self.columns
        line = ",".join(names)
        if line.startswith("sep="):
            return "its first line is Excel's sep=, not a header: remove that line"
        delimiter = next((d for d in _DELIMITERS if line.count(d) >= len(names)), None)
        if delimiter and all(map(_is_name, line.split(delimiter))):
            return f"its columns are separated by {_DELIMITERS[delimiter]}: save it with commas"
        if not self.headed:
            count = (
                "its only column has no usual name"
                if len(names) == 1
                else f"its {len(names)} columns have no usual names"
            )
            return f"{count}: the file may have no header line"
        return f"its columns are {', '.join(names)}"

    def require(self, *names: str) -> None:
        """Raise a UserError naming the file and its columns unless all of ``names`` are among them."""
        for name in names:
            if name not in self.columns:
                raise UserError(f'{self.path}: no column "{name}"; {self.described()}')

    def metadata(self, key: bytes) -> bytes | None:
        """A value of a Parquet file's own metadata; None where there is none, or for another kind of file."""
        if self.kind != "parquet":
            return None
        with _readable(self.path), self._parquet() as file:
            return (file.schema_arrow.metadata or {}).get(key)

    def rows(self, names: Sequence[str]) -> Iterator[Row]:
        """Stream the rows, each with the cells of the columns ``names``."""
        self.require(*names)
        with _readable(self.path):
            if self.kind == "csv":
                yield from self._csv_rows(names)
            elif self.kind == "jsonl":
                yield from self._jsonl_rows(names)
            else:
                yield from self._parquet_rows(names)

    def count(self) -> int:
        """How many rows :meth:`rows` gives, without building them."""
        with _readable(self.path):
            if self.kind == "parquet":
                with self._parquet() as file:
                    return int(file.metadata.num_rows)
            if self.kind == "jsonl":
                with self._open() as raw:
                    return sum(1 for line in raw if line.strip())
            return sum(1 for _ in self._csv_cells())

    def _open(self) -> IO[bytes]:
        return _open(self.path)

    def _parquet(self) -> pq.ParquetFile:
        import pyarrow.parquet as pq

        return pq.ParquetFile(self.path)

    def _read_columns(self) -> list[str]:
        if self.kind == "parquet":
            with self._parquet() as file:
                return list(file.schema_arrow.names)
        with self._open() as raw:
            if raw.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
                raise UserError(f"{self.path}: is UTF-16; convert it with iconv -f utf-16 -t utf-8 OLD > NEW")
        if self.kind == "jsonl":
            stat = self.path.stat()
            keys = _jsonl_keys(self.path, stat.st_mtime_ns, stat.st_size)
            if not keys:
                raise UserError(f"{self.path}: holds no JSON object (one a line is read)")
            return list(keys)
        with self._text() as text:
            first = next(_csv_lines(text), None)
        if isinstance(first, str):
            raise UserError(f"{self.path}: {first}; a header line with column names was expected")
        if first is None:
            raise UserError(f"{self.path}: is empty; a header line with column names was expected")
        if not self.header:
            return [str(i) for i in range(len(first))]
        if any(_has_surrogates(cell) for cell in first):
            raise UserError(f"{self.path}: its header is {NOT_UTF8}")
        return [cell.strip() for cell in first]

    def _text(self) -> io.TextIOWrapper:
        # Bytes that are not UTF-8 become surrogates, so that only their own row is lost.
        return io.TextIOWrapper(self._open(), encoding="utf-8-sig", errors="surrogateescape", newline="")

    def _csv_cells(self) -> Iterator[list[str] | str]:
        with self._text() as text:
            rows = _csv_lines(text, len(self.columns))
            if self.header:
                next(rows, None)
            yield from rows

    def _csv_rows(self, names: Sequence[str]) -> Iterator[Row]:
        width = len(self.columns)
        picks = [self.columns.index(name) for name in names]
        nothing = (None,) * len(picks)
        for number, cells in enumerate(self._csv_cells()):
            if isinstance(cells, str):
                yield Row(number, nothing, cells)
                continue
            # What can be read of a bad row is kept: its id, above all.
            picked = tuple(cells[i] if i < len(cells) and not _has_surrogates(cells[i]) else None for i in picks)
            if len(cells) != width:
                # Report text may stand in the id's place.
                ids = tuple(cell if cell and re.fullmatch(_ID, cell.strip()) else None for cell in picked)
                yield Row(number, ids, f"{len(cells)} cell{'s'[: len(cells) != 1]}, but the header has {width}")
            elif any(_has_surrogates(cells[i]) for i in picks):
                yield Row(number, picked, NOT_UTF8)
            else:
                yield Row(number, picked)

    def _jsonl_rows(self, names: Sequence[str]) -> Iterator[Row]:
        nothing = (None,) * len(names)
        for number, value in enumerate(_json_objects(self.path)):
            if isinstance(value, str):
                yield Row(number, nothing, value)
                continue
            cells = [value.get(name) for name in names]
            halves = [isinstance(cell, str) and _has_surrogates(cell) for cell in cells]
            picked = tuple(None if half else cell for cell, half in zip(cells, halves))
            yield Row(number, picked, HALF_CHARACTER if any(halves) else None)

    def _parquet_rows(self, names: Sequence[str]) -> Iterator[Row]:
        number = 0
        with self._parquet() as file:
            for batch in file.iter_batches(batch_size=4096, columns=list(dict.fromkeys(names))):
                columns, sound = zip(*(_values(batch.column(name)) for name in names)) if names else ((), ())
                cells: Iterator[tuple[object, ...]] = zip(*columns) if columns else iter([()] * batch.num_rows)
                for row in cells:
                    if all(sound) or not any(isinstance(c, str) and _has_surrogates(c) for c in row):
                        yield Row(number, row)
                    else:
                        picked = tuple(None if isinstance(c, str) and _has_surrogates(c) else c for c in row)
                        yield Row(number, picked, NOT_UTF8)
                    number += 1


def _values(column: pa.Array) -> tuple[list[object], bool]:
    """A Parquet column's cells, and whether they are text (or numbers) as they should be: bytes are decoded, those that
    are not UTF-8 into surrogates."""
    import pyarrow as pa

    if not pa.types.is_binary(column.type) and not pa.types.is_large_binary(column.type):
        try:
            return column.to_pylist(), True
        except UnicodeDecodeError:
            column = column.cast(pa.large_binary())
    decoded = (None if b is None else b.decode("utf-8", "surrogateescape") for b in column.to_pylist())
    return list(decoded), False


def _open(path: Path) -> IO[bytes]:
    if path.name.lower().endswith(".gz"):
        return gzip.open(path, "rb")  # type: ignore[return-value]
    return path.open("rb")


def _json_objects(path: Path) -> Iterator[dict[str, object] | str]:
    """Each non-blank line as an object, or as the sentence that says why it is none."""
    with _open(path) as raw:
        for line in raw:
            if not line.strip():
                continue
            try:
                value = json.loads(line.decode("utf-8-sig"))
            except UnicodeDecodeError:
                yield NOT_UTF8
            except (ValueError, RecursionError):
                yield "not a JSON object"
            else:
                yield value if isinstance(value, dict) else "not a JSON object"


@lru_cache(maxsize=16)
def _jsonl_keys(path: Path, *_stamp: int) -> tuple[str, ...]:
    """The columns of a JSONL file, which has no header: the keys of all its rows (many writers leave nulls out)."""
    keys: dict[str, None] = {}
    for row in _json_objects(path):
        if isinstance(row, dict) and not row.keys() <= keys.keys():
            keys.update(dict.fromkeys(row))
    return tuple(keys)


class _readable:
    """Turns what an unreadable file raises, wherever in it, into a UserError that names the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        if isinstance(error, (gzip.BadGzipFile, EOFError, zlib.error)):
            raise UserError(f"{self.path}: is no complete gzip file; unpack it or fetch it again") from error
        if type(error).__module__.startswith("pyarrow"):
            raise UserError(f"{self.path}: is no readable Parquet file; fetch or write it again") from error
        if isinstance(error, OSError):
            raise UserError(f"{self.path}: cannot be read ({error.strerror or type(error).__name__})") from error


class _Lines:
    """The lines of a file, of which those that were read for a row can be given back."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self._again: list[str] = []
        self.read: list[str] = []
        self.done = 0

    def __iter__(self) -> Iterator[str]:
        while self._again:
            self.read.append(self._again.pop())
            yield self.read[-1]
        for line in self._text:
            self.read.append(line)
            yield line

    def keep(self, count: int) -> None:
        """Be done with the first ``count`` lines that were read; the others come again."""
        self.done += count
        self._again.extend(reversed(self.read[count:]))
        self.read.clear()


def _csv_lines(text: io.TextIOWrapper, width: int = 0) -> Iterator[list[str] | str]:
    """The rows of a CSV; for a row that the parser gives up on, the sentence that says which lines are lost."""
    csv.field_size_limit(CELL_LIMIT)
    lines = _Lines(text)
    while True:
        try:
            # Strict: otherwise a quote that is never closed swallows the rows after it into one report, silently.
            for cells in csv.reader(lines, strict=True):
                lines.keep(len(lines.read))
                if cells:
                    yield cells
            return
        except csv.Error:
            first = lines.done + 1
            broken = lines.read[0]
            lines.keep(1)
            _leave_out_rest(lines, broken, width)
            which = f"line {first} is" if lines.done == first else f"lines {first} to {lines.done} are"
            yield f"{which} not readable as CSV (a quote is stray or never closed, or a cell too long)"


def _leave_out_rest(lines: _Lines, broken: str, width: int) -> None:
    """Go on to the line at which the next row begins. broken: the first line of the row before it."""
    has_id = _ID_CELL.match(broken)
    while True:
        line = next(iter(lines), None)
        lines.keep(0)
        begins = line is None or (has_id is not None and _ID_CELL.match(line) is not None)
        # A line of report text often has one comma, hardly ever just as many as a wide table.
        if not begins and (not has_id or width > 3):
            try:
                begins = len(next(csv.reader(lines, strict=True), [])) == width
            except csv.Error:
                begins = False
            lines.keep(0)
        if not begins:
            next(iter(lines), None)
        lines.keep(0 if begins else 1)
        if begins:
            return


def _is_name(column: str) -> bool:
    few = len(column) <= LONGEST_NAME and len(column.split()) <= 5
    return (
        few
        and not _ID_ALONE.fullmatch(column.strip())
        and not column.isdecimal()
        and not re.search(r"\w{4,}[.?!](\s|$)", column)
    )


def _has_surrogates(cell: str) -> bool:
    return not cell.isascii() and any("\ud800" <= c <= "\udfff" for c in cell)
