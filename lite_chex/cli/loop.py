"""``litechex loop``: experts compare answers to new reports, and the run's reward model and PPO are trained again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lite_chex.cli.annotate import Host, IdColumn, Overlap, Port, TextColumn, Token, serve_items
from lite_chex.cli.app import app
from lite_chex.cli.train import OutputOption, RecipeArgument, ResumeOption, SetOption, run_stage
from lite_chex.errors import UserError
from lite_chex.findings import FINDING_SETS

if TYPE_CHECKING:
    from rich.console import Console

    from lite_chex.annotate.build import Inputs
    from lite_chex.annotate.loop import Round
    from lite_chex.recipe import Recipe

INTERRUPTED = 130


@app.command()
def loop(
    recipe: RecipeArgument = None,
    reports: Annotated[Path | None, typer.Option(help="New reports, to start a round with.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Compare the N most informative pairs.")] = 20,
    pool: Annotated[int, typer.Option(min=1, help="Answer so many of the reports, to choose from.")] = 200,
    enough: Annotated[
        int | None, typer.Option(min=1, help="Train once so many pairs are judged; default: all of them.")
    ] = None,
    no_serve: Annotated[bool, typer.Option("--no-serve", help="Print the command that serves the page.")] = False,
    next_round: Annotated[bool, typer.Option("--next", help="Start the round after a finished one.")] = False,
    text_column: TextColumn = None,
    id_column: IdColumn = None,
    overlap: Overlap = 1.0,
    host: Host = "127.0.0.1",
    port: Port = 7860,
    token: Token = None,
    json: Annotated[Path | None, typer.Option(help="Also write the tables' figures to this file.")] = None,
    overrides: SetOption = None,
    resume: ResumeOption = False,
    output_dir: OutputOption = None,
) -> None:
    """Let experts compare two answers to new reports, then train reward model and PPO again.

    The same command goes on wherever it stopped: it answers the new --reports twice, serves the page until
    enough pairs are judged (Ctrl-C ends it), trains in <run>/loop-N, and prints the tables of before and after.
    """

    def stage(loaded: Recipe, console: Console, resume: bool) -> Path:
        from lite_chex.annotate.loop import before_and_after, build_study, open_round, preferred, progress, retrain
        from lite_chex.evaluate.output import Outputs, write_outputs

        round_ = open_round(loaded, next_round)
        console.rule(f"round {round_.number}: {round_.dir}", align="left")
        if round_.study is None:
            if reports is None:
                raise UserError(f"{round_.dir}: no study there yet; give the new reports with --reports FILE")
            build_study(round_, reports, console, count=count, pool=pool, text_column=text_column, id_column=id_column)
        inputs = round_.inputs(reports)
        if not round_.finished:
            judged, total = progress(round_, inputs)
            wanted = min(enough or total, total)
            undecided = judged >= wanted and not preferred(round_)
            if judged < wanted or undecided:
                waited = f"{wanted} are waited for" if judged < wanted else "no preference among them: take one back"
                console.print(f"{judged} of {total} pairs judged; {waited}", highlight=False)
                if no_serve:
                    serving = {"--overlap": overlap, "--host": host, "--port": port}
                    _print_command(inputs, round_, serving, console)
                    raise typer.Exit
                with suppress(KeyboardInterrupt):  # an expert may take a judgement back: it does not end by itself
                    serve_items("compare", inputs, round_.store, overlap, host, port, token)
                judged, _ = progress(round_, inputs)
                if judged < wanted:
                    again = f"the same command goes on, --enough {max(judged, 1)} trains with these"
                    console.print(f"{judged} of {total} pairs judged; {again}", highlight=False)
                    raise typer.Exit(INTERRUPTED)
            retrain(round_, console, resume=resume)
        for number, bundle in enumerate(before_and_after(round_, console), start=1):
            wanted_files = Outputs(tables=True, json=json).numbered(number)
            write_outputs(bundle, wanted_files, console, bootstrap=loaded.eval.bootstrap, seed=loaded.seed)
        return round_.dir

    run_stage(stage, recipe, overrides, output_dir, resume, "ppo")


def _print_command(inputs: Inputs, round_: Round, serving: Mapping[str, object], console: Console) -> None:
    """serving: the page's own options; never the token, which a log may keep."""
    words = ["litechex", "annotate", "compare", "--reports", str(inputs.reports)]
    words += [word for spec in inputs.predictions for word in ("--pred", spec)]
    known = inputs.findings.name in FINDING_SETS
    words += ["--findings", inputs.findings.name if known else str(round_.dir / "recipe.yaml")]
    words += ["--store", str(round_.store), "--limit", str(inputs.limit), "--seed", str(inputs.seed)]
    for flag, column in (("--text-column", inputs.text_column), ("--id-column", inputs.id_column)):
        words += [flag, column] if column else []
    words += [word for flag, value in serving.items() for word in (flag, str(value))]
    console.print("Serve the page with this command, then give the loop's command again:", highlight=False)
    console.print(shlex.join(words), highlight=False, soft_wrap=True, markup=False)
