"""Label files column by column: the same table as ``read_labels``, 20 times as fast on large CSV files.

Every distinct cell of a column is read once by the same :class:`CellReader`. Whatever is unusual (a cell
that is no code, a row of the wrong length, bytes that are not UTF-8, an id that is empty or stands twice)
is left to ``read_labels``, whose sentence names the row.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lite_chex.data.labels import CellReader, finding_columns, label_id_column, read_labels
from lite_chex.data.readers import ROW_ID
from lite_chex.data.records import LabelTable
from lite_chex.data.tables import Table
from lite_chex.findings import Certainty, FindingSet


def read_label_file(
    path: Path, findings: FindingSet, id_column: str | None = None, presence: bool = False
) -> LabelTable:
    """:func:`lite_chex.data.labels.read_labels`, by columns where the file is a plain CSV.

    Raises:
        UserError: as ``read_labels`` does.
    """
    table = _by_columns(path, findings, id_column, presence)
    return read_labels(path, findings, id_column=id_column, presence=presence) if table is None else table


def _by_columns(path: Path, findings: FindingSet, id_column: str | None, presence: bool) -> LabelTable | None:
    """The table, or None where the file is better read row by row."""
    import pyarrow as pa
    import pyarrow.csv as pa_csv

    table = Table(path)
    if table.kind != "csv":
        return None
    columns = finding_columns(table, findings)
    id_name = label_id_column(table, id_column)
    wanted = [*columns, *([id_name] if id_name else [])]
    try:
        read = pa_csv.read_csv(
            path,
            # Empty lines inside quotes are not rows; names come from Table, which strips them.
            read_options=pa_csv.ReadOptions(column_names=table.columns, skip_rows=1),
            parse_options=pa_csv.ParseOptions(newlines_in_values=True),
            convert_options=pa_csv.ConvertOptions(
                include_columns=wanted,
                column_types=dict.fromkeys(wanted, pa.string()),
                strings_can_be_null=False,
                quoted_strings_can_be_null=False,
            ),
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError, OSError):
        return None
    values = np.full((read.num_rows, len(findings)), Certainty.ABSENT, dtype=np.int8)
    reader = CellReader(findings, presence)
    for name, index in columns.items():
        encoded = read.column(name).combine_chunks().dictionary_encode()
        codes = encoded.indices.to_numpy(zero_copy_only=False)
        labels = _labels_of(encoded.dictionary.to_pylist(), np.bincount(codes), index, reader)
        if labels is None:
            return None
        if len(labels):
            values[:, index] = labels[codes]
    ids = [cell.strip() for cell in read.column(id_name).to_pylist()] if id_name else list(map(str, range(len(values))))
    if not all(ids) or len(set(ids)) < len(ids):
        return None
    present = np.zeros(len(findings), dtype=bool)
    present[list(columns.values())] = True
    return LabelTable(findings, ids, values, present, id_name or ROW_ID, reader.warnings())


def _labels_of(cells: list[str], occurrences: np.ndarray, index: int, reader: CellReader) -> np.ndarray | None:
    """The label of each distinct cell; what the reader counts is counted as often as the cell stands."""
    labels = np.empty(len(cells), dtype=np.int8)
    for i, cell in enumerate(cells):
        before = reader.counts.copy()
        try:
            labels[i] = reader.read(cell, index)
        except ValueError:
            return None
        for kind in reader.counts:
            reader.counts[kind] += (reader.counts[kind] - before[kind]) * (int(occurrences[i]) - 1)
    return labels
