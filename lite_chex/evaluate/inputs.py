"""From label files to arrays: which gold row meets which prediction, and what is said about the rest."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import yaml

from lite_chex.data.labels import label_id_column, unlabelled_rows, unread_columns
from lite_chex.data.readers import ID_COLUMNS, ROW_ID, count_rows, id_column_of, iter_reports, report_columns
from lite_chex.data.records import LabelTable
from lite_chex.data.tables import Table
from lite_chex.errors import UserError
from lite_chex.evaluate.evaluation import evaluate
from lite_chex.evaluate.label_columns import read_label_file
from lite_chex.evaluate.lengths import count_tokens
from lite_chex.evaluate.protocols import protocol_named
from lite_chex.evaluate.results import Evaluation
from lite_chex.findings import CERTAINTY_WORDS, Certainty, FindingSet, LabelArray
from lite_chex.wording import plural

if TYPE_CHECKING:
    from lite_chex.recipe import Source


@dataclass
class EvalInput:
    """Everything that is scored, aligned on the gold's rows.

    gold and each of systems: int8 ``[n, F]`` in the order of findings (the scored ones). format_errors:
    per system bool ``[n]``. lengths: tokens per report ``[n]``, negative where not known. ids, texts: per
    gold row. probabilities: per system float32 ``[n, F, 4]``. gold_source says where the gold comes from,
    baseline names the system that the ablation compares with (default: the first).
    """

    gold: LabelArray
    systems: dict[str, LabelArray]
    findings: FindingSet
    format_errors: dict[str, npt.NDArray[np.bool_]] = field(default_factory=dict)
    lengths: npt.NDArray[np.int64] | None = None
    ids: Sequence[str] | None = None
    texts: Sequence[str] | None = None
    probabilities: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    protocol: str = "macro"
    gold_source: str = ""
    baseline: str | None = None

    def evaluate(self, bootstrap: int = 1000, seed: int = 0) -> Evaluation:
        """Score it: see :func:`lite_chex.evaluate.evaluate`."""
        return evaluate(
            self.gold,
            self.systems,
            self.findings,
            protocol=self.protocol,
            lengths=self.lengths,
            format_errors=self.format_errors,
            bootstrap=bootstrap,
            seed=seed,
            notes=self.notes,
        )

    @property
    def row_names(self) -> list[str]:
        """What a row is called: its id, else its number."""
        return list(self.ids) if self.ids is not None else [str(i) for i in range(len(self.gold))]


def repeated_patients(patients: Sequence[str | None]) -> list[str]:
    """A note where patients have several of the reports, since the bootstrap takes reports as independent."""
    known = [patient for patient in patients if patient]
    if len(set(known)) == len(known):
        return []
    of = f"{plural(len(known), 'report')} of {plural(len(set(known)), 'patient')}"
    return [f"{of}: intervals take reports as independent, and are too narrow."]


class NoCommonId(UserError):
    """Two files that hold the ids of different reports."""


def positions(
    gold: LabelTable, gold_path: Path, other: LabelTable, path: Path, notes: list[str]
) -> npt.NDArray[np.intp]:
    """For each gold row, the row of ``other`` with its id, -1 where there is none, ``[n gold]``.

    Where a file has no id column (the peers' own output), rows are matched by number, and ``notes`` says so.

    Raises:
        UserError: if the two have no id in common, or would be matched by row number and differ in length or seem to
            have ids under another name.
    """
    ids, other_ids = gold.ids, other.ids
    without = [p for table, p in ((gold, gold_path), (other, path)) if table.id_column == ROW_ID]
    if without and not all(ROW_ID in report_columns(p) for p in (gold_path, path)):
        if len(without) == 1 and (own := _ids_of_its_own(without[0], gold.findings)):
            raise UserError(
                f'{without[0]}: the other file has ids, and here column "{own}" seems to hold them; name it with '
                "--id-column, or leave it out to match by row number"
            )
        _check_lengths(gold, gold_path, other, path, without)
        ids = ids if gold.id_column == ROW_ID else _numbers(gold)
        other_ids = other_ids if other.id_column == ROW_ID else _numbers(other)
        notes.append(
            f"{path.name} and {gold_path.name} are matched by row number: no id column ({', '.join(ID_COLUMNS)}) in "
            f"{' and '.join(p.name for p in without)}; --id-column names another."
        )
    row_of = {study_id: row for row, study_id in enumerate(other_ids)}
    found = np.array([row_of.get(study_id, -1) for study_id in ids], dtype=np.intp)
    if not (found >= 0).any():
        theirs = f'column "{other.id_column}"' + (f': "{other.ids[0]}", …' if other.ids else "")
        raise NoCommonId(
            f"{path}: none of its {len(other):,} ids ({theirs}) is an id of {gold_path} "
            f'(column "{gold.id_column}": "{ids[0]}", …); give the files of the same reports, or name the id column '
            "with --id-column"
        )
    return found


def _ids_of_its_own(path: Path, findings: FindingSet) -> str | None:
    """A column without a known name in which each row has a word of its own."""
    table = Table(path)
    for name in unread_columns(table, findings):
        cells = [str(row.cells[0] or "") for row in table.rows([name]) if not row.error]
        if all(cells) and len(set(cells)) == len(cells) and not any(" " in cell for cell in cells):
            return name
    return None


def _numbers(table: LabelTable) -> list[str]:
    return [str(row) for row in range(len(table))]


def _check_lengths(gold: LabelTable, gold_path: Path, other: LabelTable, path: Path, without: list[Path]) -> None:
    # A run leaves reports without text or labels out, so that its ids are not all row numbers of the file.
    rows = count_rows(gold_path) if gold.id_column == ROW_ID else len(gold)
    if rows != len(other):
        raise UserError(
            f"{' and '.join(map(str, without))}: no id column, so rows are matched by position, but {gold_path} has "
            f"{rows:,} rows and {path} {len(other):,}; name the id column with --id-column, or give files of the same "
            "length"
        )


def _probabilities(path: Path, findings: FindingSet, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float32] | None:
    """``p_<finding>_<certainty>`` columns as ``[n, F, 4]`` in the gold's order; NaN where there is no figure."""
    table = Table(path)
    wanted = [f"p_{finding}_{word}" for finding in findings.names for word in CERTAINTY_WORDS]
    present = [name for name in wanted if name in table.columns]
    if not present:
        return None
    columns = [wanted.index(name) for name in present]
    read: list[npt.NDArray[np.float32]] = []
    for row in table.rows(present):
        values = np.full(len(wanted), np.nan, dtype=np.float32)
        try:
            values[columns] = [float(str(cell)) if cell not in (None, "") else np.nan for cell in row.cells]
        except ValueError:
            raise UserError(f"{path}: row {row.number} (the first is 0): a p_… cell is not a number") from None
        if not (np.isnan(values) | ((values >= 0) & (values <= 1))).all():
            raise UserError(f"{path}: row {row.number} (the first is 0): a p_… cell is no probability from 0 to 1")
        read.append(values)
    result = np.full((len(rows), len(wanted)), np.nan, dtype=np.float32)
    result[rows >= 0] = np.stack(read)[rows[rows >= 0]]
    return result.reshape(len(rows), len(findings), len(Certainty))


def read_eval_input(
    gold_path: Path,
    predictions: Mapping[str, Path],
    findings: FindingSet,
    *,
    protocol: str = "macro",
    reports: Path | None = None,
    id_column: str | None = None,
    text_column: str | None = None,
) -> EvalInput:
    """Read a gold file and the predictions beside it, matched by id (by position without an id column).

    Scored are the findings of the set that the gold has a column for. A gold row without a prediction is
    a format error; predictions without gold are ignored; both are counted in the notes.

    Raises:
        UserError: if a file is missing or unreadable, an id stands twice, nothing can be matched, or no file has
            the column ``id_column``.
    """
    files = [gold_path, *predictions.values(), *([reports] if reports else [])]
    _require_somewhere(id_column, files)
    presence = protocol_named(protocol).presence
    gold = read_label_file(gold_path, findings, id_column=_own(gold_path, id_column), presence=presence)
    if not len(gold):
        raise UserError(f"{gold_path}: has no rows; there is nothing to score")
    scored = np.flatnonzero(gold.columns)
    chosen = findings.only(scored)
    result = EvalInput(
        gold=gold.values[:, scored],
        systems={},
        findings=chosen,
        ids=gold.ids,
        protocol=protocol,
        gold_source=gold_path.name,
        notes=[f"{gold_path.name}: {warning}." for warning in gold.warnings],
    )
    if len(scored) < len(findings):
        missing = [name for name, has in zip(findings.names, gold.columns, strict=True) if not has]
        result.notes.append(f"{gold_path.name} has no column for {', '.join(missing)}: not scored.")
    for name, path in predictions.items():
        _add_prediction(result, name, path, gold, gold_path, findings, scored, id_column)
    if unread := ", ".join(unread_columns(Table(gold_path), findings, id_column)):
        result.notes.append(f"{gold_path.name} has columns that are no finding of {findings.name}: {unread}.")
    if reports is not None:
        _add_reports(result, reports, gold, gold_path, id_column, text_column)
    return result


def add_predictions(
    bundles: Sequence[EvalInput],
    sources: Sequence[Source],
    predictions: Mapping[str, Path],
    id_column: str | None = None,
) -> None:
    """Score label files beside the stages of a run, on each test source whose ids they have.

    bundles: what :func:`lite_chex.train.stages.evaluate_run` gave for ``sources``.

    Raises:
        UserError: if a file is missing or unreadable, has no id of any source, takes another system's name, or
            (with several sources) does not tell which report its rows are of.
    """
    _require_somewhere(id_column, [*(Path(source.reports) for source in sources), *predictions.values()])
    if len(sources) > 1:
        _require_told_apart(bundles, sources, predictions, id_column)
    for name, path in predictions.items():
        strangers: list[NoCommonId] = []
        for data, source in zip(bundles, sources, strict=True):
            if name in data.systems:
                raise UserError(f"--pred {name}=…: the run has a row of that name; give the file another")
            try:
                _add_to_source(data, source, name, path, id_column or source.id_column)
            except NoCommonId as error:
                strangers.append(error)
                data.notes.append(f"{name}: {path.name} has none of these reports: left out.")
        if len(strangers) == len(sources):
            raise strangers[0]


def _add_to_source(data: EvalInput, source: Source, name: str, path: Path, id_column: str | None) -> None:
    reports = Path(source.reports)
    columns = np.ones(len(data.findings), dtype=bool)
    ids_in = id_column_of(reports, _own(reports, id_column))
    gold = LabelTable(data.findings, data.row_names, data.gold, columns, ids_in)
    _add_prediction(data, name, path, gold, reports, data.findings, np.flatnonzero(columns), id_column)


def _require_told_apart(
    bundles: Sequence[EvalInput], sources: Sequence[Source], predictions: Mapping[str, Path], id_column: str | None
) -> None:
    """Raise a UserError, with the way out, where a label file's row may be of more than one report.

    The same report in several sources (under another kind of gold) is one report: its row counts in each of them.
    """
    # What has no text is the report of its own source alone.
    texts = [data.texts or [f"source {i}"] * len(data.gold) for i, data in enumerate(bundles)]
    named = {pair for data, own in zip(bundles, texts, strict=True) for pair in zip(data.row_names, own, strict=True)}
    names = {id_column or source.id_column for source in sources}
    numbered = [
        path
        for path in predictions.values()
        if any(label_id_column(Table(path), _own(path, name)) in (None, ROW_ID) for name in names)
    ]
    if numbered and not _same_rows(bundles, sources, id_column):
        problem = f"{numbered[0]} has no id column"
    elif len({study_id for study_id, _ in named}) < len(named):
        problem = "the test sources have ids in common that are of different reports"
    else:
        return
    first = yaml.safe_dump(
        [sources[0].model_dump(exclude_defaults=True)], default_flow_style=True, sort_keys=False, width=math.inf
    ).strip()
    raise UserError(
        f"--pred: {problem}, so its rows could be of any of the recipe's {len(sources)} test sources; keep one, as "
        f"with --set {shlex.quote(f'data.test={first}')}"
    )


def _same_rows(bundles: Sequence[EvalInput], sources: Sequence[Source], id_column: str | None) -> bool:
    """Whether a row's number means the same report in every source."""
    if len({source.reports for source in sources}) > 1:
        return False
    reports = Path(sources[0].reports)
    ids_in = {id_column_of(reports, _own(reports, id_column or source.id_column)) for source in sources}
    return ids_in == {ROW_ID} or all(data.row_names == bundles[0].row_names for data in bundles)


def _require_somewhere(id_column: str | None, files: Sequence[Path]) -> None:
    if id_column is not None and not any(id_column in report_columns(path) for path in files):
        raise UserError(f"--id-column {id_column}: no such column in {', '.join(map(str, files))}")


def _own(path: Path, id_column: str | None) -> str | None:
    """``--id-column`` where the file has it: peers' own files stand beside files that name their ids."""
    return id_column if id_column is None or id_column in report_columns(path) else None


def _add_prediction(
    result: EvalInput,
    name: str,
    path: Path,
    gold: LabelTable,
    gold_path: Path,
    findings: FindingSet,
    scored: npt.NDArray[np.intp],
    id_column: str | None,
) -> None:
    table = read_label_file(path, findings, id_column=_own(path, id_column))
    if not len(table):
        raise UserError(f"{path}: has no rows")
    rows = positions(gold, gold_path, table, path, result.notes)
    result.notes += [f"{name}: {warning}." for warning in table.warnings]
    skipped = table.values < 0
    if skipped.any():
        row, column = np.argwhere(skipped)[0]
        raise UserError(
            f'{path}: row {row} (the first is 0), column "{findings.names[column]}": x (do not score) belongs into the '
            "gold, not into a prediction"
        )
    values = np.full((len(rows), len(findings)), Certainty.ABSENT, dtype=np.int8)
    matched = rows >= 0
    values[matched] = table.values[rows[matched]]
    unreadable = ~matched
    if missing := int(unreadable.sum()):
        result.notes.append(
            f"{name}: {plural(missing, 'gold row has', 'gold rows have')} no prediction: format errors, "
            "absent in every cell."
        )
    if extra := len(table) - int(matched.sum()):
        result.notes.append(f"{name}: {plural(extra, 'prediction')} without gold ignored.")
    marked = matched & np.isin(rows, list(unlabelled_rows(path, table)))
    if failed := int(marked.sum()):
        unreadable |= marked
        result.notes.append(
            f"{name}: {path.name}.errors.csv names {plural(failed, 'gold row')} without an answer: format errors."
        )
    lacking = [findings.names[i] for i in scored if not table.columns[i]]
    if lacking:
        result.notes.append(f"{name} has no column for {', '.join(lacking)}: absent throughout.")
    result.systems[name] = values[:, scored]
    result.format_errors[name] = unreadable
    probabilities = _probabilities(path, result.findings, rows)
    if probabilities is not None:
        result.probabilities[name] = probabilities


def _add_reports(
    result: EvalInput, path: Path, gold: LabelTable, gold_path: Path, id_column: str | None, text_column: str | None
) -> None:
    own = _own(path, id_column)
    table = LabelTable(
        findings=gold.findings, ids=[], values=gold.values, columns=gold.columns, id_column=id_column_of(path, own)
    )
    texts, patients = [], []
    for report in iter_reports(path, text_column=text_column, id_column=own):
        table.ids.append(report.study_id)
        texts.append(report.text)
        patients.append(report.patient_id)
    if len(set(table.ids)) < len(table.ids):
        raise UserError(f'{path}: an id of column "{table.id_column}" stands twice; keep one report for each id')
    table.values = np.empty((len(texts), 0), dtype=np.int8)
    rows = positions(gold, gold_path, table, path, result.notes)
    matched = [texts[row] if row >= 0 else "" for row in rows]
    result.notes += repeated_patients([patients[row] for row in rows if row >= 0])
    result.texts = matched
    result.lengths = np.where(rows >= 0, count_tokens(matched), -1)
    if missing := int((rows < 0).sum()):
        result.notes.append(f"{path.name} has no report for {plural(missing, 'gold row')}: in no length row.")
