"""What is wrong with a file of reports or labels, row by row, without ever quoting a report."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console, Group
from rich.table import Table as RichTable
from rich.text import Text

from lite_chex.data.labels import PRESENCE_KEY, CellReader, finding_columns, label_id_column, unread_columns
from lite_chex.data.readers import choose_columns, id_text, iter_reports
from lite_chex.data.splits import normalised_text
from lite_chex.data.tables import Table
from lite_chex.errors import UserError
from lite_chex.findings import NO_FINDING, Certainty, FindingSet
from lite_chex.wording import plural

KEPT_PROBLEMS = 10_000
"""Problems kept with their row; beyond them they are only counted."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong. row: 0-based data row, None for the whole file; column: None for the row."""

    row: int | None
    column: str | None
    what: str


@dataclass
class Validation:
    """What a check of one file found. wrong: makes the file invalid; notes: worth knowing, still valid."""

    path: Path
    kind: str
    rows: int = 0
    problems: list[Problem] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    @property
    def wrong(self) -> int:
        return self.counts.total()

    def add(self, row: int | None, column: str | None, what: str) -> None:
        self.counts[what] += 1
        if len(self.problems) < KEPT_PROBLEMS:
            self.problems.append(Problem(row, column, what))


def validate_reports(path: Path, text_column: str | None = None, id_column: str | None = None) -> Validation:
    """Check a file of reports: unreadable rows, empty reports, missing and repeated ids.

    Repeated texts are a note, not a fault: two patients may have the same normal report.

    Raises:
        UserError: if the file is missing, of an unknown kind, or has no text column.
    """
    table = Table(path)
    columns = choose_columns(table, text_column, id_column)
    text_name = columns.text or " + ".join(c for c in (columns.findings, columns.impression) if c)
    found = Validation(
        Path(path), f"reports, text in {text_name}, id in {columns.id or 'no column: rows are numbered'}"
    )
    ids: set[str] = set()
    texts: Counter[int] = Counter()
    sections = 0
    try:
        for report in iter_reports(path, text_column, id_column):
            found.rows += 1
            sections += bool(report.findings or report.impression)
            if report.error is not None:
                found.add(report.row, columns.id if report.error == "no id" else None, report.error)
            elif not report.text:
                found.add(report.row, text_name, "empty report")
            elif not normalised_text(report.text):
                found.add(report.row, text_name, "report without a word")
            else:
                texts[hash(normalised_text(report.text))] += 1
            if columns.id is not None and report.study_id in ids:
                found.add(report.row, columns.id, "id already used by an earlier row")
            ids.add(report.study_id)
    except UserError as error:
        found.add(None, None, f"ends early: {str(error).removeprefix(str(path) + ': ')}")
    if not found.rows:
        found.add(None, None, "no rows")
    if repeated := sum(n for n in texts.values() if n > 1):
        found.notes.append(f"{repeated} reports share their text with another: split by text, not by row")
    if found.rows and columns.patient is None:
        found.notes.append("no patient column (patient_id, subject_id): splits go by text alone")
    found.notes.append(f"{sections} of {found.rows} reports have findings or an impression told apart")
    return found


def validate_labels(
    path: Path, findings: FindingSet, id_column: str | None = None, presence: bool = False
) -> Validation:
    """Check a label file: codes, ids, unreadable rows, and No Finding beside a finding.

    Raises:
        UserError: if the file is missing, of an unknown kind, or has no finding column.
    """
    table = Table(path)
    columns = finding_columns(table, findings)
    id_name = label_id_column(table, id_column)
    presence = presence or table.metadata(PRESENCE_KEY) == b"1"
    kind = "presence gold" if presence else "labels"
    found = Validation(
        Path(path), f"{kind}, {len(columns)} findings, id in {id_name or 'no column: rows are numbered'}"
    )
    reader = CellReader(findings, presence)
    names = [*columns, *([id_name] if id_name else [])]
    ids: set[str] = set()
    contradictions = 0
    try:
        for row in table.rows(names):
            found.rows += 1
            study_id = id_text(row.cells[-1]) if id_name else str(row.number)
            if row.error is not None:
                found.add(row.number, None, row.error)
                continue
            if not study_id:
                found.add(row.number, id_name, "no id")
            elif study_id in ids:
                found.add(row.number, id_name, "id already used by an earlier row")
            ids.add(study_id)
            values = {}
            for (name, index), cell in zip(columns.items(), row.cells):
                try:
                    values[index] = reader.read(cell, index)
                except ValueError as problem:
                    found.add(row.number, name, str(problem))
            contradictions += _contradicts(values, findings)
    except UserError as error:
        found.add(None, None, f"ends early: {str(error).removeprefix(str(path) + ': ')}")
    if not found.rows:
        found.add(None, None, "no rows")
    found.notes += reader.warnings()
    if contradictions:
        having = plural(contradictions, "row has", "rows have")
        found.notes.append(f"{having} {NO_FINDING} beside a positive or uncertain finding")
    if missing := [name for i, name in enumerate(findings.names) if i not in columns.values()]:
        found.notes.append(f"no column, so not scored: {', '.join(missing)}")
    if unread := unread_columns(table, findings, id_name):
        found.notes.append(f"no finding of {findings.name}: {', '.join(unread)}")
    return found


def validate_file(
    path: Path,
    findings: FindingSet,
    labels: bool = False,
    presence: bool = False,
    text_column: str | None = None,
    id_column: str | None = None,
) -> list[Validation]:
    """Check a file as what it is: reports if it has a text column, labels if it has finding columns, or both.

    labels (or presence): it must be labels; a text column in it is then no matter.

    Raises:
        UserError: if it is neither, or not readable at all.
    """
    table = Table(path)
    has_labels = any(findings.column(name) is not None for name in table.columns)
    if labels or presence:
        return [validate_labels(path, findings, id_column, presence)]
    try:
        choose_columns(table, text_column, id_column)
    except UserError as error:
        if text_column is not None:
            raise
        if not has_labels:
            raise UserError(f"{error}; nor is a column one of the findings {findings.name}") from None
        return [validate_labels(path, findings, id_column)]
    checks = [validate_reports(path, text_column, id_column)]
    if has_labels:
        checks.append(validate_labels(path, findings, id_column))
    return checks


def print_validation(found: Validation, console: Console, limit: int = 20) -> None:
    """One table of the first ``limit`` problems, the counts of all, and the notes; fits 80 columns."""
    rows = plural(found.rows, "row")
    parts: list[RichTable | Text] = [Text(f"{found.path.name}: {rows}, counted from 0 ({found.kind})")]
    if found.problems:
        table = RichTable(box=None, pad_edge=False)
        table.add_column("row", justify="right", no_wrap=True)
        table.add_column("column", overflow="fold", max_width=26)
        table.add_column("what is wrong", overflow="fold")
        for problem in found.problems[:limit]:
            table.add_row("-" if problem.row is None else str(problem.row), problem.column or "-", Text(problem.what))
        parts.append(table)
        if found.wrong > limit:
            parts.append(Text(f"… and {found.wrong - limit} more (--limit shows more). In all:"))
            for what, n in found.counts.most_common(limit):
                parts.append(Text(f"{n:>7} x {what}"))
    parts += [Text(f"note: {note}") for note in found.notes]
    parts.append(Text(f"{found.wrong} problem{'s'[: found.wrong != 1]}" if found.wrong else "nothing wrong"))
    console.print(Group(*parts))


def _contradicts(values: dict[int, int], findings: FindingSet) -> bool:
    if not findings.has_no_finding or values.get(len(findings) - 1) != Certainty.POSITIVE:
        return False
    return any(v in (Certainty.POSITIVE, Certainty.UNCERTAIN) and findings.vetoing[i] for i, v in values.items())
