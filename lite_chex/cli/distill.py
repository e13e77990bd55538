"""``litechex distill``: a teacher's labels of reports in, a fast BERT-size labeler out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from lite_chex.cli.app import app
from lite_chex.cli.findings import FINDINGS_HELP, chosen_findings
from lite_chex.cli.train import OutputOption, RecipeArgument, SetOption, open_recipe
from lite_chex.errors import UserError

if TYPE_CHECKING:
    from lite_chex.recipe import DistillSection
    from lite_chex.train.distill import DistillSummary

FILES = "Without a recipe"
SECTION = "Keys of the recipe's section distill"


@app.command()
def distill(
    recipe: RecipeArgument = None,
    overrides: SetOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    output_dir: OutputOption = None,
    reports: Annotated[
        Path | None, typer.Option(help="Reports: CSV, CSV.GZ, JSONL or Parquet.", rich_help_panel=SECTION)
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="The teacher: labels of them (what litechex label writes).", rich_help_panel=SECTION),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help="Folder or hub name of a BERT-like encoder, or new: a small one.", rich_help_panel=SECTION),
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the reports.", rich_help_panel=SECTION)] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.", rich_help_panel=SECTION)] = None,
    batch_size: Annotated[int | None, typer.Option(help="Reports per step.", rich_help_panel=SECTION)] = None,
    max_length: Annotated[
        int | None, typer.Option(help="Longest report in tokens; others are left out.", rich_help_panel=SECTION)
    ] = None,
    validation: Annotated[
        float | None, typer.Option(help="Share of the reports held out.", rich_help_panel=SECTION)
    ] = None,
    text_column: Annotated[str | None, typer.Option(help="Column of the report text in --reports.")] = None,
    id_column: Annotated[str | None, typer.Option(help="Column of the id, in --reports and --labels.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the student; label --model takes it.", rich_help_panel=FILES)
    ] = None,
    findings: Annotated[str | None, typer.Option(help=FINDINGS_HELP, rich_help_panel=FILES)] = None,
    seed: Annotated[int, typer.Option(help="Seed of heads, order and dropout.", rich_help_panel=FILES)] = 0,
) -> None:
    """Train a student on a teacher's labels, for corpora of millions of reports.

    With RECIPE, its section distill names base and teacher (the run's best stage, the rules, or a label file); the
    student is written to runs/NAME/student and is a row of litechex eval RECIPE. Without RECIPE give --reports,
    --labels, --base and --output.
    """
    console = Console()
    keys: dict[str, Any] = {
        "reports": _source(reports, text_column, id_column),
        "teacher": None if labels is None else str(labels),
        "model_name_or_path": base,
        "num_train_epochs": epochs,
        "learning_rate": learning_rate,
        "per_device_train_batch_size": batch_size,
        "max_length": max_length,
        "validation_fraction": validation,
    }
    keys = {key: value for key, value in keys.items() if value is not None}
    if recipe is None and (reports or labels or output):
        _from_files(keys, reports, labels, base, output, findings or "paper13", seed, resume, console)
        return
    if output is not None or findings is not None:
        flag = "--findings" if output is None else "--output"
        raise UserError(f"{flag}: RECIPE says it (data.findings, and --output-dir for the folder); leave it out")
    from lite_chex.train.student import STUDENT, train_student

    changes = [f"distill.{key}={json.dumps(value)}" for key, value in keys.items()]
    loaded = open_recipe(recipe, [*(overrides or []), *changes], output_dir)
    _run(lambda: train_student(loaded, console, resume=resume), loaded.run_dir / STUDENT, console)


def _source(reports: Path | None, text_column: str | None, id_column: str | None) -> list[dict[str, str | None]] | None:
    if reports is None:
        return None
    return [{"reports": str(reports), "text_column": text_column, "id_column": id_column}]


def _from_files(
    keys: dict[str, Any],
    reports: Path | None,
    labels: Path | None,
    base: str | None,
    output: Path | None,
    findings: str,
    seed: int,
    resume: bool,
    console: Console,
) -> None:
    needed = {"--reports": reports, "--labels": labels, "--base": base, "--output": output}
    missing = [flag for flag, value in needed.items() if value is None]
    if missing or reports is None or labels is None or output is None:
        raise UserError(f"{missing[0]} is missing: without RECIPE, distill needs {', '.join(needed)}")
    from lite_chex.train.distill import TaughtFile
    from lite_chex.train.distill import distill as run

    section = _section(keys)
    source = section.reports[0]
    files = [TaughtFile(reports, labels, source.text_column, source.id_column)]
    chosen = chosen_findings(findings)
    _run(lambda: run(files, section, chosen, output, seed=seed, resume=resume, console=console), output, console)


def _section(keys: dict[str, Any]) -> DistillSection:
    from pydantic import ValidationError

    from lite_chex.recipe import DistillSection

    try:
        return DistillSection(**keys)
    except ValidationError as error:
        wrong = error.errors()[0]
        raise UserError(f"distill.{'.'.join(map(str, wrong['loc']))}: {wrong['msg']}") from None


def _run(train: Callable[[], DistillSummary], folder: Path, console: Console) -> None:
    try:
        summary = train()
    except KeyboardInterrupt as stop:
        # While the teacher labels, it says itself what is kept.
        raise KeyboardInterrupt(
            str(stop) or f"interrupted; {folder} keeps the last epoch. Add --resume to go on."
        ) from None
    console.print(
        f"{folder}: learnt from {summary.train:,} reports; on {summary.validation:,} held-out ones its macro F1 "
        f"against the teacher is {summary.macro_f1:.3f}, and both say the same in {summary.agreement:.1%} of all cells "
        f"and {summary.mentioned:.1%} of those the teacher mentions",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"next: litechex label --model {folder} --input FILE --output FILE", highlight=False, soft_wrap=True)
