"""Label files in CheXpert's convention: 1.0 positive, 0.0 negative, -1.0 uncertain, blank absent.

Blank is not 0 and never becomes it. An ``x`` in a gold file is a cell that is not scored. Presence gold
(``1`` present, blank not coded, ``A`` or ``x`` not scored) is another kind of file: it is read only where
the caller says that it is one.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from lite_chex.data.files import atomic_path
from lite_chex.data.readers import ID_COLUMNS, PATIENT_COLUMNS, ROW_ID, TEXT_COLUMNS, id_text
from lite_chex.data.records import LabelTable
from lite_chex.data.tables import Table
from lite_chex.errors import UserError
from lite_chex.findings import NO_FINDING, SKIP, Certainty, FindingSet, LabelArray, from_code, to_code

LONGEST_CODE = 12
DECLARE_PRESENCE = (
    "declare it: --protocol presence (eval), --presence (validate, prepare) or presence: true (the recipe's source)"
)
PRESENCE_KEY = b"litechex.presence"
"""Set to ``1`` in the metadata of a Parquet file whose labels are presence gold."""
_CODE_OF = {value: to_code(value) for value in (*map(int, Certainty), int(SKIP))}


_BESIDE_LABELS = ("findings", "impression", "split", "label_source")
"""Columns of a prepared file."""


def label_header(findings: FindingSet, id_column: str = "study_id") -> list[str]:
    """The header of a labels CSV: the id column, then the findings in their order."""
    return [id_column, *findings.names]


def label_cells(values: LabelArray | Sequence[int]) -> list[str]:
    """CheXpert's codes of one report's labels (``[findings]``), as they stand in a labels CSV."""
    return [_CODE_OF[int(value)] for value in values]


def write_labels(path: Path, table: LabelTable) -> None:
    """Write a labels CSV; an earlier file of that name stays until the new one is complete.

    Raises:
        UserError: if it cannot be written (no such folder, disk full).
    """
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(label_header(table.findings, table.id_column))
        for study_id, values in zip(table.ids, table.values):
            writer.writerow([study_id, *label_cells(values)])


def finding_columns(table: Table, findings: FindingSet) -> dict[str, int]:
    """The table's columns that are findings of the set: column name -> index in the set.

    Raises:
        UserError: if there is none, or two columns mean the same finding.
    """
    found: dict[str, int] = {}
    for name in table.columns:
        index = findings.column(name)
        if index is None:
            continue
        if index in found.values():
            raise UserError(f'{table.path}: two columns mean "{findings.names[index]}"; keep one of them')
        found[name] = index
    if not found:
        raise UserError(
            f"{table.path}: no column is a finding ({', '.join(findings.names[:3])}, …); {table.described()}"
        )
    return found


def unread_columns(table: Table, findings: FindingSet, id_column: str | None = None) -> list[str]:
    """Columns that are no finding of the set, nor an id, a text or what LiteChex writes beside labels: findings of
    another set, perhaps, or misspelt ones."""
    known = {id_column, ROW_ID, *ID_COLUMNS, *PATIENT_COLUMNS, *TEXT_COLUMNS, *_BESIDE_LABELS}
    others = [c for c in table.columns if findings.column(c) is None and c not in known and not c.startswith("p_")]
    return others if table.headed else []


def label_id_column(table: Table, id_column: str | None = None) -> str | None:
    """The column that holds a label file's ids; None where rows are counted.

    Raises:
        UserError: if ``id_column`` is given and missing.
    """
    if id_column is not None and id_column != ROW_ID:
        table.require(id_column)
    for name in (id_column, *ID_COLUMNS, ROW_ID):
        if name is not None and name in table.columns:
            return name
    return None


def id_column_beside(path: Path, reports_id: str) -> str | None:
    """The id column of a label file whose reports have their ids in the column ``reports_id``.

    It is the column of that name; where the file has none, the one that :func:`label_id_column` takes (None).

    Raises:
        UserError: if one side has an id column and the other only row numbers, which would match wrongly.
    """
    table = Table(path)
    if reports_id in table.columns:
        return reports_id
    own = label_id_column(table) or ROW_ID
    if (own == ROW_ID) != (reports_id == ROW_ID):
        said = {True: "row numbers", False: f'in column "{own if reports_id == ROW_ID else reports_id}"'}
        raise UserError(
            f"{path}: its ids are {said[own == ROW_ID]}, the reports' are {said[reports_id == ROW_ID]}; name the "
            "column that both files have (--id-column, or id_column in a recipe)"
        )
    return None


class CellReader:
    """Reads the cells of one kind of label file, and counts what it read otherwise than it stands.

    presence: the file is presence gold, so ``A`` is not scored and only ``1`` means something.
    """

    def __init__(self, findings: FindingSet, presence: bool = False) -> None:
        self.findings = findings
        self.presence = presence
        self.counts: Counter[str] = Counter()
        self._plain: dict[object, int] = {}

    def read(self, cell: object, index: int) -> int:
        """The label of one cell of the finding at ``index``.

        Raises:
            ValueError: if the cell is no code of this kind of file; the message says which are.
        """
        known = self._plain.get(cell) if isinstance(cell, str) else None
        if known is not None:
            return known
        text = cell.strip() if isinstance(cell, str) else cell
        if isinstance(text, str) and text.upper() == "A":
            if not self.presence:
                raise ValueError(f"A is no code of four certainties: this looks like presence gold; {DECLARE_PRESENCE}")
            return int(SKIP)
        if len(str(text)) > LONGEST_CODE or " " in str(text).strip():
            # It may be report text under a wrong header: it must not reach a log.
            raise ValueError(f"a cell of {len(str(text))} characters is no code (1.0, 0.0, -1.0, blank, or x in gold)")
        value = from_code(text)
        if self.presence and value in (Certainty.NEGATIVE, Certainty.UNCERTAIN):
            self.counts["presence"] += 1
            return int(Certainty.ABSENT)
        if self.findings.names[index] == NO_FINDING and value in (Certainty.NEGATIVE, Certainty.UNCERTAIN):
            self.counts["no finding"] += 1
            return int(Certainty.ABSENT)
        if isinstance(cell, str) and value in (Certainty.POSITIVE, Certainty.ABSENT, SKIP):
            # Means the same under every finding and in both kinds of file: no need to parse it again.
            self._plain[cell] = int(value)
        return int(value)

    def warnings(self) -> list[str]:
        """One sentence for each kind of cell that was read otherwise than it stands."""
        sentences = []
        if n := self.counts["no finding"]:
            sentences.append(f"{NO_FINDING} is only ever 1.0 or blank: {n} other code{'s'[: n != 1]} read as blank")
        if n := self.counts["presence"]:
            sentences.append(f"presence gold says only 1 or blank: {n} code{'s'[: n != 1]} 0 or -1 read as blank")
        return sentences


def read_labels(
    path: Path,
    findings: FindingSet,
    id_column: str | None = None,
    presence: bool = False,
    allow_duplicates: bool = False,
) -> LabelTable:
    """Read a label file (CSV, CSV.GZ, JSONL or Parquet) in any column order.

    Ids are the id column's cells (``id_column``, else the first present of :data:`ID_COLUMNS`, else
    ``row``), else 0-based row numbers, as in the peers' files that repeat the report instead. A finding
    without a column is absent throughout, with its ``columns`` flag False.

    Raises:
        UserError: if the file or a named column is missing, no column is a finding, a row is unreadable,
            a cell is no code of this kind of file, or (unless ``allow_duplicates``) an id stands twice.
    """
    table = Table(path)
    columns = finding_columns(table, findings)
    id_name = label_id_column(table, id_column)
    if not presence and table.metadata(PRESENCE_KEY) == b"1":
        raise UserError(f"{path}: holds presence gold, not four certainties; {DECLARE_PRESENCE}")
    reader = CellReader(findings, presence)
    ids: list[str] = []
    rows: list[bytes] = []
    for number, study_id, cells, error in _label_rows(table, id_name, list(columns)):
        if error is not None:
            raise UserError(f"{path}: row {number} (the first is 0): {error}")
        values = np.full(len(findings), Certainty.ABSENT, dtype=np.int8)
        for (name, index), cell in zip(columns.items(), cells):
            try:
                values[index] = reader.read(cell, index)
            except ValueError as problem:
                raise UserError(f'{path}: row {number} (the first is 0), column "{name}": {problem}') from None
        ids.append(study_id)
        rows.append(values.tobytes())
    if not allow_duplicates:
        _refuse_duplicates(path, ids)
    present = np.zeros(len(findings), dtype=bool)
    present[list(columns.values())] = True
    values = np.frombuffer(b"".join(rows), dtype=np.int8).reshape(len(rows), len(findings)).copy()
    return LabelTable(findings, ids, values, present, id_name or ROW_ID, reader.warnings())


def unlabelled_rows(path: Path, labels: LabelTable) -> set[int]:
    """The rows of ``labels``, read from ``path``, that ``litechex label`` could not label (``<path>.errors.csv``).

    They are found by id, because the label file may have been sorted since; by row number where it has no ids.
    """
    errors = path.with_name(path.name + ".errors.csv")
    if not errors.exists():
        return set()
    table = Table(errors)
    # Beside "row", the position, stands the id column, as "id" where its own name is "row".
    column = labels.id_column if labels.id_column != ROW_ID and labels.id_column in table.columns else "id"
    if column not in table.columns:
        column = ROW_ID
    if column not in table.columns:
        return set()
    failed = {id_text(row.cells[0]) for row in table.rows([column])}
    return {i for i, study_id in enumerate(labels.ids) if study_id in failed}


def _label_rows(
    table: Table, id_name: str | None, names: list[str]
) -> Iterator[tuple[int, str, tuple[object, ...], str | None]]:
    """Row number, id, the findings' cells and the row's error."""
    for row in table.rows([*names, *([id_name] if id_name else [])]):
        study_id = id_text(row.cells[-1]) if id_name else str(row.number)
        error = row.error or (None if study_id else f'column "{id_name}" is empty')
        yield row.number, study_id, row.cells[: len(names)], error


def _refuse_duplicates(path: Path, ids: Sequence[str]) -> None:
    if len(set(ids)) == len(ids):
        return
    repeated = [study_id for study_id, n in Counter(ids).items() if n > 1]
    raise UserError(
        f"{path}: {len(repeated)} id{'s'[: len(repeated) != 1]} stand{'s'[: len(repeated) == 1]} in more than one row, "
        f'the first is "{repeated[0]}"; keep one row for each'
    )
