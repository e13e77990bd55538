"""Recipes: one YAML per (base model, card). Keys are those that TRL and alignment-handbook users know.

Unknown keys are refused with the closest known one suggested, and all mistakes are reported at once.
A field's description is its help text.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from lite_chex.errors import UserError
from lite_chex.findings import FINDING_SETS, NO_FINDING, FindingSet, custom_findings, finding_set
from lite_chex.overrides import apply_override
from lite_chex.recipe_mistakes import mistakes, read_sections

NEW_ENCODER = "new"
"""``distill.model_name_or_path`` that stands for an encoder made on the spot."""
TEACHERS = ("run", "rules")
"""``distill.teacher`` that is no label file."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_default=True)


class ModelSection(Section):
    model_name_or_path: str = Field(description="Folder or hub name of a dense decoder with a chat template")
    backend: Literal["auto", "unsloth", "transformers"] = Field("auto", description="Who loads the model for SFT")
    load_in_4bit: bool = Field(True, description="NF4 with double quantisation (bitsandbytes)")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field("auto", description="Compute dtype of the base")
    attn_implementation: Literal["sdpa", "flash_attention_2", "eager"] = Field(
        "sdpa",
        description="Attention of transformers; reward model and PPO take sdpa for flash_attention_2, which knows no "
        "block mask",
    )
    lora_r: int = Field(16, ge=1)
    lora_alpha: int = Field(32, ge=1)
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    lora_target_modules: str | list[str] = Field("all-linear", description="As in PEFT")
    max_length: int = Field(1024, ge=64, description="Tokens of prompt + answer; longer reports are refused, not cut")
    trust_remote_code: bool = Field(False, description="Runs code that comes with a model; off unless you ask")


class Source(Section):
    """Reports and, beside them, what is known of them."""

    reports: str = Field(description="CSV, CSV.GZ, JSONL or Parquet of reports")
    labels: str | None = Field(None, description="'rules' (weak labels), or a label file")
    presence: bool = Field(False, description="The labels are presence codes (1 coded, empty not, A/x unscored)")
    text_column: str | None = None
    id_column: str | None = None
    split: str | None = Field(None, description="Only rows whose column `split` (as prepare writes it) says so")
    limit: int | None = Field(None, ge=1, description="Use only so many reports (a seeded choice)")
    name: str | None = Field(None, description="How tables name this source")


class DataSection(Section):
    findings: str = Field("paper13", description="paper13, chexpert14, or a name given in custom_findings")
    custom_findings: dict[str, list[str]] | None = Field(
        None,
        description="Finding -> phrases for the rule labeler: a new one joins the set named above, of one of the set "
        "the phrases join its own; with a new name above, these findings and No Finding are the whole set",
    )
    rename_findings: dict[str, str] | None = Field(
        None, description="CheXpert's name -> yours, in prompt, answers, files and tables; CheXpert's is still read"
    )
    train: list[Source] = Field(default_factory=list, description="SFT on (weak) labels")
    validation: list[Source] = Field(default_factory=list, description="Gold that selects reward model, PPO and DPO")
    preference: list[Source] = Field(default_factory=list, description="Gold standing in for experts: makes pairs")
    preference_pairs: list[str] = Field(default_factory=list, description="JSONL files of pairs that people made")
    test: list[Source] = Field(default_factory=list, description="Gold that no stage sees before eval")
    shared: Literal["refuse", "leave_out"] = Field(
        "refuse",
        description="Reports whose patient or text stands in two splits: refuse the recipe, or keep them in the later "
        "split alone (train, preference, validation, test)",
    )

    @model_validator(mode="after")
    def _findings_known(self) -> DataSection:
        if self.findings not in FINDING_SETS and not self.custom_findings:
            raise ValueError(f'data.findings: "{self.findings}" is none of {", ".join(FINDING_SETS)}')
        try:
            _ = self.finding_set
        except UserError as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def finding_set(self) -> FindingSet:
        """The set named by ``findings``, with custom and renamed findings."""
        known = self.findings in FINDING_SETS
        base = finding_set(self.findings) if known else FindingSet(self.findings, (NO_FINDING,))
        return custom_findings(base, self.custom_findings or {}, self.rename_findings or {})


class Trained(Section):
    learning_rate: float = Field(2e-4, gt=0)
    num_train_epochs: float = Field(1.0, gt=0)
    max_steps: int = Field(-1, description="Optimiser steps; -1: as num_train_epochs says")
    per_device_train_batch_size: int = Field(4, ge=1)
    gradient_accumulation_steps: int = Field(1, ge=1)
    gradient_checkpointing: bool = False
    warmup_ratio: float = Field(0.03, ge=0, lt=1)
    lr_scheduler_type: str = "cosine"
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    logging_steps: int = Field(10, ge=1)
    eval_steps: int = Field(50, ge=1, description="Validate every so many optimiser steps")
    save_steps: int = Field(50, ge=1, description="Checkpoint every so many optimiser steps")
    optim: str = "adamw_torch"


class SFTSection(Trained):
    loss: Literal["answer", "decisions"] = Field(
        "answer", description="Every answer token (eq. 1; exportable), or the decision tokens alone (learns faster)"
    )
    start_from: str | None = Field(
        None,
        description="Folder of an adapter to go on from (another run's sft); unset: a new adapter. What that run "
        "trained on is not held out",
    )
    decision_weight: float = Field(4.0, gt=0, description="Weight of a decision token against another answer token")
    balance: float = Field(
        0.0, ge=0, le=1, description="Draw reports by (count of their rarest label) ** -balance; 0: each once an epoch"
    )
    variants: float = Field(
        0.0,
        ge=0,
        description="Made-up reports per training report: one to four sentences about other findings, every finding x "
        "certainty as often, a quarter turned in No Finding; labelled by the rules",
    )
    validation_fraction: float = Field(0.1, gt=0, lt=1, description="Of the training reports, for early stopping")
    early_stopping_patience: int = Field(4, ge=1, description="Validations without a better macro F1")
    gold_learning_rate: float | None = Field(
        None, gt=0, description="Of the control arm (SFT continued on gold); unset: a fifth of learning_rate"
    )
    gold_num_train_epochs: float | None = Field(None, gt=0, description="Of the control arm; unset: num_train_epochs")


class PreferencesSection(Section):
    num_samples: int = Field(4, ge=1, description="Answers sampled per report from the SFT policy")
    temperature: float = Field(1.5, gt=0)
    missed: float = Field(1.0, ge=0, description="Clinical error score of a missed finding")
    hallucinated: float = Field(1.0, ge=0)
    wrong_certainty: float = Field(0.7, ge=0)
    include_gold: bool = Field(True, description="Add the gold (corrected) answer to each report's group")
    num_edits: int = Field(3, ge=0, description="Single-cell edits of gold per report; half are the policy's mistakes")
    max_pairs_per_report: int = Field(16, ge=1)
    validation_fraction: float = Field(0.15, gt=0, lt=1, description="Of the reports: held-out pairs")


class RewardSection(Trained):
    pooling: Literal["candidates", "decisions", "last"] = Field(
        "candidates",
        description="Score read at every decision and summed (candidates: plus the chosen candidate's "
        "log-probability), or at the last token",
    )
    gold_cells_coef: float = Field(
        4.0,
        ge=0,
        description="Weight of comparing each cell of a gold answer with its three other candidates; for pooling: "
        "candidates",
    )
    center_rewards_coefficient: float | None = Field(None, description="As in TRL")


class PPOSection(Section):
    learning_rate: float = Field(1e-5, gt=0)
    total_iterations: int = Field(50, ge=1, description="Rollout + update rounds")
    reports_per_iteration: int = Field(64, ge=1)
    num_samples: int = Field(2, ge=1, description="Answers per report and iteration, each other's baseline")
    num_ppo_epochs: int = Field(2, ge=1)
    num_mini_batches: int = Field(4, ge=1, description="Steps per epoch; 16 reports a step taught more than 8 did")
    per_device_train_batch_size: int = Field(8, ge=1, description="Reports per forward pass (with all their samples)")
    temperature: float = Field(1.0, gt=0, description="Of rollouts and of all log-probabilities alike")
    kl_coef: float = Field(0.05, ge=0, description="Beta of eq. 3: exact KL to the SFT policy as a loss term")
    kl_estimator: Literal["exact", "sampled"] = Field("exact", description="Exact KL in the loss, or the sampled one")
    adaptive_kl: bool = Field(False, description="Steer kl_coef towards target_kl")
    target_kl: float = Field(1.0, gt=0, description="Nats per answer, for adaptive_kl")
    gamma: float = Field(1.0, gt=0, le=1)
    lam: float = Field(0.95, ge=0, le=1)
    cliprange: float = Field(0.2, gt=0)
    cliprange_value: float = Field(0.2, gt=0)
    vf_coef: float = Field(0.1, ge=0)
    entropy_coef: float = Field(0.1, ge=0, description="In units of score, like kl_coef: keeps doubt where it is due")
    value_model: Literal["adapter", "head"] = Field(
        "adapter", description="A LoRA started from the reward model, or a head on its frozen features (cheaper)"
    )
    value_learning_rate: float | None = Field(None, description="Of the value model; unset: learning_rate")
    max_grad_norm: float = Field(1.0, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    gradient_checkpointing: bool = False
    eval_steps: int = Field(5, ge=1, description="Validate every so many iterations")
    save_steps: int = Field(5, ge=1, description="Checkpoint every so many iterations")
    early_stopping_patience: int = Field(4, ge=1, description="Validations without fewer errors per report")
    require_best_of_k: bool = Field(False, description="Refuse to start where best-of-K by the reward is no better")


class DPOSection(Trained):
    beta: float = Field(0.1, gt=0)
    loss_type: str = Field("sigmoid", description="As in TRL")
    decisions_only: bool = Field(True, description="Log-probabilities over the decision tokens alone")
    sft_coef: float = Field(0.0, ge=0, description="Weight of eq. 1 on the preferred answers, beside DPO's loss")
    early_stopping_patience: int = Field(4, ge=1)


class DistillSection(Section):
    """The student: a BERT-size encoder that learns a teacher's labels, and labels hundreds of reports a second."""

    model_name_or_path: str = Field(
        "google-bert/bert-base-uncased",
        description="Folder or hub name of a BERT-like encoder with safetensors weights, or 'new': a small "
        "untrained one with a vocabulary of the reports",
    )
    teacher: str = Field("run", description="run (the run's ppo, else dpo, else sft), rules, or a label file")
    reports: list[Source] = Field(
        default_factory=list, description="What the teacher labels (labels given here are not used); unset: data.train"
    )
    num_train_epochs: float = Field(3.0, gt=0)
    learning_rate: float = Field(5e-5, gt=0)
    per_device_train_batch_size: int = Field(16, ge=1)
    warmup_ratio: float = Field(0.1, ge=0, lt=1)
    weight_decay: float = Field(0.01, ge=0)
    max_length: int | None = Field(None, ge=8, description="Longest report in tokens; unset: what the encoder takes")
    validation_fraction: float = Field(0.05, gt=0, le=0.5, description="Of the reports: chooses the best epoch")


class LabelSection(Section):
    batch_size: int | None = Field(None, ge=1, description="Unset: the largest that fits")
    draft: Literal["rules", "none"] = Field("rules", description="Where the decoder's first draft comes from")


class EvalSection(Section):
    protocol: Literal["macro", "chexbert", "chexpert", "presence"] = "macro"
    bootstrap: int = Field(1000, ge=0)
    stages: list[str] = Field(
        default_factory=lambda: ["rules", "student", "sft", "sft_gold", "best_of_k", "dpo", "ppo"],
        description="Rows of the tables; a stage that the run does not have is left out",
    )


class Hardware(Section):
    """What the recipe is for; shown by plan and doctor, used to choose a default recipe."""

    min_gpu_gb: float | None = Field(None, description="Memory of the card; unset: runs on a CPU")
    tested_on: str = Field("not yet run on this hardware", description="Machine, time and peak memory as measured")


class Recipe(Section):
    name: str = Field(description="Also the run's folder below output_dir")
    description: str = ""
    seed: int = 0
    output_dir: str = "runs"
    hardware: Hardware = Field(default_factory=Hardware)
    model: ModelSection
    data: DataSection
    sft: SFTSection = Field(default_factory=SFTSection)
    preferences: PreferencesSection = Field(default_factory=PreferencesSection)
    reward: RewardSection = Field(default_factory=RewardSection)
    ppo: PPOSection = Field(default_factory=PPOSection)
    dpo: DPOSection = Field(default_factory=DPOSection)
    distill: DistillSection = Field(default_factory=DistillSection)
    label: LabelSection = Field(default_factory=LabelSection)
    eval: EvalSection = Field(default_factory=EvalSection)

    @field_validator("name")
    @classmethod
    def _below_output_dir(cls, name: str) -> str:
        folder = Path(name)
        if not folder.parts or folder.is_absolute() or ".." in folder.parts:
            raise ValueError(f'"{name}" is no folder below output_dir; give a name such as my-run')
        return name

    @property
    def findings(self) -> FindingSet:
        """The finding set, with custom findings inserted before Support Devices and No Finding."""
        return self.data.finding_set

    @property
    def run_dir(self) -> Path:
        return Path(self.output_dir) / self.name

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=110)


def shipped(kind: Literal["recipes", "data_samples"]) -> Path:
    """The folder of shipped recipes or sample data, in a wheel or in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "shipped" / kind
    return inside if inside.is_dir() else package.parent / kind


def shipped_recipes() -> dict[str, Path]:
    return {p.stem: p for p in sorted(shipped("recipes").glob("*.yaml"))}


PREFERRED = "qwen2.5-7b"
"""The model taken where recipes of several are for the same card: 7B, it has the smallest key-value cache per token
(28 layers of 4 key-value heads; Mistral-7B 32 of 8, Qwen3-8B 36 of 8), and its template puts no thought before the
answer. Which one labels best has not been measured."""


def default_recipe(memory: float | None = None) -> str:
    """Name of the shipped recipe that fits this machine: the largest card's that fits, else the CPU's.

    memory: of the card in GiB; left out: this machine's. Between models for one card, :data:`PREFERRED` comes first.
    """
    from lite_chex.model.hardware import gpu_memory_gb

    memory = memory or gpu_memory_gb()
    fitting = []
    for name, path in shipped_recipes().items():
        hardware = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("hardware") or {}
        need = hardware.get("min_gpu_gb")
        if need and memory and need * 0.9 <= memory:  # a "16 GB" card shows 14.7 GiB
            fitting.append((-need, not name.startswith(PREFERRED), name))
    return min(fitting)[-1] if fitting else "tiny-cpu"


def load_recipe(
    path_or_name: str | Path | None = None, overrides: Sequence[str] = (), output_dir: str | None = None
) -> Recipe:
    """Read a recipe file or a shipped recipe's name, apply ``section.key=value`` overrides, validate.

    Relative paths of data and model are taken from the working folder, then from the recipe's own
    folder, then from the shipped samples (``data_samples/...``).

    Raises:
        UserError: naming every wrong key at once.
    """
    path = recipe_file(path_or_name)
    raw = read_sections(path)
    if isinstance(raw.get("ppo"), dict):
        raw["ppo"].pop("whiten_rewards", None)  # never did anything; the recipes of early runs hold it
    for override in overrides:
        apply_override(raw, override)
    if output_dir is not None:
        raw["output_dir"] = output_dir
    try:
        recipe = Recipe.model_validate(raw)
    except ValidationError as error:
        raise UserError(f"{path.name}: {'; '.join(mistakes(error, Recipe))}") from None
    _resolve_paths(recipe, path.parent)
    return recipe


def recipe_file(path_or_name: str | Path | None) -> Path:
    """The file that a path or a shipped recipe's name means; None: the shipped one that fits this machine.

    Raises:
        UserError: if there is none.
    """
    name = str(path_or_name) if path_or_name is not None else default_recipe()
    path = Path(name)
    if path.is_file():
        return path
    known = shipped_recipes()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f'; did you mean "{close[0]}"?' if close else ""
        raise UserError(f'no recipe "{name}": give a YAML file or one of {", ".join(known)}{hint}')
    return known[name]


def _resolve_paths(recipe: Recipe, folder: Path) -> None:
    def resolve(value: str) -> str:
        if Path(value).exists():
            return value
        for root in (folder, folder.parent, shipped("data_samples").parent):
            if (root / value).exists():
                return str(root / value)
        return value

    data = recipe.data
    for source in [*data.train, *data.validation, *data.preference, *data.test, *recipe.distill.reports]:
        source.reports = resolve(source.reports)
        if source.labels and source.labels != "rules":
            source.labels = resolve(source.labels)
    data.preference_pairs = [resolve(p) for p in data.preference_pairs]
    recipe.model.model_name_or_path = resolve(recipe.model.model_name_or_path)
    if recipe.sft.start_from:
        recipe.sft.start_from = resolve(recipe.sft.start_from)
    student = recipe.distill
    if student.model_name_or_path != NEW_ENCODER:
        student.model_name_or_path = resolve(student.model_name_or_path)
    if student.teacher not in TEACHERS:
        student.teacher = resolve(student.teacher)
