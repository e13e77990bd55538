"""The two tables that flow through LiteChex: reports in, labels beside them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from lite_chex.findings import FindingSet, LabelArray


@dataclass(frozen=True)
class Report:
    """One report as read from a file.

    row: 0-based data row in its file. study_id: the id column's cell, else the row number, as text.
    text: what is labelled ("" where the report is empty). findings / impression: the sections where
    the file (or its headers) tells them apart, else None. error: why the row could not be read, or None.
    split: its cell of a column ``split`` (``val`` and the like read as ``validation``), None where there is none.
    """

    row: int
    study_id: str
    text: str
    patient_id: str | None = None
    findings: str | None = None
    impression: str | None = None
    error: str | None = None
    split: str | None = None


@dataclass
class LabelTable:
    """Labels of many reports. ids: ``[n]``; values: int8 ``[n, findings]`` (Certainty or SKIP).

    columns: bool ``[findings]``, True where the file had that finding's column (a finding without
    one is all absent). id_column: the name under which the ids stood. warnings: counted, one
    sentence each.
    """

    findings: FindingSet
    ids: list[str]
    values: LabelArray
    columns: np.ndarray
    id_column: str = "study_id"
    warnings: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)
