"""``litechex train-sft | preferences | train-rm | train-ppo | train-dpo``: one command per stage of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lite_chex.cli.app import app
from lite_chex.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from lite_chex.recipe import Recipe

RecipeArgument = Annotated[
    str | None,
    typer.Argument(help="A recipe file or the name of a shipped recipe; left out: the one that fits this machine."),
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change a key of the recipe; repeatable.")
]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on where an interrupted run stopped.")]
OutputOption = Annotated[Path | None, typer.Option("--output-dir", help="Folder of the runs (default: the recipe's).")]


def open_recipe(recipe: str | None, overrides: list[str] | None, output_dir: Path | None) -> Recipe:
    """Load a recipe and say which one it is where the machine chose it."""
    from rich.console import Console

    from lite_chex.recipe import default_recipe, load_recipe

    name = recipe if recipe is not None else default_recipe()
    loaded = load_recipe(name, overrides or [], str(output_dir) if output_dir else None)
    if recipe is None:
        Console().print(
            f'recipe "{name}" (the shipped one that fits this machine); run: {loaded.run_dir}', highlight=False
        )
    return loaded


def _warn_of_memory(recipe: Recipe, stage: str, console: Console) -> None:
    """Say before a stage starts that it is not planned to fit; a base that cannot be planned is no reason to stop."""
    from lite_chex.model.plan import plan_recipe

    try:
        warning = plan_recipe(recipe).warning(stage)
    except UserError:
        return  # the stage itself says what is wrong with the model
    if warning:
        console.print(f"[yellow]{warning}[/]", highlight=False)


def write_failure(error: Exception) -> str | None:
    """Why writing failed (disk full, no permission), or None where the error is another one.

    safetensors and torch report a full disk in exceptions of their own.
    """
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    text = str(error)
    if type(error).__name__ == "SafetensorError" and ("I/O" in text or "io" in text.lower().split()):
        return text.splitlines()[0][:120]
    if isinstance(error, RuntimeError) and ("PytorchStreamWriter" in text or "unexpected pos" in text):
        return "the file could not be written whole; is the disk full?"
    return None


def run_stage(
    stage: Callable[[Recipe, Console, bool], Path],
    recipe: str | None,
    overrides: list[str] | None,
    output_dir: Path | None,
    resume: bool,
    part: str | None = None,
) -> None:
    from rich.console import Console

    console = Console()
    loaded = open_recipe(recipe, overrides, output_dir)
    if part is not None:
        _warn_of_memory(loaded, part, console)
    try:
        folder = stage(loaded, console, resume)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; checkpoints are in {loaded.run_dir}. The same command with --resume goes on."
        ) from None
    except Exception as error:
        reason = write_failure(error)
        if reason is None:
            raise
        raise UserError(
            f"{loaded.run_dir}: could not be written ({reason}); what was written before is kept, "
            "--resume goes on from the last checkpoint"
        ) from None
    console.print(f"done: {folder}", highlight=False)


@app.command("train-sft")
def train_sft(
    recipe: RecipeArgument = None,
    overrides: SetOption = None,
    resume: ResumeOption = False,
    output_dir: OutputOption = None,
    on_gold: Annotated[
        bool, typer.Option("--on-gold", help="Control arm: continue SFT on the gold behind the preferences.")
    ] = False,
) -> None:
    """Fine-tune a 4-bit base with LoRA on (weak) labels: eq. 1."""

    def stage(loaded: Recipe, console: Console, resume: bool) -> Path:
        from lite_chex.train.sft import train_sft as train

        return train(loaded, console, resume=resume, on_gold=on_gold)

    run_stage(stage, recipe, overrides, output_dir, resume, "sft")


@app.command()
def preferences(recipe: RecipeArgument = None, overrides: SetOption = None, output_dir: OutputOption = None) -> None:
    """Sample answers from the SFT policy and rank them against gold into chosen/rejected pairs."""

    def stage(loaded: Recipe, console: Console, resume: bool) -> Path:
        from lite_chex.train.preferences import make_preferences

        return make_preferences(loaded, console)

    run_stage(stage, recipe, overrides, output_dir, False)


@app.command("train-rm")
def train_rm(
    recipe: RecipeArgument = None,
    overrides: SetOption = None,
    resume: ResumeOption = False,
    output_dir: OutputOption = None,
) -> None:
    """Train the reward model on preference pairs: eq. 2."""

    def stage(loaded: Recipe, console: Console, resume: bool) -> Path:
        from lite_chex.train.reward import train_rm as train

        return train(loaded, console, resume=resume)

    run_stage(stage, recipe, overrides, output_dir, resume, "reward")


@app.command("train-ppo")
def train_ppo(
    recipe: RecipeArgument = None,
    overrides: SetOption = None,
    resume: ResumeOption = False,
    output_dir: OutputOption = None,
) -> None:
    """PPO against the reward model with a KL penalty to the SFT policy: eq. 3 and 4, on one base."""

    def stage(loaded: Recipe, console: Console, resume: bool) -> Path:
        from lite_chex.train.ppo_loop import train_ppo as train

        return train(loaded, console, resume=resume)

    run_stage(stage, recipe, overrides, output_dir, resume, "ppo")


@app.command("train-dpo")
def train_dpo(
    recipe: RecipeArgument = None,
    overrides: SetOption = None,
    resume: ResumeOption = False,
    output_dir: OutputOption = None,
) -> None:
    """DPO on the same pairs from the same SFT adapter, for comparison."""

    def stage(loaded: Recipe, console: Console, resume: bool) -> Path:
        from lite_chex.train.dpo import train_dpo as train

        return train(loaded, console, resume=resume)

    run_stage(stage, recipe, overrides, output_dir, resume, "dpo")
