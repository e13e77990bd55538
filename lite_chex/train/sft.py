"""Supervised fine-tuning (eq. 1): the policy learns the answer given instruction and report."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lite_chex.data.records import Report
from lite_chex.data.splits import connected_groups, split_reports, text_digest
from lite_chex.decode.packed import padded
from lite_chex.errors import UserError
from lite_chex.findings import SKIP
from lite_chex.labelers.rules import RuleLabeler
from lite_chex.model.adapters import check_adapter, copy_into_default, new_adapter
from lite_chex.model.backbone import check_base, load_base
from lite_chex.model.unsloth_backend import choose_backend, load_with_unsloth
from lite_chex.train import losses
from lite_chex.train.batches import LengthGrouped, balanced_rows
from lite_chex.train.examples import (
    Examples,
    check_splits,
    load_split,
    merge,
    print_notes,
    print_rare_normal,
    validation_gold,
)
from lite_chex.train.lineage import PARENTS, parents, stale
from lite_chex.train.preferences import corrected
from lite_chex.train.run import TRAINED_ON, Clock, Stage, record_texts, seed_everything, trained_on, write_card
from lite_chex.train.setup import Setup, Validation
from lite_chex.train.variants import variants

if TYPE_CHECKING:
    from rich.console import Console

    from lite_chex.recipe import Recipe


def train_sft(recipe: Recipe, console: Console, *, resume: bool = False, on_gold: bool = False) -> Path:
    """Train the SFT adapter of a run.

    on_gold: the control arm ``sft_gold``: SFT continued on the very gold labels that the preferences are
    made from, so that a gain of RLHF is not mistaken for a gain of knowledge.

    Raises:
        UserError: if recipe, data or machine are wrong.
    """
    clock = Clock()
    stage = Stage(recipe, "sft_gold" if on_gold else "sft")
    section = recipe.sft
    if on_gold:
        rate = section.gold_learning_rate or section.learning_rate / 5
        epochs = section.gold_num_train_epochs or section.num_train_epochs
        section = section.model_copy(
            update={"learning_rate": rate, "num_train_epochs": epochs, "balance": 0.0, "variants": 0.0}
        )
    check_splits(recipe)
    start = Path(section.start_from) if section.start_from else None
    if start is not None and not on_gold:
        check_adapter(start)
    if on_gold:
        start = Stage(recipe, "sft").require("SFT on gold")
        parts, held_out = load_split(recipe, "preference"), validation_gold(recipe, "SFT on gold")
        if not parts:
            raise UserError("data.preference: SFT on gold needs a source with gold")
    else:
        weak = merge(load_split(recipe, "train"), "train")
        seen = trained_on(start) if start else set()
        if start and not seen:
            console.print(
                f"{start} does not say what it was trained on (no {TRAINED_ON}): held-out reports may be among it",
                style="yellow",
                highlight=False,
            )
        parts, held_out = _split(weak, section.validation_fraction, recipe.seed, seen)
    given_texts = [text for part in parts for text in part.texts]
    if section.variants:
        parts.append(_variants(parts[0], section.variants, recipe))
    print_notes([*parts, *held_out], console)
    if on_gold:
        print_rare_normal(parts, recipe, console)
    check_base(recipe.model)
    if stage.complete(resume, parents(recipe, stage.name), console):
        return stage.dir
    # Seconds of imports: after everything that a user can get wrong.
    from trl import SFTConfig, SFTTrainer

    from lite_chex.train.trainer import Selection, make_trainer, run_trainer, training_arguments

    seed_everything(recipe.seed)
    backend, why = choose_backend(recipe.model.backend)
    console.print(f"backend: {backend} ({why})", highlight=False)
    if backend == "unsloth":
        backbone = load_with_unsloth(
            recipe.model, padded(recipe.model.max_length), gradient_checkpointing=section.gradient_checkpointing
        )
    else:
        backbone = load_base(recipe.model)
        new_adapter(backbone, recipe.model)
    if start is not None:
        copy_into_default(backbone.model, start)
    setup = Setup(recipe, backbone)
    held = Validation(setup, held_out)
    given = sum(map(len, parts))
    parts = [setup.within_length(part)[0] for part in parts]
    train = merge([_whole_answers(setup, part) if part.presence else part for part in parts], "train")
    too_long = given - len(train)
    console.print(
        f"{stage.name}: {len(train)} reports with {train.source}, {len(held)} held out"
        + (f", {too_long} longer than model.max_length left out" if too_long else "")
        + f"; {backbone.dtype_reason}",
        highlight=False,
    )
    stage.begin(resume, parents(recipe, stage.name))
    record_texts(stage, given_texts, *([start] if start else []))

    rows = _rows(setup, train)

    def drawn(epoch: int) -> list[int]:
        return balanced_rows(train.labels, section.balance, recipe.seed, epoch)

    class Trainer(SFTTrainer):
        """TRL's SFTTrainer with eq. 1 over the answer tokens only: no logits for the prompt."""

        def _get_train_sampler(self, *_: Any) -> LengthGrouped:
            return LengthGrouped([len(r["input_ids"]) for r in rows], self.args, recipe.seed, drawn)

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            # Padding stands on the right, where causal attention never looks: without a mask its kernel is faster.
            hidden = backbone.trunk(input_ids=inputs["input_ids"], use_cache=False).last_hidden_state[:, :-1]
            weights = inputs["weights"][:, 1:]
            target = weights > 0
            logits = backbone.causal.get_output_embeddings()(hidden[target])
            loss = losses.answer_loss(logits, inputs["input_ids"][:, 1:][target], weights[target])
            return (loss, {"loss": loss}) if return_outputs else loss

    arguments = training_arguments(
        SFTConfig,
        section,
        stage,
        str(backbone.causal.dtype).removeprefix("torch."),
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
    )
    trainer = make_trainer(Trainer, backbone, arguments, rows, _Collator(backbone.tokenizer.pad_token_id))
    trainer.model_accepts_loss_kwargs = False
    metric = "errors_per_report" if on_gold else "macro_f1"
    selection = Selection(metric, higher_is_better=not on_gold, patience=section.early_stopping_patience)

    def measure() -> dict[str, float]:
        backbone.model.eval()
        try:
            return held.measure()
        finally:
            backbone.model.train()

    result = run_trainer(
        trainer,
        stage,
        title="SFT on gold" if on_gold else "SFT",
        console=console,
        resume=resume,
        selection=selection,
        measure=measure,
        eval_steps=section.eval_steps,
        measure_first=start is not None,
    )
    backbone.tokenizer.save_pretrained(stage.dir)
    facts = {
        "trained on": f"{len(train)} reports, {train.source}",
        **({"started from": str(start)} if start else {}),
        "loss": f"{section.loss} tokens, decisions weighted {section.decision_weight}",
        f"best {metric} on held-out reports ({held.source})": f"{result.best.value:.4f} at step {result.best.step}",
        "seconds": f"{clock.seconds:.0f}",
    }
    write_card(stage, f"{recipe.name}: SFT", facts)
    outdated = stale(recipe, tuple(PARENTS))
    if outdated and not on_gold:
        console.print(f"[yellow]{outdated}[/]", highlight=False)
    stage.finish({"best_step": result.best.step, metric: result.best.value, "stopped": result.stopped})
    return stage.dir


def _split(examples: Examples, fraction: float, seed: int, seen: Set[str]) -> tuple[list[Examples], list[Examples]]:
    """Hold out a fraction by patient and text, of what no earlier training has ``seen``: all of it where it is less.

    Raises:
        UserError: if there are too few reports, or none that was not seen.
    """
    digests = [text_digest(report.text) for report in examples.reports]
    groups = [g for g in connected_groups(examples.reports) if seen.isdisjoint(digests[i] for i in g)]
    fresh = sorted(i for group in groups for i in group)
    if seen and not fresh:
        raise UserError(
            "data.train: every report was in the training that sft.start_from goes on from, so none can be held out"
        )
    held_out, share = fresh, fraction * len(examples) / len(fresh) if seen else fraction
    if not seen or (share < 1 and len(groups) > 1):
        split = split_reports([examples.reports[i] for i in fresh], {"train": 1 - share, "held_out": share}, seed)
        held_out = [fresh[i] for i in split["held_out"]]
    train = sorted(set(range(len(examples))) - set(held_out))
    if not train:
        raise UserError("data.train: every report is new to sft.start_from and would be held out; add reports")
    return [examples.subset(train)], [examples.subset(held_out)]


def _variants(examples: Examples, share: float, recipe: Recipe) -> Examples:
    """Made-up reports from the training reports, labelled by the rules."""
    rules = RuleLabeler(recipe.findings)
    texts = variants(examples.texts, rules, round(share * len(examples)), recipe.seed)
    reports = [Report(i, f"variant-{i}", text) for i, text in enumerate(texts)]
    labels = rules.label(texts).values
    return Examples(reports, labels, np.ones(len(recipe.findings), dtype=bool), False, f"{len(texts)} variants")


def _whole_answers(setup: Setup, part: Examples) -> Examples:
    """Presence codes as whole answers: the model's own, corrected where the codes contradict them."""
    setup.backbone.model.eval()
    found = setup.greedy(part.texts)
    rows = [corrected(*row, presence=True) for row in zip(found.values, found.logits, part.labels)]
    return replace(part, labels=setup.recipe.findings.consistent(np.array(rows)), presence=False)


def _rows(setup: Setup, examples: Examples) -> list[dict[str, Any]]:
    """Token ids and the loss weight of each token: 0 on the prompt, on forced tokens for ``decisions``,
    and on cells whose label is not known."""
    section, template = setup.recipe.sft, setup.template
    forced = 1.0 if section.loss == "answer" else 0.0
    # Cells that gold leaves open stand as absent, so that the answer is whole; those decisions are not learnt.
    rows = []
    for prompt, labels in zip(setup.prompt.prompt_ids(examples.texts), examples.labels, strict=True):
        known = labels != SKIP
        answer_labels = np.where(known, labels, 3)
        answer = template.answer_ids(answer_labels)
        weights = [0.0] * len(prompt) + [forced] * len(answer)
        for position, is_known in zip(template.decision_positions(answer_labels), known, strict=True):
            weights[len(prompt) + position] = section.decision_weight if is_known else 0.0
        rows.append({"input_ids": prompt + answer, "weights": weights})
    return rows


class _Collator:
    """Pads token ids and weights on the right."""

    def __init__(self, pad_id: int) -> None:
        self.pad_id = pad_id

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        import torch

        width = padded(max(len(r["input_ids"]) for r in rows))

        def filled(key: str, fill: float) -> list[list[float]]:
            return [[*r[key], *[fill] * (width - len(r[key]))] for r in rows]

        return {
            "input_ids": torch.tensor(filled("input_ids", self.pad_id), dtype=torch.long),
            "weights": torch.tensor(filled("weights", 0.0), dtype=torch.float32),
        }
