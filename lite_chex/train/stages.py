"""Label a run's test reports with each of its stages, and bundle them for the evaluator."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lite_chex.data.labels import read_labels, write_labels
from lite_chex.data.records import LabelTable
from lite_chex.data.splits import text_digest
from lite_chex.decode.temperature import FILE, Calibration, log_probabilities, tempered
from lite_chex.errors import UserError
from lite_chex.evaluate.inputs import EvalInput, repeated_patients
from lite_chex.evaluate.lengths import count_tokens
from lite_chex.findings import LabelArray
from lite_chex.labelers.llm import fingerprint_of
from lite_chex.model.adapters import for_inference, load_adapter, read_score, role
from lite_chex.model.backbone import load_base
from lite_chex.train.examples import Examples, load_source, rule_labels
from lite_chex.train.lineage import PARENTS, changed, stale
from lite_chex.train.run import Stage, trained_on
from lite_chex.train.setup import Setup
from lite_chex.train.student import has_student, student_labels

if TYPE_CHECKING:
    from rich.console import Console

    from lite_chex.decode.decoder import Decoded
    from lite_chex.recipe import Recipe

TITLES = {
    "rules": "rules",
    "student": "student",
    "sft": "SFT",
    "sft_gold": "SFT + gold",
    "best_of_k": "best of K",
    "dpo": "DPO",
    "ppo": "PPO",
}


def evaluate_run(recipe: Recipe, console: Console) -> list[EvalInput]:
    """One bundle per test source: gold and the labels of every stage that the run has.

    Labels are kept in ``<run>/predictions`` and made anew where the stage or the reports changed.

    Raises:
        UserError: if the run has neither SFT stage nor student, or the recipe no test source.
    """
    if not has_student(recipe):
        Stage(recipe, "sft").require("eval")
    if not recipe.data.test:
        raise UserError("data.test: the recipe names no test source")
    labeller = StageLabeler(recipe, console)
    bundles = []
    for index, source in enumerate(recipe.data.test):
        examples = load_source(source, recipe)
        systems, out_of_reach = labeller.label(examples, index)
        probabilities, calibrated = labeller.probabilities(systems, index)
        files = [f"{note}." for note in examples.notes]
        files += repeated_patients([report.patient_id for report in examples.reports])
        notes = [*labeller.left_out, *files, *_seen(recipe, examples, systems), *_notes(recipe, systems), *calibrated]
        failed = {k: out_of_reach for k in systems if k != "rules"} if out_of_reach.any() else {}
        if labeller.student:
            batch = student_labels(recipe, examples, index)
            known = {**systems, "student": batch.values}
            systems = {k: known[k] for k in recipe.eval.stages if k in known}
            if batch.probabilities is not None:
                probabilities = {**probabilities, "student": batch.probabilities}
            failed["student"] = np.array([bool(e) for e in batch.errors or [None] * len(examples)])
        keep = [i for i, scored in enumerate(examples.scored) if scored]
        bundles.append(
            EvalInput(
                gold=examples.labels[:, keep],
                systems={TITLES[k]: v[:, keep] for k, v in systems.items()},
                findings=recipe.findings.only(keep),
                format_errors={TITLES[k]: rows for k, rows in failed.items()},
                lengths=count_tokens(examples.texts),
                ids=[r.study_id for r in examples.reports],
                texts=examples.texts,
                probabilities={TITLES[k]: p[:, keep] for k, p in probabilities.items()},
                notes=notes,
                protocol="presence" if examples.presence else recipe.eval.protocol,
                gold_source=examples.source,
                baseline="SFT" if "sft" in systems else None,
            )
        )
    return bundles


def _seen(recipe: Recipe, examples: Examples, systems: Iterable[str]) -> list[str]:
    """A note where stages were trained on test reports: splits were named, or changed, after it."""
    digests, found = [text_digest(text) for text in examples.texts], []
    for name in (s for s in systems if s in TITLES):
        seen = trained_on(Stage(recipe, "reward" if name == "best_of_k" else name).dir)
        if n := sum(digest in seen for digest in digests):
            found.append(f"{TITLES[name]} on {n}")
    return [f"Trained on some of these {len(examples)} reports: {', '.join(found)}; train again."] if found else []


def _notes(recipe: Recipe, systems: dict[str, LabelArray]) -> list[str]:
    notes = []
    if "best_of_k" in systems:
        k = recipe.preferences.num_samples
        notes.append(f"best of K: of the SFT policy's greedy answer and {k} samples, the one the reward model prefers.")
    if "sft_gold" in systems:
        notes.append("SFT + gold: SFT continued on the gold that the preferences were made from.")
    if {"ppo", "dpo"} & set(systems):
        notes.append(
            "PPO and DPO learnt from preferences that hold expert knowledge which the weak labels lack: "
            f"a gain over SFT is a gain of both. One seed ({recipe.seed})."
        )
    return notes


class StageLabeler:
    """All stages of a run on one base, each labelled under its own adapter."""

    def __init__(self, recipe: Recipe, console: Console) -> None:
        self.recipe, self.console = recipe, console
        trained = [s for s in ("sft", "sft_gold", "dpo", "ppo", "reward") if Stage(recipe, s).finished]
        trained += ["student"] if has_student(recipe) else []
        # A stage of an earlier SFT beside this one would be compared with what it never started from.
        outdated = [s for s in trained if changed(recipe, s)]
        self.left_out = [f"{stale(recipe, tuple(PARENTS))}; until then the tables leave them out."] if outdated else []
        self.student = "student" in recipe.eval.stages and "student" in trained and "student" not in outdated
        self.stages = [s for s in trained if s not in (*outdated, "reward", "student")]
        self.wanted = [
            s
            for s in recipe.eval.stages
            if s in ("rules", *self.stages) or (s == "best_of_k" and "reward" in trained and "reward" not in outdated)
        ]
        self._setup: Setup | None = None

    @property
    def setup(self) -> Setup:
        """The base with every stage's adapter, loaded when a prediction has to be made."""
        if self._setup is None:
            backbone = load_base(self.recipe.model, for_training=False, packed="best_of_k" in self.wanted)
            for name in [*self.stages, *(["reward"] if "best_of_k" in self.wanted else [])]:
                load_adapter(backbone, Stage(self.recipe, name).dir, name, trainable=False)
            for_inference(backbone)
            self._setup = Setup(self.recipe, backbone)
        return self._setup

    def label(self, examples: Examples, index: int) -> tuple[dict[str, LabelArray], np.ndarray]:
        """Labels per stage and which reports the model cannot read whole (bool ``[n]``)."""
        folder = self.recipe.run_dir / "predictions" / str(index)
        folder.mkdir(parents=True, exist_ok=True)
        rules = rule_labels(examples.texts, self.recipe)
        reports = hashlib.sha256("\0".join(examples.texts).encode()).hexdigest()[:16]
        systems: dict[str, LabelArray] = {}
        too_long = np.zeros(len(examples), dtype=bool)
        for name in self.wanted:
            if name == "rules":
                systems[name] = rules
                continue
            source = Stage(self.recipe, "reward" if name == "best_of_k" else name).dir
            model = self.recipe.model
            mark = f"{fingerprint_of(source)} {fingerprint_of(Stage(self.recipe, 'sft').dir)} {reports} "
            mark += f"{model.max_length} {model.dtype} {model.load_in_4bit}"
            if name == "best_of_k":
                drawn = self.recipe.preferences
                mark += f" {drawn.num_samples} {drawn.temperature} {self.recipe.seed}"
            kept, confidence = folder / f"{name}.csv", folder / f"{name}.npy"
            seal, unread = folder / f"{name}.fingerprint", folder / f"{name}.too_long.npy"
            complete = kept.is_file() and unread.is_file() and (confidence.is_file() or name == "best_of_k")
            if complete and seal.is_file() and seal.read_text(encoding="utf-8") == mark:
                systems[name] = read_labels(kept, self.recipe.findings).values
                too_long |= np.load(unread)
                continue
            self.console.print(
                f"labelling {len(examples)} reports of {examples.source} with {TITLES[name]}", highlight=False
            )
            fits, bodies = self._fitting(examples)
            too_long |= ~fits
            np.save(unread, ~fits)
            values = np.full((len(examples), len(self.recipe.findings)), 3, dtype=np.int8)
            rows = np.flatnonzero(fits).tolist()
            texts = [examples.texts[i] for i in rows]
            if name == "best_of_k":
                values[rows] = self._best_of_k(texts)
            else:
                decoded = self.decode(name, [bodies[i] for i in rows], rules[rows])
                values[rows] = decoded.values
                log_p = np.full((*values.shape, 4), np.nan, dtype=np.float32)
                log_p[rows] = log_probabilities(decoded.logits, decoded.values, self.recipe.findings)
                np.save(confidence, log_p)
            systems[name] = values
            ids = [r.study_id for r in examples.reports]
            write_labels(kept, LabelTable(self.recipe.findings, ids, values, np.ones(len(self.recipe.findings), bool)))
            seal.write_text(mark, encoding="utf-8")
        return systems, too_long

    def decode(self, name: str, bodies: Sequence[Sequence[int]], drafts: LabelArray) -> Decoded:
        """Greedy decisions of the stage ``name``."""
        with role(self.setup.backbone.model, name):
            self.setup.decoder.refresh()
            return self.setup.decoder.decode(bodies, drafts)

    def probabilities(self, systems: Iterable[str], index: int) -> tuple[dict[str, np.ndarray], list[str]]:
        """Float32 ``[n, F, 4]`` of the stages that were labelled (NaN where a report was not read), calibrated where
        litechex calibrate has been run, and a note on which are."""
        found, notes = {}, []
        for name in (s for s in systems if s in self.stages):
            log_p = np.load(self.recipe.run_dir / "predictions" / str(index) / f"{name}.npy")
            folder = Stage(self.recipe, name).dir
            made = Calibration.load(folder)
            if made is None:
                notes.append(f"Probabilities of {TITLES[name]}: not calibrated (litechex calibrate does it).")
            elif made.fingerprint != fingerprint_of(folder):
                notes.append(f"Probabilities of {TITLES[name]}: not calibrated; its {FILE} is of another adapter.")
            else:
                log_p = tempered(log_p, made.temperatures)
                notes.append(f"Probabilities of {TITLES[name]}: {made.describe()}.")
            found[name] = np.exp(log_p)
        return found, notes

    def _fitting(self, examples: Examples) -> tuple[np.ndarray, Sequence[list[int]]]:
        setup = self.setup
        room = self.recipe.model.max_length - len(setup.prompt.prefix_ids) - setup.template.max_answer_length
        bodies = setup.prompt.body_ids(examples.texts)
        return np.array([len(b) <= room for b in bodies]), bodies

    def _best_of_k(self, texts: list[str]) -> LabelArray:
        """The SFT policy's greedy answer and samples, the one that the reward model prefers."""
        from lite_chex.train.preferences import sample_answers

        with role(self.setup.backbone.model, "sft"):
            samples = sample_answers(self.setup, texts, self.console, "sampling (best of K)", self.recipe.seed + 9000)
        answers = np.concatenate([samples.greedy[:, None], samples.sampled], axis=1)
        return answers[np.arange(len(texts)), self.rewards(texts, answers).argmax(axis=1)]

    def rewards(self, texts: list[str], answers: LabelArray) -> np.ndarray:
        """The reward model's score of each answer: int8 ``[n, K, F] -> float32 [n, K]``."""
        import torch

        from lite_chex.decode import packed
        from lite_chex.train.reward import reading, trained_pooling

        setup, backbone, section = self.setup, self.setup.backbone, self.recipe.reward
        folder = Stage(self.recipe, "reward").dir
        head, pooling = read_score(folder).to(backbone.device), trained_pooling(folder, self.recipe)
        prompts, found = setup.prompt.prompt_ids(texts), []
        with role(backbone.model, "reward"), torch.inference_mode():
            for start in range(0, len(texts), section.per_device_train_batch_size):
                part = slice(start, start + section.per_device_train_batch_size)
                batch = packed.pack(
                    prompts[part], list(answers[part]), setup.template, backbone.tokenizer.pad_token_id, backbone.device
                )
                hidden = packed.hidden_states(backbone.trunk, batch)
                read = reading(hidden, batch, lambda h: h @ head.T, self.recipe.findings, pooling, setup.decoder.weight)
                found.append(read.scores.sum(-1).cpu().numpy())
        return np.concatenate(found).reshape(answers.shape[:2])
