"""The reward model (eq. 2): an adapter and a score head on the 4-bit base, started from the SFT adapter.

What differs from TRL's RewardTrainer: all answers to a report go through the model in one packed row and
all their pairs count; the score is read at every decision and summed; and where the preferred answer is gold, each
of its cells is compared with the three other candidates as well (``gold_cells_coef``), which costs no pass. Saved
in PEFT's format, so AutoPeftModelForSequenceClassification loads it (the card says how to pool).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from lite_chex.data.preferences import AnswerGroup, split_groups
from lite_chex.decode import decisions, packed
from lite_chex.errors import UserError
from lite_chex.findings import FindingSet, LabelArray
from lite_chex.model.adapters import copy_into_default, for_inference, load_adapter, new_adapter
from lite_chex.model.backbone import load_base
from lite_chex.train import losses
from lite_chex.train.batches import LengthGrouped
from lite_chex.train.examples import Examples, error_score, print_notes, validation_gold
from lite_chex.train.lineage import parents, require_fresh
from lite_chex.train.preferences import PAIRS_FILE, Samples, make_preferences, run_pairs, sample_answers
from lite_chex.train.run import Clock, Stage, record_texts, seed_everything, write_card
from lite_chex.train.setup import Setup

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from rich.console import Console

    from lite_chex.recipe import Recipe

CHANCE = 0.5
POOLING = {
    "decisions": "the score head is read at each decision's first label token, and summed",
    "candidates": "the score head at each decision's first label token plus the chosen candidate's log-probability "
    "among the four, read one token earlier, summed",
    "last": "the score head is read at the end token",
}


def pooled_scores(
    hidden: torch.Tensor, batch: packed.PackedBatch, head: Any, pooling: str, log_p: torch.Tensor
) -> torch.Tensor:
    """What each decision adds to an answer's score, fp32 ``[N, T]``: the score is the sum over decisions.

    ``decisions`` reads the score head at each decision's own token. ``candidates`` adds the reward adapter's
    log-probability of the chosen candidate (log_p ``[N, T, 4]``): the reward then starts from what SFT knows
    instead of having to find it out at a token that only sees it through attention. (Logits would do for one
    choice, but an answer would also be paid for making the reward adapter loud about the choices after it.)
    ``last`` reads the head at the end token, booked on the last decision.
    """
    import torch

    if pooling != "last":
        scores = head(packed.at(hidden, batch, batch.decided)).squeeze(-1).float()
        return scores + decisions.chosen_log_probs(log_p, batch.values) if pooling == "candidates" else scores
    score = head(packed.at(hidden, batch, batch.last)).squeeze(-1).float()
    return torch.cat([torch.zeros_like(batch.values[:, 1:], dtype=score.dtype), score[:, None]], dim=1)


@dataclass
class Reading:
    """What the reward model says of packed answers, fp32 and on their device. scores: ``[N, T]``, what each decision
    adds; their sum is the reward. log_p: ``[N, T, 4]``, its own choice at each; free: bool ``[N, T]``; values:
    int64 ``[N, T]``, the answers."""

    scores: torch.Tensor
    log_p: torch.Tensor
    free: torch.Tensor
    values: torch.Tensor


def reading(
    hidden: torch.Tensor,
    batch: packed.PackedBatch,
    head: Any,
    findings: FindingSet,
    pooling: str,
    weight: torch.Tensor,
) -> Reading:
    """Read the reward adapter's hidden states. head: hidden -> 1; weight: the candidates' head rows
    ``[T, 4, hidden]``."""
    log_p, free = decisions.log_probs(packed.decision_logits(hidden, batch, weight), batch.values, findings)
    return Reading(pooled_scores(hidden, batch, head, pooling, log_p), log_p, free, batch.values)


def trained_pooling(folder: Path, recipe: Recipe) -> str:
    """The pooling that the reward model in a stage's folder was trained with, by the recipe kept there; the recipe's
    own where the folder has none."""
    kept = folder / "recipe.yaml"
    if not kept.is_file():
        return recipe.reward.pooling
    return str(yaml.safe_load(kept.read_text(encoding="utf-8"))["reward"]["pooling"])


@dataclass
class Held:
    """Held-out pairs, and the SFT policy's samples on the validation gold, by kind of gold, for best-of-K."""

    groups: list[AnswerGroup]
    gold: list[tuple[Examples, Samples]]
    weight: torch.Tensor


def train_rm(recipe: Recipe, console: Console, *, resume: bool = False) -> Path:
    """Train the reward model of a run; makes the preference pairs first where the run has none.

    Raises:
        UserError: if the run has no SFT stage, or pairs are missing, wrong or of an earlier SFT.
    """
    clock = Clock()
    section, stage = recipe.reward, Stage(recipe, "reward")
    sft = Stage(recipe, "sft").require("the reward model")
    pairs_path = recipe.run_dir / PAIRS_FILE
    if not pairs_path.is_file():
        console.print("the run has no preference pairs yet: making them first")
        make_preferences(recipe, console)
    require_fresh(recipe, "preferences")
    if stage.complete(resume, parents(recipe, "reward"), console):
        return stage.dir
    groups = run_pairs(recipe, console)
    train, held_groups = split_groups(groups, recipe.preferences.validation_fraction, recipe.seed)
    if not train or not held_groups:
        raise UserError(f"{pairs_path}: too few reports to hold some out")
    # Seconds of imports: after everything that a user can get wrong.
    from trl import RewardConfig, RewardTrainer

    from lite_chex.train.trainer import Selection, make_trainer, run_trainer, training_arguments

    held = _held(recipe, held_groups, sft, console)
    seed_everything(recipe.seed)
    backbone = load_base(recipe.model, num_labels=1, packed=True)
    new_adapter(backbone, recipe.model, task_type="SEQ_CLS")
    copy_into_default(backbone.model, sft)
    setup = Setup(recipe, backbone)
    prompt, template, pad = setup.prompt, setup.template, backbone.tokenizer.pad_token_id
    head = backbone.causal.score
    stage.begin(resume, parents(recipe, "reward"))
    record_texts(stage, (g.report for g in train), sft)

    def read(groups_: Sequence[tuple[str, LabelArray]]) -> Reading:
        prompts = prompt.prompt_ids([report for report, _ in groups_])
        batch = packed.pack(prompts, [a for _, a in groups_], template, pad, backbone.device)
        hidden = packed.hidden_states(backbone.trunk, batch)
        return reading(hidden, batch, head, recipe.findings, section.pooling, held.weight)

    rows = [_row(setup, g) for g in train]

    class Trainer(RewardTrainer):
        def _get_train_sampler(self, *_: Any) -> LengthGrouped:
            return LengthGrouped([len(r["chosen_ids"]) for r in rows], self.args, recipe.seed)

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            import torch

            batch = inputs["rows"]
            found = read([(r["report"], np.array(r["answers"], dtype=np.int8)) for r in batch])
            better, worse, gold, at = [], [], [], 0
            for row in batch:
                gold += [] if row["gold"] is None else [at + row["gold"]]
                better += [at + i for i, _ in row["pairs"]]
                worse += [at + j for _, j in row["pairs"]]
                at += len(row["answers"])
            rewards = found.scores.sum(-1)
            chosen, rejected = rewards[better], rewards[worse]
            loss = losses.preference_loss(chosen, rejected)
            if gold and section.pooling == "candidates":
                cells = losses.cell_preference_loss(found.log_p[gold], found.values[gold], found.free[gold])
                loss = loss + section.gold_cells_coef * cells
            if section.center_rewards_coefficient:
                loss = loss + section.center_rewards_coefficient * torch.mean((chosen + rejected) ** 2)
            mode = "train" if backbone.model.training else "eval"
            self._metrics[mode]["accuracy"].append((chosen > rejected).float().mean().item())
            self._metrics[mode]["margin"].append((chosen - rejected).mean().item())
            return (loss, {"loss": loss}) if return_outputs else loss

    arguments = training_arguments(
        RewardConfig, section, stage, str(backbone.causal.dtype).removeprefix("torch."), max_length=None
    )
    trainer = make_trainer(Trainer, backbone, arguments, rows, lambda rows: {"rows": rows})
    console.print(
        f"reward: {sum(len(g.pairs) for g in train)} pairs of {len(train)} reports, "
        f"{sum(len(g.pairs) for g in held_groups)} pairs of {len(held_groups)} reports held out",
        highlight=False,
    )

    def measure() -> dict[str, float]:
        import torch

        backbone.model.eval()
        with torch.inference_mode():
            found = _measure(recipe, held, read, section.per_device_train_batch_size)
        backbone.model.train()
        return found

    by_gold = bool(held.gold)
    # Its own choices say more than best-of-K, which only sees the few answers that were sampled.
    errors = "own_errors_per_report" if section.pooling == "candidates" else "errors_per_report"
    selection = Selection(errors if by_gold else "accuracy", not by_gold, patience=1 << 30)
    result = run_trainer(
        trainer,
        stage,
        title="reward model",
        console=console,
        resume=resume,
        selection=selection,
        measure=measure,
        eval_steps=section.eval_steps,
        measure_first=False,
    )
    backbone.tokenizer.save_pretrained(stage.dir)
    # The best checkpoint's figures: what PPO will be trained against.
    _load_best(backbone, stage)
    final = measure()
    _report(console, final, by_gold)
    facts = {
        "trained on": f"{sum(len(g.pairs) for g in train)} pairs of {len(train)} reports",
        "pooling": f"{section.pooling}: {POOLING[section.pooling]}",
        "held-out pair accuracy": f"{final['accuracy']:.3f}",
        "seconds": f"{clock.seconds:.0f}",
    }
    write_card(stage, f"{recipe.name}: reward model", facts)
    stage.finish({"best_step": result.best.step, **final})
    return stage.dir


def _load_best(backbone: Any, stage: Stage) -> None:
    """Put the best checkpoint's tensors (adapter and score head) back onto the model."""
    import torch

    from lite_chex.model.adapters import lora_tensors

    own = dict(backbone.model.named_parameters())
    with torch.no_grad():
        for key, tensor in lora_tensors(stage.dir).items():
            place = key.replace(".lora_A.weight", ".lora_A.default.weight")
            place = place.replace(".lora_B.weight", ".lora_B.default.weight")
            place = place.replace("score.weight", "score.modules_to_save.default.weight")
            own[place].copy_(tensor)


def _held(recipe: Recipe, groups: list[AnswerGroup], sft: Path, console: Console) -> Held:
    """Sample the SFT policy on the validation gold once, for best-of-K by the reward; the candidates' head rows."""
    backbone = load_base(recipe.model, for_training=False)
    load_adapter(backbone, sft, "default", trainable=False)
    for_inference(backbone)
    setup = Setup(recipe, backbone)
    weight = setup.decoder.weight  # a classification model has no output head to read it from
    gold = []
    validation = validation_gold(recipe, "the reward model") if recipe.data.validation else []
    print_notes(validation, console)
    for index, part in enumerate(validation):
        examples, _ = setup.within_length(part)
        title = f"sampling ({examples.source})"
        gold.append((examples, sample_answers(setup, examples.texts, console, title, recipe.seed + 5000 + index)))
    return Held(groups, gold, weight)


def _row(setup: Setup, group: AnswerGroup) -> dict[str, Any]:
    """One report's group; ``chosen_ids`` and ``rejected_ids`` tell TRL that nothing is left to tokenise."""
    better, worse = group.pairs[0]
    prompt = setup.prompt.prompt_ids([group.report])[0]
    return {
        "chosen_ids": prompt + setup.template.answer_ids(group.answers[better]),
        "rejected_ids": prompt + setup.template.answer_ids(group.answers[worse]),
        "report": group.report,
        "answers": [list(a) for a in group.answers],
        "pairs": [list(p) for p in group.pairs],
        "gold": group.gold,
    }


def _measure(recipe: Recipe, held: Held, read: Any, batch: int) -> dict[str, float]:
    """Pair accuracy (also by the number of differing cells), score deviation within a report, best-of-K."""
    right: list[bool] = []
    cells: list[int] = []
    spread: list[np.ndarray] = []
    decisions: list[np.ndarray] = []
    for start in range(0, len(held.groups), batch):
        part = held.groups[start : start + batch]
        per_decision = read([(g.report, g.array) for g in part]).scores.cpu().numpy()
        decisions.append(per_decision)
        found, at = per_decision.sum(axis=1), 0
        for group in part:
            own = found[at : at + len(group.answers)]
            at += len(group.answers)
            spread.append(own - own.mean())
            for i, j in group.pairs:
                right.append(bool(own[i] > own[j]))
                cells.append(int((group.array[i] != group.array[j]).sum()))
    accuracy = np.array(right)
    count = np.array(cells)
    metrics = {"accuracy": float(accuracy.mean()), "pairs": float(len(accuracy))}
    for name, chosen in (("1_cell", count == 1), ("2_cells", count == 2), ("3_or_more_cells", count >= 3)):
        if chosen.any():
            metrics[f"accuracy_{name}"] = float(accuracy[chosen].mean())
    metrics["score_deviation"] = float(np.concatenate(spread).std())
    metrics |= {f"score_mean_{t}": float(v) for t, v in enumerate(np.concatenate(decisions).mean(axis=0))}
    if held.gold:
        costs = [_on_gold(examples, samples, read, batch) for examples, samples in held.gold]
        metrics |= {k: float(np.concatenate([c[k] for c in costs]).mean()) for k in costs[0]}
        if recipe.reward.pooling != "candidates":
            del metrics["own_errors_per_report"]  # its candidates take no part in its score
    return metrics


def _on_gold(examples: Examples, samples: Samples, read: Any, batch: int) -> dict[str, np.ndarray]:
    """Errors of each report ``[n]``: of the greedy answer, of the sample the reward likes best, of the best sample,
    and of what the reward's candidates say by themselves at each decision of the greedy answer (own)."""
    answers = np.concatenate([samples.greedy[:, None], samples.sampled], axis=1)
    picked, own = [], []
    for start in range(0, len(answers), batch):
        part = answers[start : start + batch]
        found = read(list(zip(examples.texts[start : start + batch], part, strict=True)))
        picked.append(found.scores.sum(-1).cpu().numpy().reshape(part.shape[:2]).argmax(axis=1))
        own.append(found.log_p[:: part.shape[1]].argmax(-1).cpu().numpy().astype(np.int8))
    everything = np.concatenate([answers, np.concatenate(own)[:, None]], axis=1)
    costs = np.stack(
        [
            error_score(gold, a, missed=1, hallucinated=1, wrong_certainty=1, presence=examples.presence)
            for gold, a in zip(examples.labels, everything)
        ]
    )
    rows = np.arange(len(costs))
    return {
        "errors_per_report": costs[rows, np.concatenate(picked)],
        "own_errors_per_report": costs[:, -1],
        "greedy_errors_per_report": costs[:, 0],
        "oracle_errors_per_report": costs[:, :-1].min(axis=1),
    }


def at_chance(summary: dict[str, float]) -> bool:
    """Whether the held-out pair accuracy is within two standard errors of a coin's."""
    error = (0.25 / max(summary["pairs"], 1)) ** 0.5
    return summary["accuracy"] <= CHANCE + 2 * error


def _report(console: Console, final: dict[str, float], by_gold: bool) -> None:
    by_cells = ", ".join(f"{k[9:].replace('_', ' ')} {v:.3f}" for k, v in final.items() if k.startswith("accuracy_"))
    console.print(
        f"held-out pair accuracy {final['accuracy']:.3f} of {final['pairs']:.0f} pairs"
        + (f" (answers differing in {by_cells})" if by_cells else ""),
        highlight=False,
    )
    if at_chance(final):
        console.print("[bold red]the reward model is at chance: train-ppo will refuse it[/]")
    if by_gold:
        console.print(
            f"errors per report on validation gold: SFT {final['greedy_errors_per_report']:.3f}, "
            f"best of K by the reward {final['errors_per_report']:.3f}, "
            + (f"its own choices {final['own_errors_per_report']:.3f}, " if "own_errors_per_report" in final else "")
            + f"best sample there was {final['oracle_errors_per_report']:.3f}",
            highlight=False,
        )
        if final["errors_per_report"] >= final["greedy_errors_per_report"]:
            console.print("[yellow]best-of-K by the reward is no better than SFT: do not expect PPO to be[/]")
