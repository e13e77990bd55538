"""What a prepared corpus holds: counts of reports, labels and lengths, gathered while it is written."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from lite_chex.data.sources import SourceReport
from lite_chex.data.splits import normalised_text
from lite_chex.findings import CERTAINTY_WORDS, FindingSet

LENGTH_EDGES = (0, 1, 25, 50, 75, 100, 150, 200, 300)
"""Lower edges of the length histogram's bins, in whitespace-separated tokens."""
LENGTH_BINS = ("empty", *(f"{a}-{b - 1}" for a, b in pairwise(LENGTH_EDGES[1:])), f"{LENGTH_EDGES[-1]}+")
_BAR = 40


@dataclass
class Summary:
    """What was written.

    columns: bool ``[findings]``, those with labels. label_counts: ``[findings, 5]`` in Certainty's order,
    then cells that are not scored, of the reports that have labels. lengths: reports per bin of
    :data:`LENGTH_BINS`. empty: reports without text, unreadable ones included. first_unreadable: id and
    reason of the first unreadable one. duplicate_texts: reports whose text an earlier one had.
    across_splits: reports whose patient or text an earlier one of another split had.
    """

    findings: FindingSet
    columns: np.ndarray
    label_counts: np.ndarray
    lengths: list[int]
    reports: int = 0
    empty: int = 0
    unreadable: int = 0
    first_unreadable: str = ""
    without_sections: int = 0
    duplicate_texts: int = 0
    repeated_ids: int = 0
    across_splits: int = 0
    patients: int = 0
    first_id: str = ""
    splits: dict[str, int] = field(default_factory=dict)
    label_sources: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class SummaryCounter:
    """Counts chunk by chunk; holds a hash of each text and the ids, never a text."""

    def __init__(self, findings: FindingSet, columns: np.ndarray) -> None:
        self._summary = Summary(findings, columns, np.zeros((len(findings), 5), dtype=np.int64), [0] * len(LENGTH_BINS))
        self._ids: set[str] = set()
        self._patients: dict[str, str | None] = {}
        self._texts: dict[int, str | None] = {}
        self._splits: Counter[str] = Counter()
        self._label_sources: Counter[str] = Counter()

    @property
    def has_unscored(self) -> bool:
        """True where some cell must not be scored, so that null alone cannot stand for it."""
        total = self._summary
        unscored = total.label_counts[total.columns, -1].any()
        return bool(total.columns.any() and (unscored or self._label_sources["none"]))

    @property
    def reports(self) -> int:
        return self._summary.reports

    def add(self, chunk: Sequence[SourceReport]) -> None:
        total = self._summary
        for item in chunk:
            report = item.report
            total.first_id = total.first_id or report.study_id
            total.reports += 1
            if report.error is not None:
                total.unreadable += 1
                total.first_unreadable = total.first_unreadable or f"{report.study_id} ({report.error})"
            total.empty += not report.text
            total.without_sections += bool(report.text) and not (report.findings or report.impression)
            total.lengths[bisect_right(LENGTH_EDGES, len(report.text.split())) - 1] += 1
            total.repeated_ids += report.study_id in self._ids
            self._ids.add(report.study_id)
            shared = False
            if report.patient_id:
                shared = self._patients.setdefault(report.patient_id, item.split) != item.split
            if report.text:
                key = hash(normalised_text(report.text))
                total.duplicate_texts += key in self._texts
                shared |= self._texts.setdefault(key, item.split) != item.split
            total.across_splits += shared
            self._splits[item.split or "none"] += 1
            self._label_sources[item.label_source or "none"] += 1
        if total.columns.any():
            labels = [item.labels for item in chunk if item.label_source and item.labels is not None]
            values = np.array(labels, dtype=np.int8).reshape(-1, len(total.findings))
            for code in range(5):
                # SKIP is -1, which as an index is the last column.
                total.label_counts[:, code] += (values % 5 == code).sum(axis=0)

    def summary(self) -> Summary:
        total = self._summary
        total.patients = len(self._patients)
        total.splits = {} if set(self._splits) == {"none"} else dict(self._splits)
        total.label_sources = dict(self._label_sources) if total.columns.any() else {}
        total.label_counts[~total.columns] = 0
        return total


def print_summary(summary: Summary, console: Console) -> None:
    """Three small tables and the notes; fits 80 columns and a plain log."""
    console.print(_overview(summary))
    if summary.columns.any():
        console.print(_label_table(summary))
    console.print(_length_table(summary))
    for note in summary.notes:
        console.print(Text(f"note: {note}"))


def _overview(summary: Summary) -> RichTable:
    table = RichTable(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    unreadable = ""
    if summary.unreadable:
        unreadable = f"{summary.unreadable} of them unreadable, first {summary.first_unreadable}"
    rows: list[tuple[str, int, str]] = [
        ("reports", summary.reports, ""),
        ("patients", summary.patients, "" if summary.patients else "no patient ids: splits go by text alone"),
        ("empty", summary.empty, unreadable),
        ("no findings or impression", summary.without_sections, "the text is not told apart into sections"),
        ("duplicate texts", summary.duplicate_texts, "an earlier report has the same text"),
        ("across splits", summary.across_splits, "patient or text also in another split"),
        ("repeated ids", summary.repeated_ids, "an earlier report has the same id"),
    ]
    for name, n in summary.splits.items():
        rows.append((f"split {name}", n, ""))
    for name, n in summary.label_sources.items():
        rows.append((f"labels from {name}", n, "not scored: no label row has their id" if name == "none" else ""))
    for label, n, comment in rows:
        if n or label in ("reports", "patients"):
            table.add_row(label, f"{n:,}", comment if n or label == "patients" else "")
    return table


def _label_table(summary: Summary) -> RichTable:
    table = RichTable(box=None, pad_edge=False, title="labels", title_justify="left")
    table.add_column("finding", no_wrap=True)
    skipped = summary.label_counts[:, -1].any()
    for word in (*CERTAINTY_WORDS, *(("x",) if skipped else ())):
        table.add_column(word, justify="right", no_wrap=True)
    for name, has, counts in zip(summary.findings.names, summary.columns, summary.label_counts):
        cells = [f"{n:,}" for n in counts[: 5 if skipped else 4]] if has else ["-"] * (5 if skipped else 4)
        table.add_row(name, *cells)
    return table


def _length_table(summary: Summary) -> RichTable:
    table = RichTable(box=None, pad_edge=False, title="report length in tokens", title_justify="left")
    table.add_column("tokens", no_wrap=True)
    table.add_column("reports", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    most = max(summary.lengths) or 1
    for name, n in zip(LENGTH_BINS, summary.lengths):
        table.add_row(name, f"{n:,}", "#" * round(_BAR * n / most))
    return table
