"""Reports from CSV, CSV.GZ, JSONL or Parquet, one at a time.

Which columns are read: the text is ``--text-column``, else the first present of :data:`TEXT_COLUMNS`,
else ``findings`` and ``impression`` joined (findings, a newline, impression; an empty one is left out).
The id is ``--id-column``, else the first present of :data:`ID_COLUMNS`, else the row number. A row that
cannot be read is a report with ``error`` set, never the end of the run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lite_chex.data.records import Report
from lite_chex.data.sections import findings_and_impression, join_sections
from lite_chex.data.tables import Row, Table
from lite_chex.errors import UserError

TEXT_COLUMNS = ("report", "text", "Report Impression", "Reports")
ID_COLUMNS = ("study_id", "uid", "id", "path_to_image")
SPLIT_COLUMN = "split"
SPLIT_NAMES = {"val": "validation", "valid": "validation", "validate": "validation", "dev": "validation"}
PATIENT_COLUMNS = ("patient_id", "subject_id", "deid_patient_id")
SECTION_COLUMNS = {
    "findings": ("findings", "section_findings"),
    "impression": ("impression", "section_impression"),
}
_WHOLE_FLOAT = re.compile(r"(?<=\d)\.0+\Z")
"""pandas writes the patient 10000032 as 10000032.0 where a row lacks one: the two are one patient."""
ROW_ID = "row"
"""The name of the id column where the file has none: ids are 0-based row numbers."""


@dataclass(frozen=True)
class ReportColumns:
    """Which columns of a file hold what; None where the file has no such column (or it is not needed)."""

    text: str | None
    id: str | None
    patient: str | None
    findings: str | None
    impression: str | None
    split: str | None


def report_columns(path: Path) -> list[str]:
    """The names of a file's columns.

    Raises:
        UserError: if the file is missing, of an unknown kind or unreadable.
    """
    return Table(path).columns


def choose_columns(table: Table, text_column: str | None = None, id_column: str | None = None) -> ReportColumns:
    """Which of the table's columns are read as what, by the rules at the top of this module.

    Raises:
        UserError: if a named column is missing, or the file has no text column.
    """
    present = table.columns
    table.require(*(c for c in (text_column, id_column) if c is not None))
    sections = {name: _first(options, present) for name, options in SECTION_COLUMNS.items()}
    text = text_column or _first(TEXT_COLUMNS, present)
    if text is None and not any(sections.values()):
        raise UserError(
            f"{table.path}: no text column; name one with --text-column, or call it {', '.join(TEXT_COLUMNS)} "
            f"or findings/impression ({table.described()})"
        )
    if text_column is not None and text_column not in TEXT_COLUMNS:
        # The user chose another text: the file's own sections are not sections of it.
        sections = {"findings": None, "impression": None}
    return ReportColumns(
        text=text,
        id=id_column or _first(ID_COLUMNS, present),
        patient=_first(PATIENT_COLUMNS, present),
        findings=sections["findings"],
        impression=sections["impression"],
        split=_first((SPLIT_COLUMN,), present),
    )


def id_column_of(path: Path, id_column: str | None = None) -> str:
    """The name of the file's id column, ``"row"`` where it has none and rows are numbered.

    Raises:
        UserError: if ``id_column`` is given and missing.
    """
    table = Table(path)
    if id_column is not None:
        table.require(id_column)
    return id_column or _first(ID_COLUMNS, table.columns) or ROW_ID


def count_rows(path: Path) -> int:
    """How many reports :func:`iter_reports` gives (bad rows included)."""
    return Table(path).count()


def iter_reports(path: Path, text_column: str | None = None, id_column: str | None = None) -> Iterator[Report]:
    """Stream the reports of a file; rows that cannot be read have ``error`` set.

    A report whose sections the file tells apart (columns, or FINDINGS:/IMPRESSION: headers in the text)
    also has them in ``findings`` and ``impression``; ``text`` stays whole.

    Raises:
        UserError: at the call, if the file is missing or unknown or lacks the columns; while reading,
            if the file itself (not a row) turns out to be damaged.
    """
    table = Table(path)
    columns = choose_columns(table, text_column, id_column)
    return _iter_reports(table, columns)


def _iter_reports(table: Table, columns: ReportColumns) -> Iterator[Report]:
    roles = ("text", "id", "patient", "findings", "impression", "split")
    read = [(role, name) for role in roles if (name := getattr(columns, role)) is not None]
    for row in table.rows([name for _, name in read]):
        yield report_of(row, dict(zip((role for role, _ in read), row.cells)))


def report_of(row: Row, cells: dict[str, object]) -> Report:
    """The report in a row. cells: by role: text, id, patient, findings, impression, split (any may be missing)."""
    study_id = id_text(cells.get("id"))
    patient_id = _WHOLE_FLOAT.sub("", id_text(cells.get("patient"))) or None
    split = split_name(cells.get("split"))
    error = row.error
    if not study_id and "id" in cells:
        error = error or "no id"
        # Not the bare number: that may be another report's id.
        study_id = f"row {row.number}"
    study_id = study_id or str(row.number)
    texts = {role: cells.get(role) for role in ("text", "findings", "impression")}
    if error is None and any(_is_no_text(value) for value in texts.values()):
        error = "the report is not text"
    if error is not None:
        return Report(row.number, study_id, "", patient_id, error=error, split=split)
    findings, impression = _text(texts["findings"]) or None, _text(texts["impression"]) or None
    text = _text(texts["text"]) if "text" in cells else join_sections(findings, impression)
    if text and not findings and not impression:
        findings, impression = findings_and_impression(text)
    return Report(row.number, study_id, text, patient_id, findings, impression, split=split)


def id_text(cell: object) -> str:
    """An id as text; a whole float of Parquet or JSON (pandas with gaps) is the integer.

    The text of a CSV stays as it stands: ``1000.0`` is not ``1000`` there.
    """
    if cell is None or cell != cell:  # NaN
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).strip()


def split_name(cell: object) -> str | None:
    """A split's name as LiteChex spells it: train, validation, test; None where blank."""
    name = id_text(cell)
    spelt = name.lower()
    return SPLIT_NAMES.get(spelt, spelt if spelt in ("train", "validation", "test") else name) or None


def _is_no_text(cell: object) -> bool:
    return not (cell is None or cell != cell or isinstance(cell, str))


def _text(cell: object) -> str:
    if cell is None or cell != cell:
        return ""
    text = str(cell)
    return text if text.strip() else ""


def _first(options: tuple[str, ...], present: list[str]) -> str | None:
    return next((name for name in options if name in present), None)
