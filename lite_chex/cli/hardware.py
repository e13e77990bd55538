"""``litechex plan`` and ``litechex doctor``: what fits, before anything is started."""

from __future__ import annotations

from typing import Annotated

import typer

from lite_chex.cli.app import app
from lite_chex.cli.train import RecipeArgument, SetOption

MARKS = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "problem": "[bold red]problem[/]"}


@app.command()
def plan(
    recipe: RecipeArgument = None,
    overrides: SetOption = None,
    card: Annotated[
        float | None, typer.Option("--card", help="Plan for a card of so many GB; default: this one, or the recipe's.")
    ] = None,
    details: Annotated[bool, typer.Option("--details", help="Every part of every stage.")] = False,
) -> None:
    """Show the memory of each stage, role by role, and the largest batch and length that fit."""
    from rich.console import Console

    from lite_chex.cli.train import open_recipe
    from lite_chex.errors import UserError
    from lite_chex.model.plan import GIB, plan_recipe, tables

    if card is not None and card <= 0:
        raise UserError(f"--card: {card:g} GB is no card; give its memory, as --card 12")
    console = Console()
    made = plan_recipe(open_recipe(recipe, overrides, None), card)
    for table in tables(made, details):
        console.print(table)
    for stage in made.stages:
        warning = made.warning(stage.name)
        if warning:
            console.print(f"[yellow]{warning}[/]", highlight=False, soft_wrap=True)
    other = made.stages[0].group("other") / GIB
    console.print(
        f"Weights ({made.dtype} beside 4 bits), adapters and optimizer are counted; activations, cache and driver are "
        "estimates, at rows of model.max_length. total: base, adapters, optimizer, the larger of training (activations "
        f"and logits) and decoding, and {other:.2f} for driver, kernels and process.",
        highlight=False,
    )


@app.command()
def doctor(
    check_hub: Annotated[bool, typer.Option("--check-hub", help="Send one request to the Hugging Face hub.")] = False,
) -> None:
    """Look at card, memory, versions, disk and hub, and say what each shipped recipe would do here."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from lite_chex.doctor import examine, recipes_here, versions
    from lite_chex.model.backbone import quiet_libraries

    quiet_libraries()
    console = Console()
    checks = examine(check_hub)
    table = Table("", "", "found", "", title=versions())
    topic = ""
    for check in checks:
        table.add_row("" if check.topic == topic else check.topic, check.name, Text(check.value), MARKS[check.status])
        topic = check.topic
    console.print(table)
    for check in checks:
        if check.hint:
            console.print(f"{check.name}: {check.hint}", highlight=False, markup=False, soft_wrap=True)
    here = Table("recipe", "card", "model", "peak GiB", "here", title="shipped recipes on this machine")
    for row in recipes_here():
        peak = "-" if row.peak is None else f"{row.peak:.1f}"
        here.add_row(row.name, row.card, row.model, peak, Text(row.verdict, style="green" if row.fits else ""))
    console.print(here)
