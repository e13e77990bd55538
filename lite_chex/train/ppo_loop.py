"""The PPO stage: its loop, validation, checkpoints and exact resume."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lite_chex.data.files import atomic_path
from lite_chex.errors import UserError
from lite_chex.findings import LabelArray
from lite_chex.model.adapters import role, save_adapter
from lite_chex.model.hardware import return_freed_memory
from lite_chex.train import losses, ppo
from lite_chex.train.examples import Examples, check_splits, load_split, print_notes, rule_labels, validation_gold
from lite_chex.train.lineage import parents, require_fresh
from lite_chex.train.progress import Steps, steps
from lite_chex.train.reward import at_chance, train_rm
from lite_chex.train.roles import Roles
from lite_chex.train.run import (
    FINISHED,
    Clock,
    MetricsLog,
    Stage,
    read_metrics,
    record_texts,
    seed_everything,
    write_card,
)
from lite_chex.train.setup import Validation
from lite_chex.train.trainer import BestSoFar, Selection

if TYPE_CHECKING:
    from rich.console import Console

    from lite_chex.recipe import Recipe

STATE = "state.json"


@dataclass
class Pool:
    """The reports PPO samples from; they need no labels. Each epoch is a seeded permutation of them."""

    texts: list[str]
    bodies: list[list[int]]
    prompts: list[list[int]]
    drafts: LabelArray
    seed: int

    def take(self, iteration: int, count: int) -> list[int]:
        """Reports of one iteration: derived from the seed and the iteration alone, so a resume needs no state."""
        n = len(self.texts)
        places = range(iteration * count, iteration * count + count)
        orders = {p // n: np.random.default_rng([self.seed, p // n, 17]).permutation(n) for p in places}
        return sorted({int(orders[p // n][p % n]) for p in places}, key=lambda i: len(self.bodies[i]))


def train_ppo(recipe: Recipe, console: Console, *, resume: bool = False) -> Path:
    """Train the PPO adapter of a run; trains the reward model first where the run has none, and says so.

    Raises:
        UserError: if the run has no SFT stage, the reward model is at chance or of an earlier SFT or earlier pairs, or
            the recipe is wrong.
    """
    clock, section = Clock(), recipe.ppo
    sft = Stage(recipe, "sft").require("PPO")
    reward = Stage(recipe, "reward")
    if not reward.finished:
        console.print("the run has no reward model yet: training it first")
        train_rm(recipe, console, resume=resume)
    require_fresh(recipe, "preferences", "reward")
    summary = json.loads((reward.dir / FINISHED).read_text(encoding="utf-8"))
    _check_reward(recipe, summary)
    check_splits(recipe)
    stage = Stage(recipe, "ppo")
    if stage.complete(resume, parents(recipe, "ppo"), console):
        return stage.dir
    seed_everything(recipe.seed)
    roles = Roles.load(recipe, sft, reward.dir)
    gold = validation_gold(recipe, "PPO")
    print_notes(gold, console)
    validation = Validation(roles.setup, gold)
    pool = _pool(recipe, roles)
    stage.begin(resume, parents(recipe, "ppo"))
    record_texts(stage, pool.texts, sft, reward.dir)
    loop = Loop(recipe, roles, stage, pool, validation, console)
    first = loop.restore() if resume else 0
    console.print(
        f"ppo: {len(pool.texts)} reports to sample from, {section.reports_per_iteration} x {section.num_samples} "
        f"answers an iteration, validation on {len(validation)} reports with {validation.source}",
        highlight=False,
    )
    with steps(console, "PPO", section.total_iterations, done=first) as bar:
        loop.run(first, bar)
    loop.finish(clock, summary)
    return stage.dir


def _check_reward(recipe: Recipe, summary: dict[str, float]) -> None:
    if at_chance(summary):
        raise UserError(
            f"{recipe.run_dir}/reward: the reward model's held-out pair accuracy ({summary['accuracy']:.3f} of "
            f"{summary['pairs']:.0f} pairs) is at chance, so PPO would learn noise; give it more or better pairs"
        )
    if recipe.ppo.require_best_of_k and summary.get("errors_per_report", 0) >= summary.get(
        "greedy_errors_per_report", 1
    ):
        raise UserError(
            f"{recipe.run_dir}/reward: best-of-K by the reward is no better than SFT "
            "(ppo.require_best_of_k=false goes on all the same)"
        )


def _pool(recipe: Recipe, roles: Roles) -> Pool:
    parts = [*load_split(recipe, "preference"), *load_split(recipe, "train")]
    if not parts:
        raise UserError("data.preference and data.train: PPO needs reports to sample from")
    examples, _ = roles.setup.within_length(
        Examples(
            [r for p in parts for r in p.reports], np.concatenate([p.labels for p in parts]), parts[0].scored, False, ""
        )
    )
    texts = examples.texts
    prompt = roles.setup.prompt
    bodies = prompt.body_ids(texts)
    return Pool(texts, bodies, [prompt.prefix_ids + b for b in bodies], rule_labels(texts, recipe), recipe.seed)


@dataclass
class Loop:
    """The PPO loop with everything that a checkpoint keeps."""

    recipe: Recipe
    roles: Roles
    stage: Stage
    pool: Pool
    validation: Validation
    console: Console

    def __post_init__(self) -> None:
        section = self.recipe.ppo
        self.section = section
        self.kl_coef = section.kl_coef
        self.selection = Selection("errors_per_report", False, section.early_stopping_patience)
        self.best = BestSoFar(self.selection)
        self.stopped = ""
        value_rate = section.value_learning_rate or section.learning_rate
        self.optimizer = torch.optim.AdamW(
            [
                {"params": self.roles.policy_parameters(), "lr": section.learning_rate},
                {"params": self.roles.value_parameters(), "lr": value_rate},
            ],
            eps=1e-5,
            weight_decay=section.weight_decay,
        )
        self.scaler = ppo.scaler_for(self.roles)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.log: MetricsLog | None = None

    def run(self, first: int, bar: Steps) -> None:
        section = self.section
        if self.log is None:
            (self.stage.dir / "metrics.jsonl").unlink(missing_ok=True)
            self.log = MetricsLog(self.stage.dir)
            self.validate(0, bar)
        for iteration in range(first, section.total_iterations):
            figures = self.iterate(iteration)
            done = iteration + 1
            self.log.log(done, figures)
            bar.advance(f"score {figures['score']:.2f} kl {figures['kl']:.3f}", to=done)
            last = done == section.total_iterations
            if done % section.eval_steps == 0 or last:
                self.validate(done, bar)
                if self.best.exhausted and not last:
                    self.stopped = self.why_stopped()
                    bar.say(f"  stopped after {done} iterations: {self.stopped}")
                    break
            if done % section.save_steps == 0:
                self.checkpoint(done)

    def iterate(self, iteration: int) -> dict[str, float]:
        """One round: sample, score, update. Everything random comes from (seed, iteration)."""
        section, pool = self.section, self.pool
        for group, rate in zip(self.optimizer.param_groups, self.rates):
            group["lr"] = rate * (1 - iteration / section.total_iterations)  # linear decay
        rows = pool.take(iteration, section.reports_per_iteration)
        answers, passes = ppo.sample(
            self.roles, [pool.bodies[i] for i in rows], pool.drafts[rows], section, (self.recipe.seed, iteration, 23)
        )
        rollout = ppo.score(self.roles, [pool.prompts[i] for i in rows], answers, section, self.kl_coef, passes)
        return_freed_memory()
        rng = np.random.default_rng([self.recipe.seed, iteration, 29])
        figures = ppo.update(self.roles, rollout, self.optimizer, section, self.kl_coef, rng, self.scaler)
        kl = float(losses.categorical_kl(rollout.log_p, rollout.ref_log_p, rollout.free).sum(1).mean())
        used = self.kl_coef
        if section.adaptive_kl:
            # Ziegler et al. 2019: proportional control towards the target, at most 20% off per step.
            self.kl_coef *= 1 + 0.1 * float(np.clip(kl / section.target_kl - 1, -0.2, 0.2))
        return {
            "score": float(rollout.score.mean()),
            "score_deviation": float(rollout.score.std()),
            "kl": kl,
            "kl_coef": used,
            "objective": float(rollout.score.mean()) - used * kl,
            "rollout/passes": rollout.passes,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            **({"loss_scale": self.scaler.get_scale()} if self.scaler.is_enabled() else {}),
            **figures,
        }

    def validate(self, step: int, bar: Steps) -> None:
        assert self.log is not None
        with role(self.roles.model, "policy"):
            found = self.validation.measure()
            self.roles.setup.decoder.refresh()
        self.log.log(step, {f"validation/{k}": v for k, v in found.items()})
        if self.best.update(step, found[self.selection.metric]):
            folder = self.stage.checkpoints / "best"
            folder.mkdir(parents=True, exist_ok=True)
            save_adapter(self.roles.model, folder, "policy")
        mark = " (best)" if self.best.step == step else ""
        bar.say(
            f"  iteration {step}: validation macro F1 {found.get('macro_f1', float('nan')):.3f}, "
            f"errors per report {found['errors_per_report']:.3f}{mark}"
        )

    def why_stopped(self) -> str:
        rows = [r for r in read_metrics(self.stage.dir) if "score" in r]
        before = [r["score"] for r in rows if r["step"] <= max(self.best.step, 1)][-5:]
        now = [r["score"] for r in rows][-5:]
        rose = bool(before) and float(np.mean(now)) > float(np.mean(before))
        tail = (
            "the reward rose while validation got no better: it is being exploited" if rose else "the reward fell too"
        )
        return f"no fewer errors per report in {self.best.since} validations; {tail}"

    def checkpoint(self, done: int) -> None:
        """Everything a resume needs; the state file comes last, so a torn checkpoint is never taken."""
        from safetensors.torch import save_file

        folder = self.stage.checkpoints / f"step-{done}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        tensors = {f"policy.{i}": p.detach().cpu() for i, p in enumerate(self.roles.policy_parameters())}
        tensors |= {f"value.{i}": p.detach().cpu() for i, p in enumerate(self.roles.value_parameters())}
        save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "trained.safetensors")
        torch.save(self.optimizer.state_dict(), folder / "optimizer.pt")
        state = {"step": done, "kl_coef": self.kl_coef, "scaler": self.scaler.state_dict()}
        with atomic_path(folder / STATE) as temporary:
            temporary.write_text(json.dumps(state), encoding="utf-8")
        for old in self.stage.checkpoints.glob("step-*"):
            if int(old.name[5:]) < done - self.section.save_steps:
                shutil.rmtree(old)

    def restore(self) -> int:
        """Load the newest complete checkpoint; returns the iterations done (0 where there is none)."""
        from safetensors.torch import load_file

        found = [(int(p.parent.name[5:]), p.parent) for p in self.stage.checkpoints.glob(f"step-*/{STATE}")]
        if not found:
            return 0
        step, folder = max(found)
        state: dict[str, Any] = json.loads((folder / STATE).read_text(encoding="utf-8"))
        tensors = load_file(folder / "trained.safetensors")
        with torch.no_grad():
            for name, parameters in (
                ("policy", self.roles.policy_parameters()),
                ("value", self.roles.value_parameters()),
            ):
                for i, parameter in enumerate(parameters):
                    parameter.copy_(tensors[f"{name}.{i}"])
        self.optimizer.load_state_dict(torch.load(folder / "optimizer.pt", weights_only=True))
        self.kl_coef = float(state["kl_coef"])
        if self.scaler.is_enabled() and state.get("scaler"):
            self.scaler.load_state_dict(state["scaler"])
        self.log = MetricsLog(self.stage.dir, resumed_at=step)
        self.best = BestSoFar.from_metrics(self.selection, self.stage.dir)
        self.console.print(f"  resuming from iteration {step}")
        return step

    def finish(self, clock: Clock, reward: dict[str, float]) -> None:
        assert self.log is not None
        self.log.close()
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            shutil.copyfile(self.stage.checkpoints / "best" / name, self.stage.dir / name)
        self.roles.setup.backbone.tokenizer.save_pretrained(self.stage.dir)
        start = next(r for r in read_metrics(self.stage.dir) if r["step"] == 0)
        facts = {
            "reward model": f"held-out pair accuracy {reward['accuracy']:.3f}",
            f"errors per report on {self.validation.source}": f"{start['validation/errors_per_report']:.4f} (SFT) -> "
            f"{self.best.value:.4f} at iteration {self.best.step}",
            "KL": f"kl_coef {self.section.kl_coef}, {self.section.kl_estimator}, to the SFT policy",
            "stopped": self.stopped or "at the last iteration",
            "seconds": f"{clock.seconds:.0f}",
        }
        write_card(self.stage, f"{self.recipe.name}: PPO", facts)
        self.stage.finish({"best_step": self.best.step, "errors_per_report": self.best.value, "stopped": self.stopped})
