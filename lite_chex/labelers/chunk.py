"""Label a chunk of reports as they were read: every row gets an answer or a reason, none is lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from lite_chex.data.records import Report
from lite_chex.data.splits import normalised_text
from lite_chex.errors import UserError
from lite_chex.findings import Certainty
from lite_chex.labelers.base import TOO_LONG, LabelBatch, Labeler

EMPTY = "the report is empty"
WORDLESS = "the report has no word"
BLANKS = frozenset({"nan", "null", "none", "na", "n a"})
"""What programs write where there is no text, as :func:`normalised_text` has it."""


@runtime_checkable
class Salvages(Protocol):
    """A labeler whose answers are too dear to lose: where a batch ends early, it gives those that it has."""

    def label_some(self, reports: Sequence[str]) -> tuple[LabelBatch, BaseException | None]:
        """The labels of all reports, or of the first ones and what ended the batch after them."""
        ...


@dataclass(frozen=True)
class Labelled:
    """Labels of a chunk.

    rows: how many of its reports have theirs, from the first one on. on_sections: how many were too long
    whole and labelled on their sections. stopped: what ended the labeler after these rows.
    """

    batch: LabelBatch
    rows: int
    on_sections: int = 0
    stopped: BaseException | None = None


def label_reports(labeler: Labeler, reports: Sequence[Report]) -> Labelled:
    """Label a chunk of reports as read: every row gets an answer or a reason.

    Unreadable and empty reports never reach the labeler. A report that is too long for the model is
    tried again on its findings and impression, where they can be told apart. Where the labeler fails on a
    whole batch, each report is tried alone, so that one bad row does not lose the others.
    """
    n, findings = len(reports), labeler.findings
    values = np.full((n, len(findings)), Certainty.ABSENT, dtype=np.int8)
    errors: list[str | None] = [r.error or _nothing_to_read(r.text) for r in reports]
    probabilities: np.ndarray | None = None
    done, stopped = n, None

    def put(rows: list[int], texts: list[str]) -> None:
        nonlocal probabilities, done, stopped
        batch, stopped = _label_or_split(labeler, texts)
        answered = len(batch.values)
        done = min([done, *rows[answered:]])
        if batch.probabilities is not None and probabilities is None:
            probabilities = np.zeros((n, len(findings), len(Certainty)), dtype=np.float32)
        for j, row in enumerate(rows[:answered]):
            errors[row] = batch.errors[j] if batch.errors else None
            if errors[row]:
                continue
            values[row] = batch.values[j]
            if probabilities is not None and batch.probabilities is not None:
                probabilities[row] = batch.probabilities[j]

    whole = [i for i, error in enumerate(errors) if error is None]
    if whole:
        put(whole, [reports[i].text for i in whole])
    sections = {i: _sections(reports[i]) for i in whole if (errors[i] or "").startswith(TOO_LONG)}
    again = [i for i, text in sections.items() if text]
    if again and stopped:
        done = again[0]
    elif again:
        put(again, [sections[i] for i in again])
    on_sections = sum(errors[i] is None for i in again)
    batch = LabelBatch(values, probabilities, tuple(errors) if any(errors) else None)
    return Labelled(batch, done, on_sections, stopped)


def _nothing_to_read(text: str) -> str | None:
    if not text.strip():
        return EMPTY
    words = normalised_text(text)
    return WORDLESS if not words else EMPTY if words in BLANKS else None


def _sections(report: Report) -> str:
    """Findings and impression, where they are told apart and shorter than the whole report; else nothing."""
    text = "\n".join(part.strip() for part in (report.findings, report.impression) if part and part.strip())
    return text if len(text) < len(report.text) else ""


def _label_or_split(labeler: Labeler, texts: list[str]) -> tuple[LabelBatch, BaseException | None]:
    try:
        return labeler.label_some(texts) if isinstance(labeler, Salvages) else (labeler.label(texts), None)
    except (UserError, MemoryError):
        raise
    except Exception as error:
        if len(texts) == 1:
            raise
        batches: list[LabelBatch | None] = []
        for text in texts:
            try:
                batches.append(labeler.label([text]))
            except (UserError, MemoryError):
                raise
            except Exception:
                batches.append(None)
        if not any(batches):  # not the reports' fault
            raise error
        reason = f"the labeler failed on this report ({type(error).__name__})"
        return _joined(batches, len(labeler.findings), reason), None


def _joined(batches: Sequence[LabelBatch | None], findings: int, reason: str) -> LabelBatch:
    """One batch of single-report batches; None stands for a report that failed for ``reason``."""
    values = np.full((len(batches), findings), Certainty.ABSENT, dtype=np.int8)
    errors: list[str | None] = [reason] * len(batches)
    given = [b for b in batches if b is not None]
    with_p = all(b.probabilities is not None for b in given)
    probabilities = np.zeros((len(batches), findings, len(Certainty)), dtype=np.float32) if with_p else None
    for i, batch in enumerate(batches):
        if batch is None:
            continue
        errors[i] = batch.errors[0] if batch.errors else None
        values[i] = batch.values[0]
        if probabilities is not None and batch.probabilities is not None:
            probabilities[i] = batch.probabilities[0]
    return LabelBatch(values, probabilities, tuple(errors))
