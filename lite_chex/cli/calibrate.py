"""``litechex calibrate``: honest probabilities for ``label --probabilities`` and ``--review-below``."""

from __future__ import annotations

from typing import Annotated

import typer

from lite_chex.cli.app import app
from lite_chex.cli.train import OutputOption, RecipeArgument, SetOption


@app.command()
def calibrate(
    recipe: RecipeArgument = None,
    stage: Annotated[
        str | None, typer.Option("--stage", help="sft, sft_gold, dpo or ppo; default: all that the run has.")
    ] = None,
    overrides: SetOption = None,
    output_dir: OutputOption = None,
) -> None:
    """Fit one temperature per certainty on the validation gold; probabilities change, labels never do.

    The result is calibration.json beside the adapter; litechex label and litechex eval use it from then on.
    """
    from rich.console import Console

    from lite_chex.cli.train import open_recipe
    from lite_chex.train.calibrate import calibrate_run, calibration_table

    console = Console()
    loaded = open_recipe(recipe, overrides, output_dir)
    found = calibrate_run(loaded, console, stage)
    console.print(calibration_table(found))
    source = next(iter(found.values())).source
    console.print(
        f"fitted on {source}; written beside the adapters in {loaded.run_dir}", highlight=False, soft_wrap=True
    )
