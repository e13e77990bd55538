"""From files to a session: what each of the annotation commands starts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lite_chex.annotate.items import Draft, compare_items, label_items, review_items
from lite_chex.annotate.sampling import ordered, sample_reports
from lite_chex.annotate.session import Session
from lite_chex.annotate.sources import System, load_reports, load_systems
from lite_chex.annotate.store import Store
from lite_chex.data.readers import id_column_of
from lite_chex.errors import UserError
from lite_chex.findings import FindingSet


@dataclass(frozen=True)
class Inputs:
    """What is judged. predictions: ``NAME=FILE`` each; limit: pairs (compare) or reports (review, label)."""

    reports: Path
    predictions: tuple[str, ...]
    findings: FindingSet
    text_column: str | None = None
    id_column: str | None = None
    limit: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Built:
    """A task's items, in order.

    left_out: rows of the reports file that cannot be shown. texts: all others, by id. versions: of the input
    files, and the name of the reports' id column.
    """

    drafts: list[Draft]
    reports: int
    left_out: int
    texts: dict[str, str]
    versions: dict[str, Any]


def build_items(task: str, inputs: Inputs) -> Built:
    """The items of ``compare``, ``review`` or ``label``.

    Raises:
        UserError: if a file cannot be read, there are too few predictions, or nothing to judge is left.
    """
    least = {"compare": 2, "review": 1, "label": 0}[task]
    if len(inputs.predictions) < least:
        raise UserError(f"annotate {task} needs {least} or more --pred NAME=FILE, {len(inputs.predictions)} given")
    if task == "label" and len(inputs.predictions) > 1:
        raise UserError("annotate label takes one --pred NAME=FILE, the draft")
    reports, left_out = load_reports(inputs.reports, inputs.text_column, inputs.id_column)
    reports_id = id_column_of(inputs.reports, inputs.id_column)
    systems = load_systems(list(inputs.predictions), inputs.findings, reports, reports_id)
    texts = {r.study_id: r.text for r in reports}
    versions = {**_versions(inputs.reports, systems), "id_column": reports_id}
    if task == "review":  # a report that no version has a row for is no part of the study
        reports = [r for r in reports if any(s.has(r.study_id) for s in systems)]
    if task != "compare":
        reports = sample_reports(reports, inputs.limit, inputs.seed)
    if task == "compare":
        drafts = ordered(compare_items(reports, systems, inputs.findings), inputs.seed)[: inputs.limit]
    elif task == "review":
        drafts = review_items(reports, systems, inputs.findings)
    else:
        drafts = ordered(label_items(reports, systems[0] if systems else None, inputs.findings), inputs.seed)
    if not drafts:
        raise UserError("nothing to compare: on every report the versions give the same answer, or only one answers")
    return Built(drafts, len({d.item.study_id for d in drafts}), left_out, texts, versions)


def other_reports(store: Store, built: Built) -> int:
    """How many reports the store holds items of that are not in the reports file."""
    held = {(item.study_id, item.report) for item in store.items().values()}
    return sum(built.texts.get(study_id) != text for study_id, text in held)


def open_session(task: str, inputs: Inputs, built: Built, store: Store, overlap: float = 1.0) -> Session:
    """A session on items that are built, with its judgements in ``store``."""
    return Session(
        task, built.drafts, store, inputs.findings, seed=inputs.seed, versions=built.versions, overlap=overlap
    )


def _versions(reports: Path, systems: list[System]) -> dict[str, Any]:
    digest = hashlib.sha256(reports.read_bytes()).hexdigest()[:16]
    return {"reports": digest, "predictions": {s.name: s.version for s in systems}}
