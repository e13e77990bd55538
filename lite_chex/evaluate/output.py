"""What the ``eval`` command prints and writes from one set of aligned labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.text import Text

from lite_chex.data.files import refuse_overwriting
from lite_chex.errors import UserError
from lite_chex.evaluate.calibration import calibration_table, calibrations
from lite_chex.evaluate.export import csv_text, json_text, latex_text, markdown_text, to_json, write_text
from lite_chex.evaluate.inputs import EvalInput
from lite_chex.evaluate.published import published_tables
from lite_chex.evaluate.reader_study import ReaderStudy
from lite_chex.evaluate.reader_tables import reader_study_json, reader_tables
from lite_chex.evaluate.render import render_notes, render_table
from lite_chex.evaluate.results import Evaluation
from lite_chex.evaluate.tables import Table, all_tables, overall_table
from lite_chex.evaluate.worst import print_texts, worst_table

FILES = ("json", "csv", "markdown", "latex", "html")


@dataclass(frozen=True)
class Outputs:
    """What is wanted: see the options of ``litechex eval``."""

    tables: bool = False
    json: Path | None = None
    csv: Path | None = None
    markdown: Path | None = None
    latex: Path | None = None
    html: Path | None = None
    published: bool = False
    worst: int = 0
    show_text: bool = False

    def check(self, read: Iterable[Path | None] = ()) -> None:
        """Raise a UserError for what cannot be had from any input, and for a file that is among those ``read``;
        callers with slow input ask first."""
        refuse_overwriting({f"--{name}": getattr(self, name) for name in FILES}, read)
        if self.show_text and not self.worst:
            raise UserError("--show-text belongs to --worst N: give N, the number of reports to show")
        if self.html is not None:
            from lite_chex.evaluate.plots import require_matplotlib

            require_matplotlib()

    def numbered(self, number: int) -> Outputs:
        """The files of the run's second, third, … test source: ``out.json``, ``out-2.json``, …"""
        if number == 1:
            return self
        files = {name: getattr(self, name) for name in FILES}
        return replace(self, **{n: f.with_stem(f"{f.stem}-{number}") for n, f in files.items() if f is not None})


def write_outputs(
    data: EvalInput,
    outputs: Outputs,
    console: Console,
    *,
    bootstrap: int = 1000,
    seed: int = 0,
    study: ReaderStudy | None = None,
) -> Evaluation:
    """Evaluate, print the tables, write the files; a reader study stands behind them in print and in the files.

    Raises:
        UserError: if an output cannot be had from this input, before anything is computed.
    """
    outputs.check()
    if outputs.show_text and data.texts is None:
        raise UserError("--show-text needs the reports: give --reports FILE")
    evaluation = data.evaluate(bootstrap, seed)
    tables = all_tables(evaluation, data.baseline)
    found = calibrations(data, bootstrap, seed)
    if found:
        tables.append(calibration_table(found))
    extra = published_tables(evaluation) if outputs.published else []
    if outputs.worst:
        extra.append(worst_table(data, outputs.worst))
    if study is not None:
        extra += reader_tables(study)
    tables += extra
    shown = tables if outputs.tables else [overall_table(evaluation), *extra]
    figures = to_json(evaluation)
    if study is not None:
        figures["reader_study"] = reader_study_json(study)

    def html() -> str:
        from lite_chex.evaluate.html import html_text

        return html_text(evaluation, tables, found, data.gold_source)

    written = _write_files(outputs, tables, evaluation.notes, figures, html, lambda: csv_text(evaluation))
    if data.gold_source:
        console.print(Text(f"Gold: {data.gold_source}", style="bold"))
    for table in shown:
        render_table(table, console)
    if outputs.show_text:
        print_texts(data, outputs.worst, console)
    render_notes(evaluation.notes, console)
    _name_files(written, console)
    return evaluation


def write_reader_study(study: ReaderStudy, outputs: Outputs, console: Console) -> None:
    """Print and write a reader study alone.

    Raises:
        UserError: if a file is asked for that has no reader study in it.
    """
    if outputs.csv is not None:
        raise UserError("--csv has no reader study in it: use --json, --markdown, --latex or --html")
    tables = reader_tables(study)

    def html() -> str:
        from lite_chex.evaluate.html import page

        return page("Reader study", [], [], tables)

    written = _write_files(outputs, tables, [], {"reader_study": reader_study_json(study)}, html, str)
    for table in tables:
        render_table(table, console)
    _name_files(written, console)


def _write_files(
    outputs: Outputs,
    tables: list[Table],
    notes: list[str],
    figures: dict[str, object],
    html: Callable[[], str],
    csv: Callable[[], str],
) -> list[Path]:
    """Write what is wanted, before anything is printed: a reader that goes away (``| head``) costs no file."""
    makers = (
        (outputs.json, lambda: json_text(figures)),
        (outputs.csv, csv),
        (outputs.markdown, lambda: markdown_text(tables, notes)),
        (outputs.latex, lambda: latex_text(tables, notes)),
        (outputs.html, html),
    )
    for path, make in makers:
        if path is not None:
            write_text(path, make)
    return [path for path, _ in makers if path is not None]


def _name_files(written: list[Path], console: Console) -> None:
    for path in written:
        console.print(Text(f"Written: {path}"), soft_wrap=True)
