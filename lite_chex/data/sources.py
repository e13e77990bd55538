"""Where reports come from: one reader for each public release, peer's file or table, all giving the same.

Each source streams :class:`SourceReport`; what differs between them (where a text, a patient and a split
stand, and whether labels stand beside the text) ends here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from lite_chex.data.archives import is_archive, iter_files
from lite_chex.data.labels import CellReader, finding_columns
from lite_chex.data.readers import ROW_ID, choose_columns, id_text, report_of, split_name
from lite_chex.data.records import Report
from lite_chex.data.sections import findings_and_impression, join_sections, text_to_label, unwrapped
from lite_chex.data.tables import NOT_UTF8, Row, Table
from lite_chex.errors import UserError
from lite_chex.findings import Certainty, FindingSet, LabelArray
from lite_chex.wording import plural

CHEXGPT_FINDINGS: Mapping[str, str] = {
    "widened mediastinal silhouette": "Enlarged Cardiomediastinum",
    "nodule": "Lung Lesion",
    "lung opacity": "Lung Opacity",
    "pulmonary edema": "Edema",
    "consolidation": "Consolidation",
    "atelectasis": "Atelectasis",
    "pneumothorax": "Pneumothorax",
    "effusion": "Pleural Effusion",
    "pleural lesion": "Pleural Other",
    "fracture": "Fracture",
}
"""CheX-GPT's names and the findings they stand for; its other three have no counterpart."""
_MIMIC_PATH = re.compile(r"(?:(?:^|/)p(\d+)/|(?:^|/))s(\d+)\.txt$")
_CHEXPERT_PATH = re.compile(r"(?:^|/)(train|valid|test)/(patient\d+)/(study\d+)/")


@dataclass(frozen=True)
class SourceReport:
    """A report with what is known beside it.

    labels: ``[findings]``, None where nothing has any. label_source: labels, gold or presence.
    """

    report: Report
    split: str | None = None
    labels: LabelArray | None = None
    label_source: str | None = None


@dataclass
class Source:
    """An opened source. columns: bool ``[findings]``, the findings it has labels of itself.

    presence: those labels are presence gold. id_column: where the reports' ids stand, ROW_ID where they are
    row numbers. notes: one sentence each, complete once all is read.
    """

    reports: Iterator[SourceReport]
    columns: np.ndarray
    presence: bool = False
    id_column: str = "study_id"
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class SourceOptions:
    """How to read a source. sections: cut a whole report down to its findings and impression; None does so
    where the source's texts are whole reports (MIMIC-CXR, CheXpert Plus) and takes other texts as they stand."""

    findings: FindingSet
    text_column: str | None = None
    id_column: str | None = None
    sections: bool | None = None
    presence: bool = False


def open_source(name: str, path: Path, options: SourceOptions) -> Source:
    """Open a source by its name in :data:`SOURCES`.

    Raises:
        UserError: if there is no such source, or its file is missing or not of its layout.
    """
    if name not in SOURCES:
        raise UserError(f'unknown source "{name}": choose one of {", ".join(SOURCES)}')
    if not Path(path).exists():
        raise UserError(f"{path}: no such file or folder")
    return SOURCES[name](Path(path), options)


def _mimic(path: Path, options: SourceOptions) -> Source:
    """MIMIC-CXR: ``files/p10/p10000032/s50414267.txt`` in a folder (of one patient, too) or the zip of it."""
    _has_its_own_text("mimic-cxr", options)
    source = Source(iter(()), _no_columns(options))

    def reports() -> Iterator[SourceReport]:
        row = strange = 0
        for name, content in iter_files(path, ".txt"):
            match = _MIMIC_PATH.search(f"{path.resolve().name}/{name}")
            if match is None:
                strange += 1
                continue
            yield SourceReport(
                _whole_report(row, match.group(2), match.group(1), content, options.sections is not False)
            )
            row += 1
        if not row:
            raise UserError(f"{path}: holds no report named like p10000032/s50414267.txt")
        if strange:
            source.notes.append(f"{strange} text files are not named like a study (s50414267.txt) and were left out")

    source.reports = reports()
    return source


def _has_its_own_text(name: str, options: SourceOptions) -> None:
    if options.text_column is not None:
        raise UserError(f"--text-column: --source {name} has a text of its own; --source table reads another column")


def _whole_report(row: int, study: str, patient: str | None, content: bytes, sections: bool) -> Report:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return Report(row, study, "", patient, error=NOT_UTF8)
    if not text.strip():
        return Report(row, study, "", patient)
    report = Report(row, study, text, patient, *findings_and_impression(text))
    return _sectioned(report, sections)


def _chexpert_plus(path: Path, options: SourceOptions) -> Source:
    """CheXpert Plus: one row an image; the further views of a study repeat its report and are left out."""
    _has_its_own_text("chexpert-plus", options)
    table = Table(path)
    table.require("path_to_image", "report")
    source = Source(iter(()), _no_columns(options), id_column="path_to_image")
    wanted = ["path_to_image", "report", "section_findings", "section_impression", "deid_patient_id", "split"]
    names = [name for name in wanted if name in table.columns]

    def reports() -> Iterator[SourceReport]:
        seen: set[str] = set()
        views = 0
        for row in table.rows(names):
            cells = dict(zip(names, row.cells))
            image = id_text(cells["path_to_image"])
            match = _CHEXPERT_PATH.search(image)
            if match and match.group(0) in seen:
                views += 1
                continue
            roles = {
                "id": image,
                "text": cells["report"],
                "patient": cells.get("deid_patient_id") or (match and match.group(2)),
                "findings": cells.get("section_findings"),
                "impression": cells.get("section_impression"),
            }
            split = split_name(cells.get("split") or (match and match.group(1)))
            report = _sectioned(report_of(row, roles), options.sections is not False)
            if match and report.error is None and report.text:
                seen.add(match.group(0))
            yield SourceReport(report, split)
        if views:
            source.notes.append(f"{plural(views, 'row')} of further views of a study, with the same report: left out")

    source.reports = reports()
    return source


def _sectioned(report: Report, cut: bool) -> Report:
    """The report with the lines of its sections joined, and its text made of them alone where ``cut``."""
    if report.error is not None or not report.text:
        return report
    findings, impression = (unwrapped(s) if s else None for s in (report.findings, report.impression))
    text = (join_sections(findings, impression) or text_to_label(report.text)) if cut else report.text
    return replace(report, text=text, findings=findings, impression=impression)


def _openi(path: Path, options: SourceOptions) -> Source:
    """Open-i: ``ecgen-radiology/N.xml`` in a folder or archive, or the CSV with a row for each ``uid``."""
    if not is_archive(path):
        table = Table(path)
        table.require(*(() if options.id_column else ("uid",)))
        return _table(path, options, patient_is_study=True)

    _has_its_own_text("openi", options)

    def reports() -> Iterator[SourceReport]:
        for row, (name, content) in enumerate(iter_files(path, ".xml")):
            study = Path(name).stem.encode("utf-8", "replace").decode()
            yield SourceReport(_openi_report(row, study, content))

    return Source(reports(), _no_columns(options), id_column="uid")


def _openi_report(row: int, study: str, content: bytes) -> Report:
    try:
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError):
        return Report(row, study, "", study, error="not readable as XML")
    parts = {
        (element.get("Label") or "").upper(): " ".join("".join(element.itertext()).split())
        for element in root.iter("AbstractText")
    }
    findings, impression = parts.get("FINDINGS") or None, parts.get("IMPRESSION") or None
    return Report(row, study, join_sections(findings, impression), study, findings, impression)


def _chexgpt(path: Path, options: SourceOptions) -> Source:
    """CheX-GPT's JSON lines. "not_exist" says neither negative nor absent, so the labels are presence gold."""
    _has_its_own_text("chexgpt", options)
    table = Table(path)
    table.require("text", "label", *([options.id_column] if options.id_column else []))
    id_name = next((n for n in (options.id_column, "study_id", "id") if n is not None and n in table.columns), None)
    findings = options.findings
    source = Source(iter(()), _no_columns(options), presence=True, id_column=id_name or ROW_ID)
    source.columns[[i for name in CHEXGPT_FINDINGS.values() if (i := findings.column(name)) is not None]] = True

    def reports() -> Iterator[SourceReport]:
        unmapped: set[str] = set()
        for row in table.rows(["text", "label", *([id_name] if id_name else [])]):
            roles = {"text": row.cells[0], **({"id": row.cells[2]} if id_name else {})}
            labels = None
            if row.error is None:
                try:
                    labels, unknown = _chexgpt_labels(row.cells[1], findings)
                except ValueError as problem:
                    raise UserError(f"{path}: row {row.number} (the first is 0), key label: {problem}") from None
                unmapped |= unknown
            yield SourceReport(report_of(row, roles), labels=labels)
        if unmapped:
            source.notes.append(f"no finding of the set corresponds to {', '.join(sorted(unmapped))}: left out")

    source.reports = reports()
    return source


def _chexgpt_labels(label: object, findings: FindingSet) -> tuple[LabelArray, set[str]]:
    if isinstance(label, str):
        label = json.loads(label)
    if not isinstance(label, dict):
        raise ValueError('is no object of the form {"effusion": {"status": ["exist"]}}')
    values = np.full(len(findings), Certainty.ABSENT, dtype=np.int8)
    unknown = set()
    for name, state in label.items():
        status = state.get("status") if isinstance(state, dict) else state
        status = status[0] if isinstance(status, list) and len(status) == 1 else status
        if status not in ("exist", "not_exist"):
            raise ValueError(f'status of "{name}" is neither ["exist"] nor ["not_exist"]')
        finding = CHEXGPT_FINDINGS.get(name.lower())
        index = findings.column(finding) if finding else None
        if index is None:
            unknown.add(name)
        elif status == "exist":
            values[index] = Certainty.POSITIVE
    return values, unknown


def _chexpert_labeler(path: Path, options: SourceOptions) -> Source:
    """The CheXpert labeler's input (one column, no header) or its output (``Reports`` + 14 columns)."""
    with suppress(UserError):  # a first row that is not UTF-8 is a report, and one bad row
        if "Reports" in Table(path).columns:
            return _table(path, options)
    table = Table(path, header=False)
    if len(table.columns) != 1:
        raise UserError(
            f"{path}: {len(table.columns)} columns; the CheXpert labeler reads one column without a header and "
            "writes Reports + 14 (for another table: --source table)"
        )

    def reports() -> Iterator[SourceReport]:
        for row in table.rows(["0"]):
            yield SourceReport(report_of(row, {"text": row.cells[0]}))

    return Source(reports(), _no_columns(options), id_column=ROW_ID)


def _chexbert(path: Path, options: SourceOptions) -> Source:
    """CheXbert's CSV: ``Report Impression``, and 14 label columns where CheXbert wrote it."""
    Table(path).require("Report Impression")
    return _table(path, replace(options, text_column=options.text_column or "Report Impression"))


def _table(path: Path, options: SourceOptions, patient_is_study: bool = False) -> Source:
    """Any CSV, JSONL or Parquet; labels and a ``split`` column are taken where they stand beside the text."""
    table = Table(path)
    columns = choose_columns(table, options.text_column, options.id_column)
    findings = options.findings
    labels = finding_columns(table, findings) if any(findings.column(c) is not None for c in table.columns) else {}
    reader = CellReader(findings, options.presence)
    cut = columns.text is None if options.sections is None else options.sections
    source = Source(iter(()), _no_columns(options), options.presence, columns.id or ROW_ID)
    source.columns[list(labels.values())] = True
    roles = {r: getattr(columns, r) for r in ("text", "id", "patient", "findings", "impression")}
    roles = {r: name for r, name in roles.items() if name is not None}
    extra = ["split"] if "split" in table.columns else []

    def reports() -> Iterator[SourceReport]:
        for row in table.rows([*roles.values(), *extra, *labels]):
            report = report_of(row, dict(zip(roles, row.cells)))
            if patient_is_study and columns.patient is None:
                report = replace(report, patient_id=report.study_id)
            report = _sectioned(report, cut)
            split = split_name(row.cells[len(roles)]) if extra and row.error is None else None
            values = _inline_labels(path, row, row.cells[len(roles) + len(extra) :], labels, reader)
            yield SourceReport(report, split, values if labels else None)
        source.notes += reader.warnings()

    source.reports = reports()
    return source


def _inline_labels(
    path: Path, row: Row, cells: tuple[object, ...], columns: dict[str, int], reader: CellReader
) -> LabelArray | None:
    if row.error is not None:
        return None
    values = np.full(len(reader.findings), Certainty.ABSENT, dtype=np.int8)
    for (name, index), cell in zip(columns.items(), cells):
        try:
            values[index] = reader.read(cell, index)
        except ValueError as problem:
            raise UserError(f'{path}: row {row.number} (the first is 0), column "{name}": {problem}') from None
    return values


def _no_columns(options: SourceOptions) -> np.ndarray:
    return np.zeros(len(options.findings), dtype=bool)


SOURCES: Mapping[str, Callable[[Path, SourceOptions], Source]] = {
    "mimic-cxr": _mimic,
    "chexpert-plus": _chexpert_plus,
    "openi": _openi,
    "chexgpt": _chexgpt,
    "chexpert-labeler": _chexpert_labeler,
    "chexbert": _chexbert,
    "table": _table,
}
