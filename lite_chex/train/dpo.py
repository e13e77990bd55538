"""DPO from the same pairs and the same SFT adapter: the comparison arm (Rafailov et al. 2023), by TRL.

What differs from TRL's collator: the completion mask covers the free decisions' tokens alone, so that forced
tokens after a differing label cannot carry the margin (nor can a No Finding that the findings before it force). DPO
only widens a margin, and may do so while both answers become less likely: ``dpo.sft_coef`` adds the preferred answer's
own likelihood (RPO, Pang et al. 2024).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lite_chex.data.preferences import AnswerGroup, split_groups
from lite_chex.decode.packed import padded
from lite_chex.errors import UserError
from lite_chex.model.adapters import load_adapter, role, save_adapter
from lite_chex.model.backbone import load_base
from lite_chex.train.batches import LengthGrouped
from lite_chex.train.examples import print_notes, validation_gold
from lite_chex.train.lineage import parents, require_fresh
from lite_chex.train.preferences import PAIRS_FILE, make_preferences, run_pairs
from lite_chex.train.run import Clock, Stage, record_texts, seed_everything, write_card
from lite_chex.train.setup import Setup, Validation

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from lite_chex.recipe import Recipe


def train_dpo(recipe: Recipe, console: Console, *, resume: bool = False) -> Path:
    """Train the DPO adapter of a run; makes the preference pairs first where the run has none.

    Raises:
        UserError: if the run has no SFT stage, or pairs are missing, wrong or of an earlier SFT.
    """
    clock, section, stage = Clock(), recipe.dpo, Stage(recipe, "dpo")
    sft = Stage(recipe, "sft").require("DPO")
    pairs_path = recipe.run_dir / PAIRS_FILE
    if not pairs_path.is_file():
        console.print("the run has no preference pairs yet: making them first")
        make_preferences(recipe, console)
    require_fresh(recipe, "preferences")
    if stage.complete(resume, parents(recipe, "dpo"), console):
        return stage.dir
    groups = run_pairs(recipe, console)
    train, _ = split_groups(groups, recipe.preferences.validation_fraction, recipe.seed)
    if not train:
        raise UserError(f"{pairs_path}: too few reports to hold some out")
    # Seconds of imports: after everything that a user can get wrong.
    from trl import DPOConfig, DPOTrainer

    from lite_chex.train.trainer import Selection, make_trainer, run_trainer, training_arguments

    seed_everything(recipe.seed)
    backbone = load_base(recipe.model)
    load_adapter(backbone, sft, "default", trainable=True)
    setup = Setup(recipe, backbone)
    gold = validation_gold(recipe, "DPO")
    print_notes(gold, console)
    validation = Validation(setup, gold)
    stage.begin(resume, parents(recipe, "dpo"))
    record_texts(stage, (g.report for g in train), sft)

    class Trainer(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset  # already token ids

        def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
            # transformers would load the subfolder of TRL's "ref" adapter and leave the trained one, at the root, out.
            trained: Any = self.model
            trained.load_adapter(resume_from_checkpoint, "default", is_trainable=True)

        def _get_train_sampler(self, *_: Any) -> LengthGrouped:
            return LengthGrouped([len(r["prompt_ids"]) for r in rows], self.args, recipe.seed)

    arguments = training_arguments(
        DPOConfig,
        section,
        stage,
        str(backbone.causal.dtype).removeprefix("torch."),
        beta=section.beta,
        loss_type=[section.loss_type, "sft"],
        loss_weights=[1.0, section.sft_coef],
        max_length=None,
    )
    rows = _rows(setup, train, section.decisions_only)
    trainer = make_trainer(Trainer, backbone, arguments, rows, _Collator(backbone.tokenizer.pad_token_id))
    console.print(f"dpo: {len(rows)} pairs of {len(train)} reports", highlight=False)

    def measure() -> dict[str, float]:
        backbone.model.eval()
        try:
            with role(backbone.model, "default"):
                return validation.measure()
        finally:
            # The trainer's adapter must require gradients again.
            backbone.model.base_model.set_adapter("default", inference_mode=False)
            backbone.model.train()

    result = run_trainer(
        trainer,
        stage,
        title="DPO",
        console=console,
        resume=resume,
        selection=Selection("errors_per_report", False, section.early_stopping_patience),
        measure=measure,
        eval_steps=section.eval_steps,
        measure_first=True,
        save=lambda folder: save_adapter(backbone.model, folder, "default"),
    )
    backbone.tokenizer.save_pretrained(stage.dir)
    facts = {
        "trained on": f"{len(rows)} pairs of {len(train)} reports",
        "beta": section.beta,
        f"best errors per report on {validation.source}": f"{result.best.value:.4f} at step {result.best.step}",
        "seconds": f"{clock.seconds:.0f}",
    }
    write_card(stage, f"{recipe.name}: DPO", facts)
    stage.finish({"best_step": result.best.step, "errors_per_report": result.best.value, "stopped": result.stopped})
    return stage.dir


def _rows(setup: Setup, groups: list[AnswerGroup], decisions_only: bool) -> list[dict[str, Any]]:
    """One row per pair: prompt and answer ids, and which answer tokens count."""
    template, findings = setup.template, setup.recipe.findings
    rows = []
    for group in groups:
        prompt = setup.prompt.prompt_ids([group.report])[0]
        for better, worse in group.pairs:
            row: dict[str, Any] = {"prompt_ids": prompt}
            for key, index in (("chosen", better), ("rejected", worse)):
                ids = template.answer_ids(group.answers[index])
                free = template.decision_positions(group.answers[index])
                if findings.has_no_finding and findings.vetoed(group.array[index]):
                    free = free[:-1]
                row[f"{key}_ids"] = ids
                row[f"{key}_mask"] = [int(not decisions_only or i in free) for i in range(len(ids))]
            rows.append(row)
    return rows


class _Collator:
    """Chosen rows, then rejected rows, padded on the right: TRL's layout with our completion mask."""

    def __init__(self, pad_id: int) -> None:
        self.pad_id = pad_id

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        import torch

        ids = [r["prompt_ids"] + r[f"{k}_ids"] for k in ("chosen", "rejected") for r in rows]
        mask = [[0] * len(r["prompt_ids"]) + r[f"{k}_mask"] for k in ("chosen", "rejected") for r in rows]
        width = padded(max(map(len, ids)))
        input_ids = torch.tensor([x + [self.pad_id] * (width - len(x)) for x in ids])
        return {
            "input_ids": input_ids,
            # Causal attention never looks at padding on the right; a mask of ones leaves it its faster kernel.
            "attention_mask": torch.ones_like(input_ids),
            "completion_mask": torch.tensor([m + [0] * (width - len(m)) for m in mask]),
        }
