"""``litechex demo``: the whole chain on bundled synthetic data, no network, a quarter of an hour on two CPU cores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lite_chex.train.dpo import train_dpo
from lite_chex.train.lineage import PAIRS, changed
from lite_chex.train.ppo_loop import train_ppo
from lite_chex.train.preferences import make_preferences
from lite_chex.train.reward import train_rm
from lite_chex.train.run import PAIRS_FILE, Clock, Stage
from lite_chex.train.sft import train_sft
from lite_chex.train.stages import evaluate_run

if TYPE_CHECKING:
    from rich.console import Console

    from lite_chex.evaluate.inputs import EvalInput
    from lite_chex.recipe import Recipe

INTRODUCTION = """\
[bold]LiteChex demo[/]: synthetic chest X-ray reports (no patient data), a {size} base model, this machine's CPU or GPU.
 1 SFT learns from weak labels that a rule labeler gives.
 2 Preferences are made from the generator's gold labels, which stand in for experts here.
 3 A reward model learns from them; PPO and, for comparison, DPO improve the SFT policy.
 4 Tables on {test} held-out reports say whether that helped, and whether the interval excludes zero."""


def run_demo(recipe: Recipe, console: Console, *, resume: bool = False) -> list[EvalInput]:
    """Run every stage of a recipe that is not finished yet; returns the evaluator's bundles.

    Raises:
        UserError: as the stages do.
    """
    from lite_chex.train.examples import load_source

    clock = Clock()
    test = load_source(recipe.data.test[0], recipe)
    console.print(INTRODUCTION.format(size="2M-parameter", test=len(test)), highlight=False)
    stages: list[tuple[str, str, Callable[[bool], Path]]] = [
        ("sft", "1 SFT on weak labels", lambda go_on: train_sft(recipe, console, resume=go_on)),
        (PAIRS, "2 preferences", lambda _: make_preferences(recipe, console)),
        ("sft_gold", "  control: SFT continued on that gold", lambda _: train_sft(recipe, console, on_gold=True)),
        ("reward", "3 reward model", lambda go_on: train_rm(recipe, console, resume=go_on)),
        ("dpo", "3 DPO", lambda go_on: train_dpo(recipe, console, resume=go_on)),
        ("ppo", "3 PPO", lambda go_on: train_ppo(recipe, console, resume=go_on)),
    ]
    for name, title, run in stages:
        done = (recipe.run_dir / PAIRS_FILE).is_file() if name == PAIRS else Stage(recipe, name).finished
        fresh = not changed(recipe, name)
        if resume and done and fresh:
            console.rule(f"{title} (finished before)", align="left")
            continue
        console.rule(f"{title} ({clock.seconds:.0f} s so far)", align="left")
        run(resume and fresh)
    console.rule(f"4 tables ({clock.seconds:.0f} s so far)", align="left")
    return evaluate_run(recipe, console)


def next_steps(recipe: Recipe, console: Console, seconds: float) -> None:
    run = recipe.run_dir
    console.print(
        f"\nThe whole chain took {seconds / 60:.1f} minutes. Everything is in [bold]{run}[/]: per stage adapter, "
        f"metrics.jsonl, TensorBoard events and model card; labels in {run}/predictions.\n"
        "On your own data, next:\n"
        "  litechex validate reports.csv\n"
        "  litechex label --labeler rules --input reports.csv --output labels.csv\n"
        "  litechex train-sft smollm2-135m-cpu --set data.train.0.reports=reports.csv\n"
        f"  (this demo's model: litechex label --model {run} --input reports.csv --output labels.csv)",
        highlight=False,
    )
