"""``litechex distill``: a teacher's labels of a corpus in, a fast BERT-size labeler out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from lite_chex.cli.app import app
from lite_chex.findings import finding_set


@app.command()
def distill(
    reports: Annotated[Path, typer.Option(help="Reports: CSV, CSV.GZ, JSONL or Parquet.")],
    labels: Annotated[Path, typer.Option(help="A teacher's labels of them (what litechex label writes).")],
    base: Annotated[str, typer.Option(help="Folder or hub name of a BERT-like encoder with safetensors weights.")],
    output: Annotated[Path, typer.Option(help="Folder of the student; litechex label --model takes it.")],
    findings: Annotated[str, typer.Option(help="paper13 or chexpert14.")] = "paper13",
    text_column: Annotated[str | None, typer.Option(help="Column of the report text.")] = None,
    id_column: Annotated[str | None, typer.Option(help="Column of the report's id.")] = None,
    epochs: Annotated[float, typer.Option(min=0.01, help="Passes over the corpus.")] = 3.0,
    learning_rate: Annotated[float, typer.Option(min=0, help="Peak learning rate.")] = 5e-5,
    batch_size: Annotated[int, typer.Option(min=1, help="Reports per step.")] = 16,
    max_length: Annotated[
        int | None, typer.Option(min=8, help="Longest report in tokens; others are left out.")
    ] = None,
    validation: Annotated[float, typer.Option(min=0.001, max=0.5, help="Share of the reports held out.")] = 0.05,
    seed: Annotated[int, typer.Option(help="Seed of heads, order and dropout.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --output.")] = False,
) -> None:
    """Train a student on a teacher's labels, for corpora of millions of reports."""
    from lite_chex.train.distill import DistillOptions
    from lite_chex.train.distill import distill as run

    options = DistillOptions(
        num_train_epochs=epochs,
        learning_rate=learning_rate,
        per_device_train_batch_size=batch_size,
        max_length=max_length,
        validation=validation,
        seed=seed,
        resume=resume,
    )
    console = Console()
    try:
        summary = run(
            reports,
            labels,
            base,
            output,
            finding_set(findings),
            options,
            text_column=text_column,
            id_column=id_column,
            console=console,
        )
    except KeyboardInterrupt:
        console.print(f"interrupted; {output} keeps the last epoch. Add --resume to go on.", soft_wrap=True)
        raise
    console.print(
        f"{output}: learnt from {summary.train:,} reports; on {summary.validation:,} held-out ones it agrees with the "
        f"teacher in {summary.agreement:.1%} of all cells and {summary.mentioned:.1%} of those the teacher mentions",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"next: litechex label --model {output} --input FILE --output FILE", highlight=False, soft_wrap=True)
