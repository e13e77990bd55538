"""The student of a run (``runs/<name>/student``): a teacher labels the recipe's reports, an encoder learns from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lite_chex.data.files import atomic_path
from lite_chex.data.labels import write_labels
from lite_chex.data.readers import id_column_of
from lite_chex.data.records import LabelTable
from lite_chex.data.splits import check_apart, report_keys
from lite_chex.errors import UserError
from lite_chex.labelers.committed import file_digest
from lite_chex.labelers.llm import STAGE_ORDER
from lite_chex.labelers.registry import CHUNK_SIZES, LabelerOptions, make_labeler
from lite_chex.labelers.runner import label_file
from lite_chex.labelers.student import STUDENT_FILE, StudentLabeler
from lite_chex.recipe import TEACHERS
from lite_chex.train.distill import DistillSummary, TaughtFile, check_student_base, distill
from lite_chex.train.examples import labelled_reports, left_to_later, source_reports
from lite_chex.train.lineage import parents
from lite_chex.train.run import Clock, Stage, write_card

if TYPE_CHECKING:
    from rich.console import Console

    from lite_chex.labelers.base import LabelBatch, Labeler
    from lite_chex.recipe import Recipe, Source
    from lite_chex.train.examples import Examples

STUDENT = "student"


def train_student(recipe: Recipe, console: Console, *, resume: bool = False) -> DistillSummary:
    """Label the recipe's reports with its teacher and distil the run's student from them.

    The teacher's labels stay in ``<run>/predictions/teacher`` and are made again only where the teacher or
    the reports changed.

    Raises:
        UserError: if the teacher or the base is not there, or the reports overlap with the test split.
    """
    clock = Clock()
    section = recipe.distill
    sources = section.reports or recipe.data.train
    if not sources:
        raise UserError("distill.reports: the recipe names no reports, neither here nor in data.train")
    for source in sources:
        if not Path(source.reports).is_file():
            raise UserError(f"distill.reports: there is no file {source.reports}")
    _check_teacher(recipe)
    check_student_base(section.model_name_or_path)
    if recipe.data.shared == "refuse":
        tested = [report for source in recipe.data.test for report in labelled_reports(source, recipe).reports]
        check_apart((r for source in sources for r in source_reports(source)), tested, "distill.reports")
    files, teacher = _taught(recipe, sources, console)
    stage = Stage(recipe, STUDENT)
    taught_by = next((name for name in STAGE_ORDER if section.teacher == "run" and Stage(recipe, name).finished), None)
    stage.begin(resume, {name: digest for name, digest in parents(recipe, STUDENT).items() if name == taught_by})
    summary = distill(files, section, recipe.findings, stage.dir, seed=recipe.seed, resume=resume, console=console)
    facts = {
        "base model": section.model_name_or_path,
        "teacher": teacher,
        "reports": f"{summary.train} to learn from, {summary.validation} held out, {summary.skipped} left out",
        "macro F1 against the teacher": f"{summary.macro_f1:.4f} (held-out reports)",
        "time": f"{clock.seconds:.0f} s",
    }
    write_card(stage, "Student", facts, library="transformers")
    return summary


def has_student(recipe: Recipe) -> bool:
    return (Stage(recipe, STUDENT).dir / STUDENT_FILE).is_file()


def student_labels(recipe: Recipe, examples: Examples, index: int) -> LabelBatch:
    """What the run's student says of the reports of test source ``index``; also kept beside the stages' labels.

    Raises:
        UserError: if the student is damaged, or never learnt one of the recipe's findings.
    """
    batch = StudentLabeler.load(Stage(recipe, STUDENT).dir, findings=recipe.findings).label(examples.texts)
    ids, columns = [r.study_id for r in examples.reports], np.ones(len(recipe.findings), dtype=bool)
    path = recipe.run_dir / "predictions" / str(index) / f"{STUDENT}.csv"
    write_labels(path, LabelTable(recipe.findings, ids, batch.values, columns))
    return batch


def _check_teacher(recipe: Recipe) -> None:
    teacher = recipe.distill.teacher
    if teacher == "run" and not any(Stage(recipe, name).finished for name in STAGE_ORDER):
        raise UserError(
            f"distill.teacher: run, but {recipe.run_dir} has no finished {', '.join(STAGE_ORDER)} stage; "
            "run litechex train-sft first, or set distill.teacher=rules"
        )
    if teacher not in TEACHERS and not Path(teacher).is_file():
        raise UserError(
            f'distill.teacher: "{teacher}" is none of {", ".join(TEACHERS)}, and there is no such label file'
        )


def _taught(recipe: Recipe, sources: Sequence[Source], console: Console) -> tuple[list[TaughtFile], str]:
    """Each source's reports with the teacher's labels of them, and what the teacher is called."""
    teacher = recipe.distill.teacher
    folder = recipe.run_dir / "predictions" / "teacher"
    # Reports named for it may be of any split but the test's.
    without = left_to_later(recipe, "validation" if recipe.distill.reports else "train")
    files = [_report_file(recipe, source, folder, without) for source in sources]
    if teacher not in TEACHERS:
        return [TaughtFile(path, Path(teacher), text, id_) for path, text, id_ in files], Path(teacher).name
    name = "rules" if teacher == "rules" else "llm"
    options = LabelerOptions(model=str(recipe.run_dir), findings=recipe.findings, batch_size=recipe.label.batch_size)
    labeler = make_labeler(name, options)
    taught = []
    for path, text, id_ in files:
        labels = _labels(labeler, path, text, id_, folder, CHUNK_SIZES[name], console)
        taught.append(TaughtFile(path, labels, text, id_))
    return taught, labeler.name


def _report_file(
    recipe: Recipe, source: Source, folder: Path, without: Set[tuple[str, str]]
) -> tuple[Path, str | None, str | None]:
    """A source's file, text column and id column; where only some reports count, a file of these."""
    path = Path(source.reports)
    if source.limit is None and source.split is None and not without:
        return path, source.text_column, source.id_column
    rows = [report for report in source_reports(source) if without.isdisjoint(report_keys(report))]
    id_column = id_column_of(path, source.id_column)
    what = f"{recipe.seed} {source.limit} {source.split} {sorted(without)} {file_digest(path)}"
    digest = hashlib.sha256(what.encode()).hexdigest()[:16]
    chosen = folder / f"{path.name.partition('.')[0]}-{digest}.jsonl"
    kept = sorted(np.random.default_rng(recipe.seed).permutation(len(rows))[: source.limit].tolist())
    with atomic_path(chosen) as temporary, temporary.open("w", encoding="utf-8") as file:
        for i in kept:
            row = {id_column: rows[i].study_id, "report": rows[i].text}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return chosen, None, id_column


def _labels(
    labeler: Labeler,
    reports: Path,
    text_column: str | None,
    id_column: str | None,
    folder: Path,
    chunk: int,
    console: Console,
) -> Path:
    """The teacher's labels of a file, made anew, continued or taken as they lie."""
    what = f"{labeler.fingerprint()} {file_digest(reports)} {text_column} {id_column}"
    output = folder / f"{reports.name.partition('.')[0]}-{hashlib.sha256(what.encode()).hexdigest()[:16]}.csv"
    console.print(f"teacher: {labeler.name} labels {reports.name}", highlight=False)
    folder.mkdir(parents=True, exist_ok=True)
    label_file(
        labeler, reports, output, text_column=text_column, id_column=id_column, chunk_size=chunk, console=console
    )
    return output
