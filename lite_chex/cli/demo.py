"""``litechex demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lite_chex.cli.app import app
from lite_chex.cli.train import OutputOption, ResumeOption, SetOption


@app.command()
def demo(
    overrides: SetOption = None,
    resume: ResumeOption = False,
    output_dir: OutputOption = None,
    json: Annotated[Path | None, typer.Option("--json", help="Also write the tables' figures to this file.")] = None,
) -> None:
    """Run the whole chain on bundled synthetic reports and print the tables; a quarter of an hour, no network."""
    from rich.console import Console

    from lite_chex.demo import next_steps, run_demo
    from lite_chex.evaluate.output import Outputs, write_outputs
    from lite_chex.recipe import load_recipe
    from lite_chex.train.run import Clock

    console, clock = Console(), Clock()
    recipe = load_recipe("tiny-cpu", ["name=demo", *(overrides or [])], str(output_dir) if output_dir else None)
    for bundle in run_demo(recipe, console, resume=resume):
        write_outputs(
            bundle, Outputs(tables=True, json=json), console, bootstrap=recipe.eval.bootstrap, seed=recipe.seed
        )
    next_steps(recipe, console, clock.seconds)
