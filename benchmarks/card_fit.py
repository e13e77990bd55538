"""Does a 7B model fit the card? Real SFT, reward, PPO and DPO steps and labelling under a memory cap.

    python benchmarks/card_fit.py --json card_fit.json          # 12, 16 and 24 GB, on one larger card
    python benchmarks/card_fit.py --work-dir W --json card_fit.json    # given again, goes on with what is missing
    python benchmarks/card_fit.py --small                       # the same code on a small shape, on a CPU

The model has Mistral-7B's or Qwen2.5-7B's shape and random weights, quantised layer by layer: nothing is
downloaded. Each (model, card) runs the shipped recipe for that card in a process of its own, whose allocator may
not take more than the card would give it. Reports are synthetic and as long as ``model.max_length`` allows; a PPO
iteration here has 16 reports instead of the recipe's 64, which changes no peak. The JSON is written after each card.
Figures of a random model say what memory and time cost, not what labels are worth.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from machine import machine
from random_model import MODELS, build_model
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from lite_chex.recipe import Recipe

GIB = 2**30
SPLITS = {"train": 48, "validation": 8, "preference": 16, "test": 32}
SMALL_SPLITS = {"train": 12, "validation": 3, "preference": 8, "test": 4}


@dataclass
class Measured:
    """One stage on one card. peak_gb: allocated at most (the process's memory on a CPU); planned_gb: the plan
    without driver and kernels. seconds: per optimizer step, per PPO iteration, or for all labelled reports."""

    model: str
    card_gb: float
    stage: str
    peak_gb: float
    planned_gb: float
    seconds: float
    tokens_per_second: float | None = None
    reports_per_second: float | None = None
    failed: str = ""


def write_data(folder: Path, recipe: Recipe, splits: dict[str, int]) -> list[str]:
    """Reports that fill ``model.max_length``, labelled by the rules; returns the recipe overrides that name them."""
    import csv

    import numpy as np

    from lite_chex.data.labels import write_labels
    from lite_chex.data.records import LabelTable
    from lite_chex.data.synthetic import generate
    from lite_chex.decode.template import build_template
    from lite_chex.model.backbone import load_tokenizer
    from lite_chex.prompt import PromptEncoder
    from lite_chex.train.examples import rule_labels

    prompt = PromptEncoder(load_tokenizer(recipe.model.model_name_or_path), recipe.findings)
    room = recipe.model.max_length - len(prompt.prefix_ids) - len(prompt.after_ids)
    room -= build_template(prompt).max_answer_length
    pool = iter(generate(4000, seed=99, style="mixed"))
    overrides = []
    for split, count in splits.items():
        texts = []
        for _ in range(count):
            parts: list[str] = []
            length = 0
            while True:
                text = next(pool).text
                added = len(prompt.report_ids([text])[0]) + 2
                if length + added > room:
                    break
                parts.append(text)
                length += added
            texts.append("\n".join(parts))
        reports, gold = folder / f"{split}.csv", folder / f"{split}_gold.csv"
        ids = [f"{split}{i}" for i in range(count)]
        with reports.open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["study_id", "patient_id", "report"])
            rows.writerows([i, f"p-{i}", t] for i, t in zip(ids, texts, strict=True))
        scored = np.ones(len(recipe.findings), dtype=bool)
        write_labels(gold, LabelTable(recipe.findings, ids, rule_labels(texts, recipe), scored))
        labels = "rules" if split == "train" else str(gold)
        overrides.append(f"data.{split}=[{{reports: {reports}, labels: {labels}}}]")
    return overrides


class Clock:
    """Peak memory of a stage, and the seconds between optimizer steps of whatever optimizer runs."""

    def __init__(self) -> None:
        import torch
        from torch.optim.optimizer import register_optimizer_step_post_hook

        self.cuda = torch.cuda.is_available()
        self.times: list[float] = []
        register_optimizer_step_post_hook(self._note)

    def _note(self, *_: Any) -> None:
        self.synchronise()
        self.times.append(time.perf_counter())

    def synchronise(self) -> None:
        if self.cuda:
            import torch

            torch.cuda.synchronize()

    def start(self) -> None:
        import torch

        gc.collect()
        self.times.clear()
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def step(self) -> float:
        """Median seconds between two optimizer steps; the first, which warms up, is left out."""
        gaps = sorted(b - a for a, b in zip(self.times[1:], self.times[2:]))
        return gaps[len(gaps) // 2] if gaps else float("nan")


def measure(model: str, card_gb: float, base: Path, work: Path, steps: int, small: bool) -> list[Measured]:
    """Run every stage of the shipped recipe for that card on the built model; stops at the first that fails."""
    import torch

    from lite_chex.errors import UserError
    from lite_chex.model.hardware import peak_memory_gb
    from lite_chex.model.plan import CUDA_OVERHEAD, NOMINAL, plan_recipe
    from lite_chex.recipe import load_recipe

    if torch.cuda.is_available():
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min((card_gb * NOMINAL * GIB - CUDA_OVERHEAD) / total, 1.0))
    name = f"{model}-{card_gb:g}gb"
    options = [f"model.model_name_or_path={base}", "name=card_fit", *_few_steps(steps), *(_SMALL_RUN if small else [])]
    work.mkdir(parents=True, exist_ok=True)
    recipe = load_recipe(name, options, str(work / "runs"))
    recipe = load_recipe(
        name, [*options, *write_data(work, recipe, SMALL_SPLITS if small else SPLITS)], str(work / "runs")
    )
    plan = plan_recipe(recipe, card_gb)
    clock, found = Clock(), []
    console = Console(file=(work / "log.txt").open("w"), width=100)
    for stage, run in _stages(recipe, console, clock).items():
        planned = plan.stage(stage)
        result = Measured(model, card_gb, stage, 0.0, (planned.total - planned.group("other")) / GIB, 0.0)
        found.append(result)
        clock.start()
        try:
            run(result)
        except (RuntimeError, UserError) as error:  # out of memory, by torch or by accelerate, is a RuntimeError
            result.failed = (str(error).splitlines() or [type(error).__name__])[0][:200]
        result.peak_gb = peak_memory_gb()
        if result.failed:
            break
    return found


def _few_steps(steps: int) -> list[str]:
    few = [
        f"{s}.{k}" for s in ("sft", "reward", "dpo") for k in (f"max_steps={steps}", "gradient_accumulation_steps=1")
    ]
    never = [f"{s}.{k}=100000" for s in ("sft", "reward", "dpo") for k in ("eval_steps", "save_steps")]
    return [
        *few,
        *never,
        "preferences.max_pairs_per_report=4",
        "ppo.total_iterations=2",
        "ppo.reports_per_iteration=16",
    ]


_SMALL_RUN = [
    "model.max_length=448",
    "model.dtype=float32",
    "sft.validation_fraction=0.2",
    "preferences.num_samples=1",
    "ppo.reports_per_iteration=2",
    "ppo.num_samples=2",
    "ppo.total_iterations=2",
    "ppo.num_ppo_epochs=1",
]


def _stages(recipe: Recipe, console: Console, clock: Clock) -> dict[str, Callable[[Measured], None]]:
    from lite_chex.labelers.llm import LLMLabeler
    from lite_chex.train.dpo import train_dpo
    from lite_chex.train.examples import load_source
    from lite_chex.train.reward import train_rm
    from lite_chex.train.sft import train_sft

    tokens = recipe.model.max_length  # rows are filled to within one sentence of it

    def trained(rows: int) -> Callable[[Measured], None]:
        def note(result: Measured) -> None:
            result.seconds = clock.step()
            result.tokens_per_second = rows * tokens / result.seconds

        return note

    def sft(result: Measured) -> None:
        train_sft(recipe, console)
        trained(recipe.sft.per_device_train_batch_size)(result)

    def reward(result: Measured) -> None:
        train_rm(recipe, console)
        trained(recipe.reward.per_device_train_batch_size)(result)

    def ppo(result: Measured) -> None:
        result.seconds = ppo_iterations(recipe, console, clock)
        answers = recipe.ppo.reports_per_iteration * recipe.ppo.num_samples
        result.reports_per_second = answers / result.seconds

    def dpo(result: Measured) -> None:
        train_dpo(recipe, console)
        trained(2 * recipe.dpo.per_device_train_batch_size)(result)

    def label(result: Measured) -> None:
        texts = load_source(recipe.data.test[0], recipe).texts
        labeler = LLMLabeler.load(recipe.run_dir / "sft", merge=False)
        labeler.label(texts[:2])
        clock.synchronise()
        started = time.perf_counter()
        labeler.label(texts)
        clock.synchronise()
        result.seconds = time.perf_counter() - started
        result.reports_per_second = len(texts) / result.seconds

    return {"sft": sft, "reward": reward, "ppo": ppo, "dpo": dpo, "label": label}


def ppo_iterations(recipe: Recipe, console: Console, clock: Clock) -> float:
    """Median seconds of a PPO iteration. The loop is train_ppo's own; its check of the reward model is left out,
    because a reward model on random weights is at chance."""
    from lite_chex.train import ppo_loop
    from lite_chex.train.examples import validation_gold
    from lite_chex.train.roles import Roles
    from lite_chex.train.run import Stage
    from lite_chex.train.setup import Validation

    roles = Roles.load(recipe, Stage(recipe, "sft").dir, Stage(recipe, "reward").dir)
    validation = Validation(roles.setup, validation_gold(recipe, "PPO"))
    loop = ppo_loop.Loop(recipe, roles, Stage(recipe, "ppo"), ppo_loop._pool(recipe, roles), validation, console)
    seconds = []
    for iteration in range(recipe.ppo.total_iterations):
        clock.synchronise()
        started = time.perf_counter()
        loop.iterate(iteration)
        clock.synchronise()
        seconds.append(time.perf_counter() - started)
    return sorted(seconds)[len(seconds) // 2]


def table_of(rows: list[Measured], where: str, on_card: bool) -> Table:
    """The figures. On a CPU the peak is the whole process's, so it says nothing about the plan."""
    table = Table(
        "model", "card", "stage", "peak", "plan", "off by", "s", "tok/s", "rep/s", "", title=f"GiB and speed on {where}"
    )
    for row in rows:
        off = f"{row.planned_gb / row.peak_gb - 1:+.0%}" if row.peak_gb and on_card else "-"
        table.add_row(
            row.model, f"{row.card_gb:g}", row.stage, f"{row.peak_gb:.2f}", f"{row.planned_gb:.2f}", off,
            f"{row.seconds:.2f}", f"{row.tokens_per_second:,.0f}" if row.tokens_per_second else "-",
            f"{row.reports_per_second:.2f}" if row.reports_per_second else "-", "failed" if row.failed else "",
        )  # fmt: skip
    return table


def run_all(models: list[str], cards: list[float], steps: int, small: bool, work: Path) -> Iterator[list[Measured]]:
    """Build each model once, then measure every card in a fresh process (in this one for a small shape). What ``work``
    holds of an earlier call is not made again."""
    for model in models:
        base = work / model
        if not (base / "config.json").is_file():  # written last
            if small:
                build_model(base, model, small)
            else:
                _call("--build", str(base), "--models", model)
        for card in cards:
            place = work / f"run-{model}-{card:g}"
            if small:
                yield measure(model, card, base, place, steps, small)
                continue
            found = place / "measured.json"
            failed = 0
            if not found.is_file():
                failed = _call("--measure", str(base), "--models", model, "--cards", f"{card:g}", "--steps", str(steps),
                               "--work-dir", str(place))  # fmt: skip
            if failed:
                yield [Measured(model, card, "all", 0.0, 0.0, 0.0, failed=f"its process ended with {failed}")]
            else:
                yield [Measured(**r) for r in json.loads(found.read_text(encoding="utf-8"))]


def _call(*arguments: str) -> int:
    return subprocess.run([sys.executable, __file__, *arguments], check=False).returncode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--cards", nargs="+", type=float, default=[12.0, 16.0, 24.0])
    parser.add_argument("--steps", type=int, default=6, help="optimizer steps of SFT, reward and DPO")
    parser.add_argument("--small", action="store_true", help="a small shape, to run the code on a CPU")
    parser.add_argument("--work-dir", type=Path, help="where models and runs go (about 5 GB a model)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--build", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    import torch

    # The checkpoint is quantised already, and says how: that load_base asks for the same is no news.
    warnings.filterwarnings("ignore", message=".*quantization_config.*")
    if args.build:
        build_model(args.build, args.models[0], False)
        return
    if args.measure:
        rows = measure(args.models[0], args.cards[0], args.measure, args.work_dir, args.steps, False)
        (args.work_dir / "measured.json").write_text(json.dumps([asdict(r) for r in rows]), encoding="utf-8")
        return
    if not args.small and not torch.cuda.is_available():
        parser.error("a 7B shape needs a CUDA card; --small runs the same code on a CPU")
    found = machine("torch", "transformers", "bitsandbytes", "peft", "trl")
    where = torch.cuda.get_device_name(0) if torch.cuda.is_available() else f"a CPU ({found['cpu']}), small shape"
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for card in run_all(args.models, args.cards, args.steps, args.small, args.work_dir or Path(temporary)):
            rows += card
            if args.json:
                report = {"where": where, "small": args.small, "machine": found, "rows": [asdict(r) for r in rows]}
                args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    console = Console()
    console.print(table_of(rows, where, torch.cuda.is_available()))
    for row in rows:
        if row.failed:
            console.print(f"{row.model} on {row.card_gb:g} GB, {row.stage}: {row.failed}", highlight=False)


if __name__ == "__main__":
    main()
