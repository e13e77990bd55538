"""``litechex eval``: any label files against a gold, or the stages of a run on its test split."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from lite_chex.cli.app import app
from lite_chex.cli.findings import FINDINGS_HELP, chosen_findings
from lite_chex.cli.train import OutputOption
from lite_chex.errors import UserError
from lite_chex.evaluate.inputs import EvalInput, add_predictions, read_eval_input
from lite_chex.evaluate.output import Outputs, write_outputs, write_reader_study
from lite_chex.evaluate.protocols import protocol_named
from lite_chex.evaluate.reader_study import evaluate_reader_study, read_reader_study

if TYPE_CHECKING:
    from lite_chex.recipe import Recipe

RESAMPLES = 1000


def _predictions(pairs: list[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for pair in pairs:
        name, equals, file = pair.partition("=")
        if not (name and equals and file):
            raise typer.BadParameter(f"--pred {pair}: write it as NAME=FILE")
        if name in found:
            raise UserError(f"--pred {name}=…: the name stands twice; give each system its own")
        found[name] = Path(file)
    return found


@app.command("eval")
def evaluate_command(
    recipe: Annotated[
        str | None, typer.Argument(help="Recipe whose run is evaluated; default: the shipped one that fits.")
    ] = None,
    gold: Annotated[Path | None, typer.Option(help="Gold labels; with it, label files are compared.")] = None,
    pred: Annotated[
        list[str] | None, typer.Option(help="NAME=FILE of a system's labels, beside the run's stages too; repeat it.")
    ] = None,
    reports: Annotated[Path | None, typer.Option(help="The reports: for the length bins and --show-text.")] = None,
    tables: Annotated[bool, typer.Option("--tables", help="Print every table, not the overall one alone.")] = False,
    protocol: Annotated[str | None, typer.Option(help="macro (default), chexbert, chexpert or presence.")] = None,
    findings: Annotated[str, typer.Option(help=f"With --gold: {FINDINGS_HELP}")] = "paper13",
    bootstrap: Annotated[int | None, typer.Option(min=0, help="Resamples (default 1000); 0 for no intervals.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the resamples.")] = 0,
    baseline: Annotated[str | None, typer.Option(help="System that the ablation compares with.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write every figure as JSON.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write every figure as CSV, one in a row.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the tables as Markdown.")] = None,
    latex: Annotated[Path | None, typer.Option(help="Write the tables as LaTeX (booktabs).")] = None,
    html: Annotated[Path | None, typer.Option(help="Write one HTML file with tables and plots.")] = None,
    published: Annotated[bool, typer.Option("--published", help="Show the paper's rows (another test set).")] = False,
    worst: Annotated[int, typer.Option(min=0, help="Show the N reports with the most errors.")] = 0,
    show_text: Annotated[bool, typer.Option("--show-text", help="With --worst: print the report texts.")] = False,
    reader_study: Annotated[
        Path | None, typer.Option(help="Counts of blinded readers (CSV): the paper's Table 2.")
    ] = None,
    id_column: Annotated[str | None, typer.Option(help="Column of the ids, where a file has it.")] = None,
    text_column: Annotated[str | None, typer.Option(help="Column of the text in --reports.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="section.key=value of the recipe; repeat it.")] = None,
    output_dir: OutputOption = None,
) -> None:
    """Score label files against gold labels, or a run's stages (and label files beside them) on its test split.

    Every figure comes with its support and a 95% bootstrap interval, every pair of systems with a paired
    comparison. PROTOCOLS.md in lite_chex/evaluate says what each protocol computes.
    """
    console = Console()
    if protocol is not None:
        protocol_named(protocol)
    resamples = RESAMPLES if bootstrap is None else bootstrap
    predictions = _predictions(pred or [])
    outputs = Outputs(
        tables=tables,
        json=json,
        csv=csv,
        markdown=markdown,
        latex=latex,
        html=html,
        published=published,
        worst=worst,
        show_text=show_text,
    )
    outputs.check([gold, reports, reader_study, *predictions.values()])
    study = None
    if reader_study is not None:
        study = evaluate_reader_study(read_reader_study(reader_study), bootstrap=resamples, seed=seed)
        if gold is None and not predictions and recipe is None:
            write_reader_study(study, outputs, console)
            return
    if gold is None:
        if reports is not None:
            raise UserError("--reports belongs to --gold FILE; the recipe of a run names its own")
        if predictions and recipe is None:
            raise UserError("--pred needs --gold FILE to be scored against, or the RECIPE of a run to stand beside")
        from lite_chex.recipe import load_recipe

        run = load_recipe(recipe, set_ or [], None if output_dir is None else str(output_dir))
        if recipe is None:
            console.print(f"Recipe: {run.name}", highlight=False)
        outputs.check(Path(file) for source in run.data.test for file in (source.reports, source.labels or ""))
        bundles = _of_run(run, protocol, console)
        if predictions:
            add_predictions(bundles, run.data.test, predictions, id_column)
        resamples = run.eval.bootstrap if bootstrap is None else bootstrap
    else:
        if recipe is not None or set_ or output_dir is not None:
            raise UserError("--gold compares label files; leave RECIPE, --set and --output-dir out")
        if not predictions:
            raise UserError("--gold FILE needs at least one --pred NAME=FILE to score")
        data = read_eval_input(
            gold,
            predictions,
            chosen_findings(findings),
            protocol=protocol or "macro",
            reports=reports,
            id_column=id_column,
            text_column=text_column,
        )
        bundles = [data]
    names = dict.fromkeys(name for data in bundles for name in data.systems)
    if baseline is not None and baseline not in names:
        raise UserError(f"--baseline {baseline}: no such system; there are {', '.join(names)}")
    for number, data in enumerate(bundles):
        if baseline in data.systems:
            data.baseline = baseline
        wanted = outputs.numbered(number + 1)
        write_outputs(data, wanted, console, bootstrap=resamples, seed=seed, study=None if number else study)


def _of_run(recipe: Recipe, protocol: str | None, console: Console) -> list[EvalInput]:
    """The run's stages on each of its test sources, under the asked-for protocol."""
    from lite_chex.train.stages import evaluate_run

    bundles = evaluate_run(recipe, console)
    for data in bundles:
        if protocol is not None and data.protocol == "presence" != protocol:
            raise UserError(
                f"--protocol {protocol}: {data.gold_source} says presence only (declared in the recipe); "
                "leave --protocol out"
            )
        data.protocol = protocol or data.protocol
    return bundles
