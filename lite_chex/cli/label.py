"""``litechex label``: a file of reports in, a CSV of CheXpert codes out."""

from __future__ import annotations

import csv
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lite_chex.cli.app import app
from lite_chex.cli.findings import FINDINGS_HELP, chosen_findings
from lite_chex.data.readers import iter_reports
from lite_chex.errors import UserError
from lite_chex.labelers.committed import RunState
from lite_chex.labelers.registry import (
    CHUNK_SIZES,
    LABELERS,
    WITHOUT_PROBABILITIES,
    Announces,
    Estimates,
    LabelerOptions,
    ServerOptions,
    labeler_for_model,
    make_labeler,
)
from lite_chex.labelers.runner import RunSummary, label_file
from lite_chex.wording import duration, plural

if TYPE_CHECKING:
    from collections.abc import Callable

    from lite_chex.findings import FindingSet
    from lite_chex.labelers.base import Labeler
    from lite_chex.labelers.ray_engine import RunFile

EXPLANATIONS_SHOWN = 30
SERVER = "Server (--labeler openai)"
USED_BY: dict[str, tuple[str, ...]] = {
    "model": ("llm", "chexbert", "student", "openai"),
    "beams": ("llm",),
    "batch_size": ("llm", "chexbert", "student"),
    "tokenizer": ("chexbert",),
    **dict.fromkeys(
        (
            "base_url",
            "api_key_env",
            "concurrency",
            "input_price",
            "output_price",
            "own_export",
            "i_may_send_these_reports",
        ),
        ("openai",),
    ),
}
"""The options that not every labeler uses."""


@app.command()
def label(
    context: typer.Context,
    input: Annotated[Path, typer.Option(help="Reports: CSV, CSV.GZ, JSONL or Parquet.")],
    output: Annotated[Path, typer.Option(help="Where the labels go, as CSV.")],
    model: Annotated[
        str | None,
        typer.Option(help="Run or adapter folder, student folder, chexbert.pth, or the server's model name."),
    ] = None,
    labeler: Annotated[str | None, typer.Option(help=f"{', '.join(LABELERS)}; default: what --model is.")] = None,
    text_column: Annotated[str | None, typer.Option(help="Column of the report text.")] = None,
    id_column: Annotated[str | None, typer.Option(help="Column of the report's id.")] = None,
    findings: Annotated[str | None, typer.Option(help=f"{FINDINGS_HELP} Default: the model's own.")] = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Add a column p_<finding>_<certainty> for each.")
    ] = False,
    review_below: Annotated[
        float | None,
        typer.Option(help="List reports whose least certain decision is below this in <output>.review.csv."),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show phrase, cue and span of every decision (rules).")
    ] = False,
    beams: Annotated[int, typer.Option(help="Beam width over the decisions (llm).")] = 1,
    batch_size: Annotated[int | None, typer.Option(help="Reports per forward pass; default: what fits.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start again, do not go on where an earlier run stopped.")
    ] = False,
    engine: Annotated[str, typer.Option(help="local, or ray: --input and --output are folders of Parquet.")] = "local",
    workers: Annotated[int | None, typer.Option(help="Worker processes (ray); default: one per GPU, or core.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="Folder or hub name of BERT's vocabulary (chexbert).")] = None,
    base_url: Annotated[
        str | None, typer.Option(help="Its address, as http://localhost:8000/v1.", rich_help_panel=SERVER)
    ] = None,
    api_key_env: Annotated[
        str, typer.Option(help="Environment variable that holds the key.", rich_help_panel=SERVER)
    ] = "OPENAI_API_KEY",
    concurrency: Annotated[int, typer.Option(help="Requests at a time.", rich_help_panel=SERVER)] = 8,
    input_price: Annotated[
        float | None, typer.Option(help="Price of a million input tokens.", rich_help_panel=SERVER)
    ] = None,
    output_price: Annotated[
        float | None, typer.Option(help="Price of a million output tokens.", rich_help_panel=SERVER)
    ] = None,
    own_export: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="The LiteChex export that it serves: asked as trained, held to its grammar.",
            rich_help_panel=SERVER,
        ),
    ] = None,
    i_may_send_these_reports: Annotated[
        bool,
        typer.Option(
            "--i-may-send-these-reports", help="Allow a server that is not this machine.", rich_help_panel=SERVER
        ),
    ] = False,
) -> None:
    """Label every report of a file (in English); run it again to go on where it stopped.

    Reports that are empty or cannot be labelled stay as rows with empty labels, each with a
    reason in <output>.errors.csv. Codes: 1.0 positive, 0.0 negative, -1.0 uncertain, empty = not mentioned.
    """
    for flag, number in (
        ("--beams", beams),
        ("--batch-size", batch_size),
        ("--concurrency", concurrency),
        ("--workers", workers),
    ):
        if number is not None and number < 1:
            raise UserError(f"{flag}: {number} is too small; it must be at least 1")
    if review_below is not None and not 0 < review_below <= 1:
        raise UserError(f"--review-below: {review_below} is no probability; it must lie between 0 and 1")
    if engine not in ("local", "ray"):
        raise UserError(f'--engine: "{engine}" is neither local nor ray')
    if engine == "local" and workers is not None:
        raise UserError("--workers goes with --engine ray; the local engine is one process")
    if engine == "ray" and labeler == "openai":
        raise UserError("--engine ray is for labelers that run in its workers; a server is asked with --concurrency")
    if labeler is None and model is None:
        raise UserError(f"give --model RUN_OR_ADAPTER_DIR, or --labeler with one of {', '.join(LABELERS)}")
    name = labeler or labeler_for_model(str(model))
    if name not in LABELERS:
        raise UserError(f'--labeler: there is no labeler "{name}"; choose one of {", ".join(LABELERS)}')
    _refuse_unused(name, context)
    if name in WITHOUT_PROBABILITIES and (probabilities or review_below is not None):
        flag = "--probabilities" if probabilities else "--review-below"
        raise UserError(f"{flag}: the {name} labeler gives no probabilities; leave the flag out")
    grammar = _grammar(own_export) if own_export else None
    options = LabelerOptions(
        model=model,
        findings=_findings(findings, own_export),
        batch_size=batch_size,
        beams=beams,
        tokenizer=tokenizer,
        server=ServerOptions(
            base_url,
            api_key_env,
            concurrency,
            may_send=i_may_send_these_reports,
            input_price=input_price,
            output_price=output_price,
            grammar=grammar,
        ),
    )
    run = partial(
        label_file,
        probabilities=probabilities,
        review_below=review_below,
        explain=explain,
        chunk_size=CHUNK_SIZES[name],
    )
    console = Console()
    if engine == "ray":
        make = partial(make_labeler, name, options)
        _label_folder(make, run, input, output, text_column, id_column, workers, overwrite, console)
        return
    made = make_labeler(name, options)
    console.print(f"labeler: {made.name}, {len(made.findings)} findings", highlight=False)
    if isinstance(made, Announces):
        for line in made.announce(probabilities or review_below is not None):
            console.print(line, highlight=False, soft_wrap=True)
    if isinstance(made, Estimates):
        before = RunState.load(output) if output.exists() and not overwrite else None
        left = islice(iter_reports(input, text_column, id_column), before.rows if before else 0, None)
        console.print(str(made.estimate(left)), highlight=False, soft_wrap=True)
    summary = run(
        made, input, output, text_column=text_column, id_column=id_column, overwrite=overwrite, console=console
    )
    _print_summary(summary, console)


def _refuse_unused(name: str, context: typer.Context) -> None:
    """Refuse an option that was given and that the labeler ``name`` does not use."""
    for option, users in USED_BY.items():
        source = context.get_parameter_source(option)
        if name not in users and source is not None and source.name == "COMMANDLINE":
            flag = "--" + option.replace("_", "-")
            raise UserError(
                f"{flag}: the {name} labeler does not use it (it is for --labeler {', '.join(users)}); leave it out"
            )


def _findings(given: str | None, own_export: Path | None) -> FindingSet | None:
    """The set that ``--findings`` means, else that of the export; None leaves the choice to the labeler."""
    chosen = chosen_findings(given) if given else None
    if own_export is None:
        return chosen
    from lite_chex.export_files import findings_of

    answered = findings_of(own_export)
    if chosen is not None and chosen.names != answered.names:
        raise UserError(
            f"--findings {given}: not the findings that --own-export {own_export} answers; leave the option out"
        )
    return chosen or answered


def _grammar(export: Path) -> str:
    """The grammar of an export's answer."""
    from lite_chex.export_files import GRAMMAR

    file = export / GRAMMAR
    if not file.is_file():
        raise UserError(f"--own-export {export}: there is no {GRAMMAR}; give the folder that litechex export wrote")
    return file.read_text(encoding="utf-8")


def _label_folder(
    make: Callable[[], Labeler],
    run: RunFile,
    input: Path,
    output: Path,
    text_column: str | None,
    id_column: str | None,
    workers: int | None,
    overwrite: bool,
    console: Console,
) -> None:
    from lite_chex.labelers.ray_engine import label_folder

    try:
        done = label_folder(
            make,
            run,
            input,
            output,
            text_column=text_column,
            id_column=id_column,
            workers=workers,
            overwrite=overwrite,
            console=console,
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; the files that were complete are in {output}. Run again, without --overwrite, to go on."
        ) from None
    line = (
        f"{plural(done.rows, 'row')} in {plural(done.files, 'file')} in {done.output} "
        f"({plural(done.skipped, 'file was', 'files were')} complete), "
        f"{done.errors:,} with empty labels, in {duration(done.seconds)}"
    )
    console.print(line, highlight=False, soft_wrap=True)


def _print_summary(summary: RunSummary, console: Console) -> None:
    new = summary.rows - summary.resumed_from
    speed = f", {summary.reports_per_second:,.1f} reports/s" if new else ""
    lines = [
        f"{plural(summary.rows, 'row')} in {summary.output} ({new:,} now, in {duration(summary.seconds)}{speed})",
        f"{summary.labelled:,} labelled, {summary.errors:,} with empty labels",
    ]
    if summary.errors_file and summary.errors:
        lines.append(f"reasons: {summary.errors_file}")
    if summary.on_sections:
        lines.append(f"{summary.on_sections:,} too long as a whole: labelled on findings and impression")
    if summary.review_file:
        lines.append(f"{summary.review:,} to review: {summary.review_file}")
    if summary.explain_file:
        _print_explanations(summary.explain_file, console)
        lines.append(f"every explanation: {summary.explain_file}")
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


def _print_explanations(path: Path, console: Console) -> None:
    """The first explanations as a table; the file has them all."""
    table = Table("id", "finding", "certainty", "phrase", "cue", "span")
    with path.open(encoding="utf-8", newline="") as file:
        for row in islice(csv.reader(file), 1, EXPLANATIONS_SHOWN + 1):
            table.add_row(*(Text(cell) for cell in row[1:]))
    console.print(table)
