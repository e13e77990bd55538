"""Label a file of reports with any labeler: streaming, in order, resumable at any row.

Reports are read, labelled and written a chunk at a time, so memory does not grow with the corpus.
Chunks always begin at a multiple of ``chunk_size`` rows and the files are committed only between
chunks (:mod:`lite_chex.labelers.committed`): a run that was killed and started again hands the labeler
the very same batches and writes the very same bytes. Only a labeler that salvages part of a chunk, whose
answers do not depend on their batch, has one committed up to there. An earlier output stays as it was
until the first commit.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from rich.console import Console

from lite_chex.data.labels import label_cells, label_header
from lite_chex.data.readers import ROW_ID, choose_columns, count_rows, iter_reports
from lite_chex.data.records import Report
from lite_chex.data.tables import Table
from lite_chex.errors import UserError
from lite_chex.findings import CERTAINTY_WORDS, Certainty, FindingSet
from lite_chex.labelers.base import Labeler
from lite_chex.labelers.chunk import Labelled, label_reports
from lite_chex.labelers.committed import CommittedCsv, RunState, file_digest
from lite_chex.labelers.progress import RunProgress

if TYPE_CHECKING:
    from lite_chex.labelers.rules import Mention

COMMIT_SECONDS = 1.0
"""A commit costs a few fsyncs, so fast labelers share one among several chunks."""


@runtime_checkable
class Explains(Protocol):
    """A labeler that can show where in a report each decision comes from."""

    def explain(self, report: str) -> Sequence[Mention]: ...


@dataclass(frozen=True)
class RunSummary:
    """What a call of :func:`label_file` did, and where it put it.

    rows: rows of the finished output. labelled / errors / on_sections / review: rows of each kind in
    it. resumed_from: rows that an earlier call had done. seconds: of this call.
    """

    output: Path
    rows: int
    labelled: int
    errors: int
    on_sections: int
    review: int
    resumed_from: int
    seconds: float
    errors_file: Path | None = None
    review_file: Path | None = None
    explain_file: Path | None = None

    @property
    def reports_per_second(self) -> float:
        return (self.rows - self.resumed_from) / max(self.seconds, 1e-9)


def sidecar(output: Path, what: str) -> Path:
    """``labels.csv``, ``errors`` -> ``labels.csv.errors.csv``."""
    return output.with_name(f"{output.name}.{what}.csv")


def probability_header(findings: FindingSet) -> list[str]:
    return [f"p_{name}_{word}" for name in findings.names for word in CERTAINTY_WORDS]


def label_file(
    labeler: Labeler,
    input: Path,
    output: Path,
    *,
    text_column: str | None = None,
    id_column: str | None = None,
    probabilities: bool = False,
    review_below: float | None = None,
    explain: bool = False,
    chunk_size: int = 256,
    overwrite: bool = False,
    console: Console | None = None,
) -> RunSummary:
    """Label every report of ``input`` into the CSV ``output``, going on where an earlier call stopped.

    Beside the output it writes ``<output>.state.json`` (how far it came), ``<output>.errors.csv``
    (rows that have empty labels, each with a reason), and where asked ``<output>.review.csv`` (reports
    whose least certain decision has a probability below ``review_below``) and ``<output>.explain.csv``.

    Args:
        chunk_size: reports handed to the labeler at a time; it may sort them by length inside.
        overwrite: start again at the first row instead of going on; what is there is replaced by the first commit.

    Raises:
        KeyboardInterrupt: on Ctrl-C, saying how many rows are kept.
        UserError: if the input, the labeler or an option changed since the run began; if ``output``
            is a file that this function did not write; if a file cannot be written; if the labeler has
            no probabilities or explanations to give.
    """
    console = console or Console(stderr=True)
    if output.suffix.lower() in (".gz", ".parquet", ".jsonl", ".json", ".xlsx"):
        raise UserError(f"{output}: labels are written as plain CSV; give --output a name that ends in .csv")
    run = _Run(labeler, input, output, text_column, id_column, probabilities, review_below, explain, chunk_size)
    if os.path.isdir(output) or (os.path.exists(output) and os.path.samefile(output, input)):
        raise UserError(f"{output}: --output must name a file of its own")
    began = time.monotonic()
    try:
        resumed_from = run.start(overwrite, console)
        if not run.state.done:
            run.work(console)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(run.kept(overwrite)) from None
    finally:
        run.close()
    counts = run.state.counts
    return RunSummary(
        output=output,
        rows=run.state.rows,
        labelled=run.state.rows - counts["errors"],
        errors=counts["errors"],
        on_sections=counts["on_sections"],
        review=counts["review"],
        resumed_from=resumed_from,
        seconds=time.monotonic() - began,
        errors_file=run.existing("errors"),
        review_file=run.existing("review"),
        explain_file=run.existing("explain"),
    )


class _Run:
    """One labelling job: its files, its state and the loop."""

    def __init__(
        self,
        labeler: Labeler,
        input: Path,
        output: Path,
        text_column: str | None,
        id_column: str | None,
        probabilities: bool,
        review_below: float | None,
        explain: bool,
        chunk_size: int,
    ) -> None:
        self.labeler, self.input, self.output = labeler, input, output
        self.text_column, self.id_column = text_column, id_column
        self.probabilities, self.review_below, self.explain = probabilities, review_below, explain
        self.chunk_size = chunk_size
        columns = choose_columns(Table(input), text_column, id_column)
        self.numbered, self.id_name = columns.id is None, columns.id or ROW_ID
        if explain and not isinstance(labeler, Explains):
            raise UserError(f"--explain: the {labeler.name} labeler cannot explain itself; use --labeler rules")
        options: dict[str, object] = {
            "--text-column": text_column,
            "--id-column": id_column,
            "--findings": list(labeler.findings.names),
            "--probabilities": probabilities,
            "--review-below": review_below,
            "--explain": explain,
            "chunk_size": chunk_size,
        }
        zero = {"errors": 0, "on_sections": 0, "review": 0}
        self.state = RunState(file_digest(input), labeler.fingerprint(), options, counts=zero)
        self.files: dict[str, CommittedCsv] = {}
        self.committed, self.last_commit, self.begun = 0, time.monotonic(), False

    def existing(self, what: str) -> Path | None:
        return sidecar(self.output, what) if self.state.sizes.get(what) else None

    def start(self, overwrite: bool, console: Console) -> int:
        """Take over an earlier run's state, or begin; returns the rows that are done already."""
        before = None if overwrite else RunState.load(self.output)
        if before is not None and self.output.exists():
            self._take_over(before)
        elif not overwrite and self.output.exists() and self.output.stat().st_size:
            raise UserError(
                f"{self.output}: exists and has no state file of litechex label beside it; "
                "choose another --output, or --overwrite to replace it"
            )
        self.state.total = self.state.total or count_rows(self.input)
        self.committed, self.begun = self.state.rows, bool(self.state.sizes)
        try:
            self.output.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{self.output.parent}: cannot make this folder for --output") from error
        for what, header in self._headers().items():
            path = self.output if what == "labels" else sidecar(self.output, what)
            self.files[what] = CommittedCsv(path, self.state.sizes.get(what, 0), header)
        self.files["labels"].open()
        if self.numbered:
            text = f"{self.input.name}: no id column, so rows are numbered from 0; --id-column names one"
            console.print(text, highlight=False, markup=False)
        if self.state.rows or self.state.done:
            rest = "complete already" if self.state.done else "going on after them"
            console.print(f"{self.output.name}: {self.state.rows:,} rows are done, {rest}.", highlight=False)
        return self.state.rows

    def _headers(self) -> dict[str, list[str]]:
        findings = self.labeler.findings
        row_id = ["row", self.id_name if self.id_name != ROW_ID else "id"]
        return {
            "labels": label_header(findings, self.id_name)
            + (probability_header(findings) if self.probabilities else []),
            "errors": [*row_id, "reason"],
            "review": [*row_id, "finding", "certainty", "probability"],
            "explain": [*row_id, "finding", "certainty", "phrase", "cue", "span"],
        }

    def _take_over(self, before: RunState) -> None:
        changed = before.changed(self.state)
        if changed:
            raise UserError(
                f"{self.output}: {changed} changed since this run began; --overwrite starts again at the first row, "
                "another --output keeps both"
            )
        size = self.output.stat().st_size
        if size < before.sizes.get("labels", 0) or (before.done and size != before.sizes["labels"]):
            raise UserError(f"{self.output}: was changed by something else since this run; --overwrite starts again")
        self.state = before

    def _begin(self) -> None:
        # The state comes first: a file without one beside it is taken for somebody else's.
        replace(self.state, rows=0, done=False, counts=dict.fromkeys(self.state.counts, 0)).save(self.output)
        for what, file in self.files.items():
            if what != "labels":
                file.path.unlink(missing_ok=True)
        self.files["labels"].write_header()
        self.begun = True

    def work(self, console: Console) -> None:
        """Label from the first row that is not committed to the end."""
        reports = iter_reports(self.input, self.text_column, self.id_column)
        # Ctrl-C reaches the main thread alone: rows that are kept by another are never cut in two.
        with RunProgress(console, self.state.total, start=self.state.rows) as progress, ThreadPoolExecutor(1) as keeper:
            try:
                for chunk in _chunks(islice(reports, self.state.rows, None), self.chunk_size):
                    labelled = label_reports(self.labeler, chunk)
                    keeper.submit(self._keep, chunk, labelled).result()
                    if labelled.stopped:
                        raise labelled.stopped
                    progress.advance(len(chunk))
            except (KeyboardInterrupt, UserError):
                keeper.submit(self._commit).result()
                raise
            self.state.done = True
            keeper.submit(self._commit).result()

    def _keep(self, chunk: Sequence[Report], labelled: Labelled) -> None:
        self._write(chunk[: labelled.rows], labelled)
        self.state.rows += labelled.rows
        if time.monotonic() - self.last_commit > COMMIT_SECONDS:
            self._commit()

    def _commit(self) -> None:
        if self.state.rows == self.committed and not self.state.done:
            return
        if not self.begun:
            self._begin()
        self.state.sizes = {what: file.sync() for what, file in self.files.items()}
        self.state.save(self.output)
        self.committed, self.last_commit = self.state.rows, time.monotonic()

    def kept(self, overwrite: bool) -> str:
        """What a user should know who interrupted the run."""
        if not self.committed:
            return "interrupted; no row of this run is kept"
        again = "Run the same command again, without --overwrite," if overwrite else "Run the same command again"
        return f"interrupted; {self.committed:,} of {self.state.total:,} rows are in {self.output}. {again} to go on."

    def close(self) -> None:
        for file in self.files.values():
            file.close()

    def _write(self, chunk: Sequence[Report], labelled: Labelled) -> None:
        batch, findings, counts = labelled.batch, self.labeler.findings, self.state.counts
        errors = batch.errors[: len(chunk)] if batch.errors else (None,) * len(chunk)
        needs = self.probabilities or self.review_below is not None
        if needs and batch.probabilities is None and not all(errors):
            flag = "--probabilities" if self.probabilities else "--review-below"
            raise UserError(f"{flag}: the {self.labeler.name} labeler gives no probabilities; leave the flag out")
        counts["on_sections"] += labelled.on_sections
        blank = [""] * (len(findings) * len(Certainty))
        for i, (report, error) in enumerate(zip(chunk, errors, strict=True)):
            cells = [report.study_id, *label_cells(batch.values[i])]
            if self.probabilities:
                p = None if error or batch.probabilities is None else batch.probabilities[i]
                cells += blank if p is None else [f"{v:.4f}" for v in p.ravel().tolist()]
            self.files["labels"].write_row(cells)
            if error:
                counts["errors"] += 1
                self.files["errors"].write_row([report.row, report.study_id, error])
                continue
            if self.review_below is not None and batch.probabilities is not None:
                self._review(report, batch.values[i], batch.probabilities[i])
            if self.explain and isinstance(self.labeler, Explains):
                for m in self.labeler.explain(report.text):
                    cells = [m.finding, m.certainty.word, m.phrase, m.cue or "", f"{m.span[0]}-{m.span[1]}"]
                    self.files["explain"].write_row([report.row, report.study_id, *cells])

    def _review(self, report: Report, values: np.ndarray, probabilities: np.ndarray) -> None:
        chosen = probabilities[np.arange(len(values)), values]
        worst = int(chosen.argmin())
        if self.review_below is not None and chosen[worst] < self.review_below:
            self.state.counts["review"] += 1
            finding, word = self.labeler.findings.names[worst], Certainty(int(values[worst])).word
            self.files["review"].write_row([report.row, report.study_id, finding, word, f"{chosen[worst]:.4f}"])


def _chunks(reports: Iterator[Report], size: int) -> Iterator[list[Report]]:
    while chunk := list(islice(reports, size)):
        yield chunk
