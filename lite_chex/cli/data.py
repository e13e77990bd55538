"""``litechex validate`` and ``litechex prepare``: look at a user's files before anything is trained on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from lite_chex.cli.app import app
from lite_chex.cli.findings import FINDINGS_HELP, chosen_findings

SOURCE_NAMES = "mimic-cxr | chexpert-plus | openi | chexgpt | chexpert-labeler | chexbert | table"


@app.command()
def validate(
    file: Path = typer.Argument(help="Reports or labels: CSV, CSV.GZ, JSONL or Parquet."),
    findings: str = typer.Option("chexpert14", help=f"Whose columns are looked for: {FINDINGS_HELP}"),
    labels: bool = typer.Option(False, "--labels", help="It is a label file, whatever text stands in it."),
    presence: bool = typer.Option(False, "--presence", help="It is presence gold (1, blank, A or x)."),
    text_column: str | None = typer.Option(None, help="The column with the report's text."),
    id_column: str | None = typer.Option(None, help="The column with the report's id."),
    limit: int = typer.Option(20, min=1, help="How many problems are listed."),
) -> None:
    """Print what is wrong with a file, row by row; exit code 1 if anything is."""
    from rich.console import Console

    from lite_chex.data.validate import print_validation, validate_file

    checks = validate_file(file, chosen_findings(findings), labels, presence, text_column, id_column)
    console = Console(soft_wrap=False)
    for found in checks:
        print_validation(found, console, limit)
    if any(found.wrong for found in checks):
        raise typer.Exit(1)


@app.command()
def prepare(
    source: str = typer.Option(..., help=f"Where the reports come from: {SOURCE_NAMES}."),
    input: Path = typer.Option(..., help="The release's report file, folder, zip or tar."),
    output: Path = typer.Option(..., help="The Parquet file to write."),
    labels: Path | None = typer.Option(
        None, help="Labels by study: CheXpert's or NegBio's CSV, CheXbert's JSON lines."
    ),
    gold: Path | None = typer.Option(None, help="Gold labels, which replace the others (test-set-labeled.csv)."),
    split: Path | None = typer.Option(None, help="Splits by study: a CSV with study_id and split."),
    findings: str = typer.Option("chexpert14", help=f"The findings to keep: {FINDINGS_HELP}"),
    presence: bool = typer.Option(False, "--presence", help="The labels are presence gold (1, blank, A or x)."),
    text_column: str | None = typer.Option(None, help="The column with the report's text."),
    id_column: str | None = typer.Option(None, help="The column with the report's id, in the label files too."),
    sections: bool | None = typer.Option(
        None,
        "--sections/--whole",
        help="Cut reports down to findings and impression, or keep them whole. Default: cut MIMIC-CXR's "
        "and CheXpert Plus's, take other texts as they stand.",
    ),
) -> None:
    """Turn a release, a peer's file or any table of reports into one Parquet file, and print what is in it."""
    from rich.console import Console

    from lite_chex.data.prepare import LabelFiles
    from lite_chex.data.prepare import prepare as prepare_reports
    from lite_chex.data.sources import SourceOptions
    from lite_chex.data.summary import print_summary

    options = SourceOptions(chosen_findings(findings), text_column, id_column, sections, presence)
    console = Console(soft_wrap=False)
    with _counted("reports written") as progress:
        summary = prepare_reports(source, input, output, options, LabelFiles(labels, gold, split), progress)
    print_summary(summary, console)
    console.print(f"written: {output}", soft_wrap=True, highlight=False, markup=False)


@contextmanager
def _counted(what: str) -> Iterator[Callable[[int], None]]:
    """A live count on a terminal, a plain line now and then in a log (both on stderr)."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        last = [0]

        def line(n: int) -> None:
            if n - last[0] >= 50_000:
                last[0] = n
                console.print(f"{n:,} {what}", highlight=False)

        yield line
        return
    columns = (SpinnerColumn(), TextColumn("{task.completed:,} {task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda n: bar.update(task, completed=n)
