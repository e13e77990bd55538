"""What an annotation starts from: reports, and the label files of the versions to be compared."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lite_chex.data.labels import id_column_beside, label_id_column, read_labels, unlabelled_rows
from lite_chex.data.readers import id_text, iter_reports
from lite_chex.data.records import LabelTable, Report
from lite_chex.data.tables import Table
from lite_chex.errors import UserError
from lite_chex.findings import SKIP, Certainty, FindingSet, LabelArray
from lite_chex.labelers.runner import probability_header

REWARD_COLUMN = "reward"


@dataclass(frozen=True)
class System:
    """One version's answers: the content of a label file.

    probabilities: per study float32 ``[findings, 4]``, where the file has all ``p_`` columns. rewards: per
    study the reward model's score, where the file has a ``reward`` column. failed: studies that the
    labelling run gave no answer for (``<file>.errors.csv``). version: hash of the file.
    """

    name: str
    table: LabelTable
    probabilities: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    rewards: dict[str, float] = field(default_factory=dict)
    failed: frozenset[str] = frozenset()
    version: str = ""

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {study_id: row for row, study_id in enumerate(self.table.ids)}

    def has(self, study_id: str) -> bool:
        """Whether the file has a row for the study, readable or not."""
        return study_id in self._rows

    def labels(self, study_id: str) -> LabelArray | None:
        """int8 ``[findings]``, or None where the system gave no answer. A cell ``x`` counts as absent."""
        row = self._rows.get(study_id)
        if row is None or study_id in self.failed:
            return None
        values = self.table.values[row]
        return self.table.findings.consistent(np.where(values == SKIP, np.int8(Certainty.ABSENT), values))

    def answer(self, study_id: str, findings: FindingSet) -> str | None:
        """The answer's JSON text, or None."""
        labels = self.labels(study_id)
        return None if labels is None else findings.to_json(labels)

    def distribution(self, study_id: str) -> npt.NDArray[np.float32]:
        """``[findings, 4]``: the probabilities, else all of it on the answer."""
        known = self.probabilities.get(study_id)
        if known is not None:
            return known
        labels = self.labels(study_id)
        assert labels is not None
        return np.eye(len(Certainty), dtype=np.float32)[labels]


def load_reports(path: Path, text_column: str | None = None, id_column: str | None = None) -> tuple[list[Report], int]:
    """The reports that can be shown, and how many rows were empty or unreadable.

    Raises:
        UserError: if two reports have the same id, or none is left.
    """
    reports, left_out = [], 0
    rows: dict[str, int] = {}
    for report in iter_reports(path, text_column, id_column):
        if report.error or not report.text.strip():
            left_out += 1
            continue
        if report.study_id in rows:
            raise UserError(
                f"{path}: rows {rows[report.study_id]} and {report.row} (the first is 0) have one id; "
                "judgements need ids that occur once, name another column with --id-column"
            )
        rows[report.study_id] = report.row
        reports.append(report)
    if not reports:
        raise UserError(f"{path}: no report to show, all {left_out} rows are empty or unreadable")
    return reports, left_out


def load_system(spec: str, findings: FindingSet, reports_id: str) -> System:
    """The system of a ``NAME=FILE``. reports_id: the reports' id column.

    Raises:
        UserError: if it is not of that form, or the file is no label file or has no ids.
    """
    name, equals, file = spec.partition("=")
    name = name.strip()
    if not equals or not name or not file:
        raise UserError(f'"{spec}": give each version as NAME=FILE, such as ppo=ppo_labels.csv')
    path = Path(file)
    id_column = id_column_beside(path, reports_id)
    table = read_labels(path, findings, id_column)
    probabilities, rewards = _extra_columns(path, findings, id_column)
    version = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    failed = frozenset(table.ids[i] for i in unlabelled_rows(path, table))
    return System(name, table, probabilities, rewards, failed, version)


def load_systems(specs: list[str], findings: FindingSet, reports: list[Report], reports_id: str) -> list[System]:
    """All systems, checked against each other and the reports. reports_id: the reports' id column.

    Raises:
        UserError: if two have one name, or a file shares no id with the reports.
    """
    systems = [load_system(spec, findings, reports_id) for spec in specs]
    names = [s.name for s in systems]
    repeated = sorted({n for n in names if names.count(n) > 1})
    if repeated:
        raise UserError(f'two versions are called "{repeated[0]}"; give each NAME=FILE a name of its own')
    ids = {r.study_id for r in reports}
    for spec, system in zip(specs, systems):
        if ids.isdisjoint(system.table.ids):
            raise UserError(
                f'{spec.partition("=")[2]}: no id in common with the reports (its first is "{system.table.ids[0]}", '
                f'theirs "{reports[0].study_id}")'
                if system.table.ids
                else f"{spec.partition('=')[2]}: has no rows"
            )
    return systems


def _extra_columns(
    path: Path, findings: FindingSet, id_column: str | None
) -> tuple[dict[str, npt.NDArray[np.float32]], dict[str, float]]:
    """Probabilities and rewards by study, where the file has those columns."""
    table = Table(path)
    names = probability_header(findings)
    if not set(names) <= set(table.columns):
        names = []
    has_reward = REWARD_COLUMN in table.columns
    if not names and not has_reward:
        return {}, {}
    id_name = label_id_column(table, id_column)
    columns = [*names, *([REWARD_COLUMN] if has_reward else []), *([id_name] if id_name else [])]
    probabilities: dict[str, npt.NDArray[np.float32]] = {}
    rewards: dict[str, float] = {}
    for row in table.rows(columns):
        study_id = id_text(row.cells[-1]) if id_name else str(row.number)
        numbers = [_number(cell) for cell in row.cells[: len(names) + has_reward]]
        values = numbers[: len(names)]
        if values and None not in values:
            shape = (len(findings), len(Certainty))
            probabilities[study_id] = np.array(values, dtype=np.float32).reshape(shape)
        reward = numbers[-1] if has_reward else None
        if reward is not None:
            rewards[study_id] = reward
    return probabilities, rewards


def _number(cell: object) -> float | None:
    try:
        number = float(str(cell))
    except ValueError:
        return None
    return number if np.isfinite(number) else None
