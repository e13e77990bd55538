"""One PPO iteration of LiteChex beside one of TRL 1.12.0's PPOTrainer: seconds, and memory above the base weights.

    python benchmarks/ppo_step.py --run runs/smollm2-135m-cpu --json ppo_step.json

Both do rollout, scoring and update with the same base, prompts, number of rollouts, epochs, minibatches, rows per
forward pass and LoRA. Each measurement is a process of its own, in turn. Without --run the adapters are fresh, so that
the drafts of our rollouts are worse than a trained policy's. TRL is installed below --env from ``requirements/``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from machine import machine
from peer_env import PeerError, ensure_env, run_json
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from lite_chex.recipe import Recipe

HERE = Path(__file__).resolve().parent
OURS = {"head": "litechex, value head", "adapter": "litechex, value LoRA"}
TRL = {"full": "TRL, value model", "lora": "TRL, value LoRA"}


@dataclass
class Step:
    """One process: seconds of its iterations, the first of which warms up; MiB."""

    system: str
    seconds: list[float]
    base_mb: float
    peak_mb: float
    above_mb: float
    passes: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.seconds[1:] or self.seconds)


def fresh_run(recipe: Recipe) -> None:
    """SFT and reward adapters that have learnt nothing, in the run's folder: the same work as trained ones."""
    from lite_chex.model.adapters import new_adapter, save_adapter
    from lite_chex.model.backbone import load_base
    from lite_chex.train.run import FINISHED, Stage

    means = {f"score_mean_{t}": 0.0 for t in range(len(recipe.findings))}
    for name, labels, task in (("sft", None, "CAUSAL_LM"), ("reward", 1, "SEQ_CLS")):
        stage = Stage(recipe, name)
        stage.dir.mkdir(parents=True)
        backbone = load_base(recipe.model, num_labels=labels)
        new_adapter(backbone, recipe.model, task_type=task)
        save_adapter(backbone.model, stage.dir)
        (stage.dir / FINISHED).write_text(json.dumps({**means, "score_deviation": 1.0}), encoding="utf-8")


def ours(job: dict[str, Any]) -> dict[str, Any]:
    """Some iterations of train_ppo's own loop; no validation, no checkpoint."""
    import torch
    from peak_memory import PeakMemory

    from lite_chex.model import backbone
    from lite_chex.recipe import load_recipe
    from lite_chex.train import ppo_loop, roles
    from lite_chex.train.examples import validation_gold
    from lite_chex.train.run import Stage, seed_everything
    from lite_chex.train.setup import Validation

    torch.set_num_threads(job["threads"])
    recipe = load_recipe(job["recipe"])
    seed_everything(recipe.seed)
    memory: list[PeakMemory] = []

    def load_base(*args: Any, **options: Any) -> Any:
        loaded = backbone.load_base(*args, **options)
        memory.append(PeakMemory(loaded.model))  # counts from the moment the base is there, and nothing else
        return loaded

    roles.load_base = load_base
    found = roles.Roles.load(recipe, Stage(recipe, "sft").dir, Stage(recipe, "reward").dir)
    if recipe.ppo.gradient_checkpointing:
        found.setup.backbone.causal.gradient_checkpointing_enable({"use_reentrant": False})
        found.setup.backbone.causal.train()
    pool = ppo_loop._pool(recipe, found)
    validation = Validation(found.setup, validation_gold(recipe, "PPO"))
    loop = ppo_loop.Loop(recipe, found, Stage(recipe, "ppo"), pool, validation, Console(quiet=True))
    seconds, passes = [], []
    for iteration in range(job["iterations"]):
        started = time.perf_counter()
        passes.append(loop.iterate(iteration)["rollout/passes"])
        seconds.append(time.perf_counter() - started)
    return {"seconds": seconds, "passes": statistics.mean(passes), **memory[0].measured()}


def trl_job(recipe: Recipe, options: argparse.Namespace) -> dict[str, Any]:
    """The same prompts (each as often as it has samples), sizes and LoRA, for TRL's process."""
    import numpy as np

    from lite_chex.decode.template import build_template
    from lite_chex.model.backbone import load_tokenizer
    from lite_chex.model.hardware import choose_dtype
    from lite_chex.prompt import PromptEncoder
    from lite_chex.train.examples import load_split
    from lite_chex.train.ppo_loop import Pool

    prompt = PromptEncoder(load_tokenizer(recipe.model.model_name_or_path), recipe.findings)
    texts = [t for split in ("preference", "train") for part in load_split(recipe, split) for t in part.texts]
    bodies, template = prompt.body_ids(texts), build_template(prompt)
    room = recipe.model.max_length - len(prompt.prefix_ids) - template.max_answer_length
    kept = [b for b in bodies if len(b) <= room]
    pool = Pool([""] * len(kept), kept, [prompt.prefix_ids + b for b in kept], np.zeros((0, 0), np.int8), recipe.seed)
    section = recipe.ppo
    rows = [i for n in range(options.iterations) for i in pool.take(n, section.reports_per_iteration)]
    return {
        "model": recipe.model.model_name_or_path, "dtype": choose_dtype(recipe.model.dtype)[0],
        "pad": prompt.tokenizer.pad_token_id,
        "prompts": [pool.prompts[i] for i in rows for _ in range(section.num_samples)],
        "rollouts": section.reports_per_iteration * section.num_samples,
        "rows_per_pass": section.per_device_train_batch_size * section.num_samples,
        "num_mini_batches": section.num_mini_batches, "num_ppo_epochs": section.num_ppo_epochs,
        "answer_length": template.max_answer_length, "temperature": section.temperature, "kl_coef": section.kl_coef,
        "learning_rate": section.learning_rate, "gradient_checkpointing": section.gradient_checkpointing,
        "lora_r": recipe.model.lora_r, "lora_alpha": recipe.model.lora_alpha,
        "target_modules": recipe.model.lora_target_modules, "iterations": options.iterations,
        "threads": options.threads,
    }  # fmt: skip


def measure(recipe: Recipe, options: argparse.Namespace, work: Path) -> tuple[list[Step], dict[str, str]]:
    """Every system ``rounds`` times, in turn; why TRL is missing, where it is."""
    jobs: dict[str, tuple[list[str], dict[str, Any]]] = {}
    for value in options.value:
        file = work / f"{value}.yaml"
        recipe.ppo.value_model = value
        file.write_text(recipe.to_yaml(), encoding="utf-8")
        job = {"recipe": str(file), "iterations": options.iterations, "threads": options.threads}
        jobs[OURS[value]] = ([sys.executable, str(HERE / "ppo_step.py"), "--ours"], job)
    steps, missing = [], {}
    try:
        python = ensure_env(options.env, "trl-1.12.txt")
        for value in options.trl_value:
            job = {**trl_job(recipe, options), "value": value, "output_dir": str(work / "trl")}
            jobs[TRL[value]] = ([str(python), str(HERE / "ppo_step_trl.py")], job)
    except PeerError as error:
        missing["TRL"] = str(error)
    for _ in range(options.rounds):
        for name, (command, job) in list(jobs.items()):
            try:
                steps.append(Step(name, **run_json(command, work / "job", job)))
            except PeerError as error:
                if name in OURS.values():
                    raise
                missing[name] = str(error)
                del jobs[name]
    return steps, missing


def table_of(steps: Sequence[Step]) -> Table:
    table = Table(title="One PPO iteration: rollout, scoring, update")
    for header in ("system", "s", "x first", "base MB", "peak above MB", "x first"):
        table.add_column(header, justify="left" if header == "system" else "right")
    found_by_system = summary(steps)
    first = next(iter(found_by_system.values()))
    for name, found in found_by_system.items():
        table.add_row(
            name, f"{found['seconds']:.2f}", f"{found['seconds'] / first['seconds']:.2f}", f"{found['base_mb']:,.0f}",
            f"{found['above_mb']:,.0f}", f"{found['above_mb'] / first['above_mb']:.2f}",
        )  # fmt: skip
    return table


def summary(steps: Sequence[Step]) -> dict[str, dict[str, float]]:
    """Medians over a system's processes."""
    names = list(dict.fromkeys(s.system for s in steps))
    return {
        name: {
            "seconds": statistics.median(s.median for s in steps if s.system == name),
            "base_mb": statistics.median(s.base_mb for s in steps if s.system == name),
            "above_mb": statistics.median(s.above_mb for s in steps if s.system == name),
        }
        for name in names
    }


def make_recipe(options: argparse.Namespace, work: Path) -> Recipe:
    """The recipe, in a run folder of the benchmark's own that holds --run's stages, or fresh ones."""
    from lite_chex.recipe import load_recipe
    from lite_chex.train.run import Stage

    source = options.run / "sft" / "recipe.yaml" if options.run else options.recipe
    recipe = load_recipe(source, options.set, str(work / "runs"))
    if options.run:
        for name in ("sft", "reward"):
            done = options.run / name
            Stage(load_recipe(source, [f"name={options.run.name}"], str(options.run.parent)), name).require("PPO")
            shutil.copytree(done, Stage(recipe, name).dir, ignore=shutil.ignore_patterns("checkpoints"))
    else:
        fresh_run(recipe)
    return recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="smollm2-135m-cpu", help="a shipped recipe's name, or a file")
    parser.add_argument("--run", type=Path, help="a run with finished sft and reward stages, instead of --recipe")
    parser.add_argument("--set", action="append", default=[], help="section.key=value, repeatable")
    parser.add_argument("--iterations", type=int, default=3, help="per process; the first warms up")
    parser.add_argument("--rounds", type=int, default=2, help="processes per system, in turn")
    parser.add_argument("--value", nargs="+", choices=list(OURS), default=list(OURS), help="our value models")
    parser.add_argument("--trl-value", nargs="*", choices=list(TRL), default=["full"], help="TRL's value model")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--env", type=Path, default=Path("build/benchmarks/trl"), help="where TRL is installed")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--ours", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ours:
        job = json.loads(options.ours.read_text(encoding="utf-8"))
        Path(job["result"]).write_text(json.dumps(ours(job)), encoding="utf-8")
        return
    run(options)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure, print, write; returns what the JSON holds."""
    console = Console()
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        recipe = make_recipe(options, work)
        steps, missing = measure(recipe, options, work)
    section, where = recipe.ppo, machine("torch", "transformers", "peft")
    console.print(table_of(steps))
    passes = statistics.mean(s.passes for s in steps if s.passes is not None)
    rows = section.per_device_train_batch_size * section.num_samples
    lines = [
        f"{section.reports_per_iteration} reports x {section.num_samples} answers, {section.num_ppo_epochs} epochs of "
        f"{section.num_mini_batches} minibatches, {rows} answers per forward pass; adapters "
        f"{'of ' + options.run.name if options.run else 'fresh'}",
        f"litechex: {passes:.2f} passes per sampled answer",
        *(f"{name}: not built: {why}" for name, why in missing.items()),
        f"Machine: {json.dumps(where)}",
    ]
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    figures = {
        "recipe": recipe.name, "ppo": section.model_dump(mode="json"), "run": options.run and options.run.name,
        "processes": [asdict(s) for s in steps], "median": summary(steps), "passes": passes, "not_built": missing,
        "machine": where,
    }  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return figures


if __name__ == "__main__":
    main()
