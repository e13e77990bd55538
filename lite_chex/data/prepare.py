"""``litechex prepare``: any source of reports, with its labels and splits, as one Parquet file.

Columns: study_id, patient_id, report, findings, impression, split, then, where there are labels,
label_source and one column per finding with CheXpert's codes as float32, null for absent. A cell that is
not to be scored (``x``; also every cell of a report that no label file knows) cannot be told from absent in
a float column, so where there is one the findings' columns are text: ``1.0``, ``0.0``, ``-1.0``, null, ``x``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lite_chex.data.files import atomic_path, refuse_overwriting
from lite_chex.data.labels import PRESENCE_KEY, id_column_beside, read_labels, unread_columns
from lite_chex.data.readers import id_text
from lite_chex.data.records import LabelTable
from lite_chex.data.sources import Source, SourceOptions, SourceReport, open_source, split_name
from lite_chex.data.summary import Summary, SummaryCounter
from lite_chex.data.tables import Table
from lite_chex.errors import UserError
from lite_chex.findings import SKIP, Certainty, FindingSet
from lite_chex.wording import plural

if TYPE_CHECKING:
    import pyarrow as pa

CHUNK = 8192
"""Reports written at a time: what is held in memory."""
CODES = np.array([1.0, 0.0, -1.0, np.nan, 9.0], dtype=np.float32)
"""By label, SKIP (-1) last: 9.0 stands for it until the columns are written as text."""


@dataclass(frozen=True)
class LabelFiles:
    """Label and split files beside the reports. gold: its labels replace those of ``labels`` for its studies; splits:
    they replace the source's own."""

    labels: Path | None = None
    gold: Path | None = None
    splits: Path | None = None


def prepare(
    source: str,
    path: Path,
    output: Path,
    options: SourceOptions,
    files: LabelFiles | None = None,
    progress: Callable[[int], None] | None = None,
) -> Summary:
    """Read a source and write it as one Parquet file; reports are streamed, labels and ids are held.

    progress: called with the number of reports written so far.

    Raises:
        UserError: if the source, a label file or a split file is not of its layout or they have no study in
            common, or the output cannot be written; an earlier output is then unchanged.
    """
    import pyarrow.parquet as pq

    files = files or LabelFiles()
    if Path(output).suffix != ".parquet":
        raise UserError(f"{output}: the output is one Parquet file; give it a name that ends in .parquet")
    refuse_overwriting({"--output": Path(output)}, [Path(path), files.labels, files.gold, files.splits])
    opened = open_source(source, path, options)
    known = _KnownLabels(opened, options, files)
    splits = read_splits(files.splits) if files.splits else {}
    schema = _schema(options.findings, known)
    counter = SummaryCounter(options.findings, known.columns)
    with atomic_path(output) as temporary:
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            reports = iter(opened.reports)
            while chunk := [known.attach(item, splits) for item in islice(reports, CHUNK)]:
                counter.add(chunk)
                writer.write_batch(_batch(chunk, schema, options.findings, known))
                if progress is not None:
                    progress(counter.reports)
        summary = counter.summary()
        _refuse_nothing(path, summary, known, files, splits)
        if counter.has_unscored:
            _write_codes_as_text(temporary, options.findings, known)
    summary.notes = [*opened.notes, *known.notes()]
    return summary


def read_splits(path: Path) -> dict[str, str]:
    """Study id -> split of a split file; MIMIC-CXR-JPG's has a row for each image, all of a study alike.

    Raises:
        UserError: if the file lacks ``study_id`` or ``split``, a row is unreadable, or a study is in two splits.
    """
    table = Table(path)
    table.require("study_id", "split")
    splits: dict[str, str] = {}
    for row in table.rows(["study_id", "split"]):
        if row.error is not None:
            raise UserError(f"{path}: row {row.number} (the first is 0): {row.error}")
        study, split = id_text(row.cells[0]), split_name(row.cells[1])
        if split is not None and splits.setdefault(study, split) != split:
            raise UserError(f'{path}: study "{study}" is in two splits, "{splits[study]}" and "{split}"')
    return splits


class _KnownLabels:
    """Labels by study: from the source's own rows, and from the files beside it, which come before those.

    columns: bool ``[findings]``, those that any of them has; where one lacks a column that another has,
    its cells are not scored, for "no column" says nothing about the report.
    """

    def __init__(self, source: Source, options: SourceOptions, files: LabelFiles) -> None:
        self.tables: dict[str, tuple[Path, LabelTable, Mapping[str, int]]] = {}
        for role, path in (("gold", files.gold), ("labels", files.labels)):
            if path is not None:
                id_column = id_column_beside(path, options.id_column or source.id_column)
                table = read_labels(path, options.findings, id_column, presence=options.presence)
                self.tables[role] = (path, table, {study: i for i, study in enumerate(table.ids)})
        has_own = bool(source.columns.any())
        if source.presence and has_own and self.tables and not options.presence:
            raise UserError(
                "the source's own labels are presence gold and cannot stand beside others in one file; "
                "leave out --labels and --gold, or prepare them apart"
            )
        self.presence = source.presence and has_own if not self.tables else options.presence
        self.columns = np.logical_or.reduce([source.columns, *(t.columns for _, t, _ in self.tables.values())])
        self.used: dict[str, set[int]] = {role: set() for role in self.tables}
        self.splits_used = 0
        self._not_own = self.columns & ~source.columns
        self._unlabelled = np.full(len(options.findings), SKIP, dtype=np.int8)
        for _, table, _ in self.tables.values():
            table.values[:, self.columns & ~table.columns] = SKIP

    def attach(self, item: SourceReport, splits: Mapping[str, str]) -> SourceReport:
        """The report with its labels (none scored where nothing has any) and its split."""
        study = item.report.study_id
        split = splits.get(study)
        self.splits_used += split is not None
        split = split or item.split
        for role, (_, table, index) in self.tables.items():
            row = index.get(study)
            if row is not None:
                self.used[role].add(row)
                return replace(item, split=split, labels=table.values[row], label_source=self._name(role))
        if item.labels is None:
            return replace(item, split=split, labels=self._unlabelled)
        if self._not_own.any():
            item.labels[self._not_own] = SKIP
        return replace(item, split=split, label_source=self._name("labels"))

    def _name(self, role: str) -> str:
        return "presence" if self.presence else role

    def notes(self) -> list[str]:
        notes = []
        for role, (path, table, _) in self.tables.items():
            notes += [f"{path.name}: {warning}" for warning in table.warnings]
            if unread := ", ".join(unread_columns(Table(path), table.findings, table.id_column)):
                notes.append(f"{path.name} has columns that are no finding of {table.findings.name}: {unread}")
            # A study in both files is labelled by gold.
            gold = self.tables["gold"][2] if role != "gold" and "gold" in self.tables else {}
            if unused := sum(i not in self.used[role] and study not in gold for i, study in enumerate(table.ids)):
                of_them = f"{unused} of its {plural(len(table), 'row')}"
                notes.append(f"{path.name}: {of_them} {'has' if unused == 1 else 'have'} no report here")
        if self.presence:
            notes.append("the labels are presence gold: eval takes them with --protocol presence")
        return notes


def _refuse_nothing(
    path: Path, summary: Summary, known: _KnownLabels, files: LabelFiles, splits: Mapping[str, str]
) -> None:
    """Refuse an empty source, and a label or split file that has no study in common with it."""
    if not summary.reports:
        raise UserError(f"{path}: holds no reports")
    for role, (label_path, table, _) in known.tables.items():
        gold = known.tables["gold"][2] if role == "labels" and "gold" in known.tables else {}
        if not known.used[role] and not (table.ids and all(study in gold for study in table.ids)):
            example = f'"{table.ids[0]}"' if table.ids else "no rows"
            raise UserError(
                f"{label_path}: none of its {len(table)} ids ({table.id_column}: {example}, …) is the id of a report "
                f'in {path} ("{summary.first_id}", …)'
            )
    if splits and not known.splits_used:
        raise UserError(f'{files.splits}: none of its studies is a report in {path} ("{summary.first_id}", …)')


def _schema(findings: FindingSet, known: _KnownLabels, text: bool = False) -> pa.Schema:
    import pyarrow as pa

    names = ["study_id", "patient_id", "report", "findings", "impression", "split"]
    fields = [pa.field(name, pa.string()) for name in names]
    if known.columns.any():
        kind = pa.string() if text else pa.float32()
        fields.append(pa.field("label_source", pa.string()))
        fields += [pa.field(name, kind) for name, has in zip(findings.names, known.columns) if has]
    return pa.schema(fields, metadata={PRESENCE_KEY: b"1"} if known.presence else None)


def _batch(chunk: list[SourceReport], schema: pa.Schema, findings: FindingSet, known: _KnownLabels) -> pa.RecordBatch:
    import pyarrow as pa

    reports = [item.report for item in chunk]
    columns: list[object] = [
        [r.study_id for r in reports],
        [r.patient_id for r in reports],
        [r.text for r in reports],
        [r.findings for r in reports],
        [r.impression for r in reports],
        [item.split for item in chunk],
    ]
    arrays = [pa.array(column, pa.string()) for column in columns]
    if known.columns.any():
        arrays.append(pa.array([item.label_source for item in chunk], pa.string()))
        values = np.stack([item.labels for item in chunk if item.labels is not None])
        for i in np.flatnonzero(known.columns):
            column = values[:, i]
            arrays.append(pa.array(CODES[column], pa.float32(), mask=column == Certainty.ABSENT))
    return pa.record_batch(arrays, schema=schema)


def _write_codes_as_text(path: Path, findings: FindingSet, known: _KnownLabels) -> None:
    """Rewrite a Parquet file with the findings' columns as text, chunk by chunk."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    words = {1.0: "1.0", 0.0: "0.0", -1.0: "-1.0", 9.0: "x", None: None}
    schema = _schema(findings, known, text=True)
    rewritten = path.with_suffix(".text")
    try:
        with pq.ParquetFile(path) as file, pq.ParquetWriter(rewritten, schema, compression="zstd") as writer:
            for batch in file.iter_batches(batch_size=CHUNK):
                arrays = [
                    column
                    if column.type == field.type
                    else pa.array([words[code] for code in column.to_pylist()], pa.string())
                    for column, field in zip(batch.columns, schema)
                ]
                writer.write_batch(pa.record_batch(arrays, schema=schema))
        os.replace(rewritten, path)
    finally:
        rewritten.unlink(missing_ok=True)
