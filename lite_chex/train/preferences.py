"""Preference pairs from the SFT policy's own answers, ranked by a stated clinical error score against gold.

Gold stands in for experts here; pairs that people made (``data.preference_pairs``) are added as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lite_chex.data.preferences import AnswerGroup, read_pairs, write_pairs
from lite_chex.data.records import Report
from lite_chex.data.splits import normalised_text, report_keys
from lite_chex.decode.template import build_template
from lite_chex.errors import UserError
from lite_chex.findings import SKIP, Certainty, LabelArray
from lite_chex.model.adapters import for_inference, load_adapter
from lite_chex.model.backbone import load_base, load_tokenizer
from lite_chex.prompt import PromptEncoder
from lite_chex.train.examples import (
    Examples,
    check_splits,
    error_score,
    labelled_reports,
    left_to_later,
    load_split,
    print_notes,
    print_rare_normal,
    rule_labels,
    single_edits,
)
from lite_chex.train.lineage import record_pairs
from lite_chex.train.progress import steps
from lite_chex.train.run import PAIRS_FILE, Stage, seed_everything
from lite_chex.train.setup import Setup, gumbel

if TYPE_CHECKING:
    from rich.console import Console

    from lite_chex.recipe import Recipe

CHUNK = 64


@dataclass(frozen=True)
class Samples:
    """Answers of the policy: greedy int8 ``[n, F]``, sampled int8 ``[n, K, F]``, greedy logits ``[n, F, 4]``."""

    greedy: LabelArray
    sampled: LabelArray
    logits: np.ndarray


def sample_answers(setup: Setup, texts: list[str], console: Console, title: str, seed: int) -> Samples:
    """Greedy answers and ``preferences.num_samples`` samples per report, reproducible from the seed."""
    section = setup.recipe.preferences
    drafts = rule_labels(texts, setup.recipe)
    bodies = setup.prompt.body_ids(texts)
    greedy, sampled, logits = [], [], []
    setup.decoder.refresh()
    with steps(console, title, len(texts)) as bar:
        for start in range(0, len(texts), CHUNK):
            rows = slice(start, start + CHUNK)
            first = setup.decoder.decode(bodies[rows], drafts[rows], settle=False)
            greedy.append(first.values)
            logits.append(first.logits)
            drawn = []
            for k in range(section.num_samples):
                noise = gumbel(first.logits.shape, seed, start, k)
                drawn.append(
                    setup.decoder.decode(
                        bodies[rows], first.values, noise=noise, temperature=section.temperature
                    ).values
                )
            sampled.append(np.stack(drawn, axis=1))
            bar.advance(to=min(start + CHUNK, len(texts)))
    return Samples(np.concatenate(greedy), np.concatenate(sampled), np.concatenate(logits))


def make_preferences(recipe: Recipe, console: Console, *, source_stage: str = "sft") -> Path:
    """Sample, rank, and write ``preferences.jsonl`` into the run.

    Raises:
        UserError: if the run has no SFT stage or the recipe names no preference source.
    """
    findings = recipe.findings
    out = recipe.run_dir / PAIRS_FILE
    groups: list[AnswerGroup] = []
    check_splits(recipe)
    people = [g for path in recipe.data.preference_pairs for g in _people(recipe, Path(path), console)]
    parts = load_split(recipe, "preference")
    if parts:
        folder = Stage(recipe, source_stage).require("sampling preferences")
        seed_everything(recipe.seed)
        backbone = load_base(recipe.model, for_training=False)
        load_adapter(backbone, folder, "default", trainable=False)
        for_inference(backbone)
        setup = Setup(recipe, backbone)
        print_notes(parts, console)
        print_rare_normal(parts, recipe, console)
        for index, part in enumerate(parts):
            part, too_long = setup.within_length(part)
            if too_long:
                console.print(f"{part.source}: {too_long} reports longer than model.max_length left out")
            samples = sample_answers(
                setup, part.texts, console, f"sampling ({part.source})", recipe.seed + 1000 + index
            )
            rng = np.random.default_rng([recipe.seed, index, 31])
            made = [_group(part, i, samples, recipe, rng) for i in range(len(part))]
            groups += [g for g in made if g.pairs]
            _say(console, part, samples, made)
    if people:
        console.print(f"pairs that people made: {sum(len(g.pairs) for g in people)} of {len(people)} reports")
    groups += people
    if not groups:
        raise UserError("data.preference: no pair could be made; name a source with gold labels or preference_pairs")
    count = write_pairs(out, groups, findings)
    record_pairs(recipe, sampled=bool(parts))
    console.print(f"{count} pairs of {len(groups)} reports -> {out}")
    return out


def run_pairs(recipe: Recipe, console: Console) -> list[AnswerGroup]:
    """The pairs that the run has, with the patients of ``data.preference``; says where some that people made since are
    not among them.

    Raises:
        UserError: if a file of pairs is missing or wrong, or holds reports that stages are chosen or tested on.
    """
    path = recipe.run_dir / PAIRS_FILE
    check_splits(recipe)
    made = read_pairs(path, recipe.findings)
    known = {_whose(g) for g in made}
    sources = recipe.data.preference
    patients = {normalised_text(r.text): r.patient_id for s in sources for r in labelled_reports(s, recipe).reports}
    for group in made:
        group.patient_id = patients.get(normalised_text(group.report))
    groups = _apart(recipe, made, str(path), "run litechex preferences again", console)
    for file in recipe.data.preference_pairs:
        missing = sum(_whose(g) not in known for g in _people(recipe, Path(file), console))
        if missing:
            console.print(
                f"data.preference_pairs: of {file} {missing} reports are not in {path}, which is older; "
                "litechex preferences makes it again",
                style="yellow",
                highlight=False,
                markup=False,
            )
    return groups


def _people(recipe: Recipe, path: Path, console: Console) -> list[AnswerGroup]:
    """Pairs that people made, without those on reports that stages are chosen or tested on, or that do not fit.

    Raises:
        UserError: if the file is wrong, or has such reports and the recipe does not say to leave them out.
    """
    given = read_pairs(path, recipe.findings)
    apart = _apart(recipe, given, f"data.preference_pairs: {path}", "take them out", console)
    tokenizer = load_tokenizer(recipe.model.model_name_or_path, recipe.model.trust_remote_code)
    prompt = PromptEncoder(tokenizer, recipe.findings)
    room = recipe.model.max_length - len(prompt.prefix_ids) - build_template(prompt).max_answer_length
    bodies = prompt.body_ids([g.report for g in apart])
    fitting = [g for g, body in zip(apart, bodies, strict=True) if len(body) <= room]
    if too_long := len(apart) - len(fitting):
        said = f"{path}: {too_long} reports longer than model.max_length left out"
        console.print(said, highlight=False, markup=False)
    return fitting


def _apart(recipe: Recipe, groups: list[AnswerGroup], what: str, way_out: str, console: Console) -> list[AnswerGroup]:
    """The groups without those of patients and texts that stages are chosen or tested on, as the recipe is now."""
    held_out = [*recipe.data.validation, *recipe.data.test]
    later = left_to_later(recipe, "preference") or {
        key for source in held_out for report in labelled_reports(source, recipe).reports for key in report_keys(report)
    }
    apart = [g for g in groups if later.isdisjoint(report_keys(Report(0, g.study_id, g.report, g.patient_id)))]
    if shared := len(groups) - len(apart):
        said = f"{what}: {shared} of its {len(groups)} reports are validation or test reports"
        if recipe.data.shared == "refuse":
            raise UserError(f"{said}; {way_out}, or set data.shared: leave_out")
        console.print(f"{said}: left out", style="yellow", highlight=False, markup=False)
    return apart


def _whose(group: AnswerGroup) -> tuple[str, str, str]:
    """As :func:`read_pairs` tells groups apart, but for the id: the same report, judged by the same."""
    return normalised_text(group.report), group.source, group.annotator


def _group(part: Examples, row: int, samples: Samples, recipe: Recipe, rng: np.random.Generator) -> AnswerGroup:
    """One report's answers (greedy, samples, gold, single-cell edits of gold) and their ranked pairs."""
    findings, section = recipe.findings, recipe.preferences
    report, gold = part.reports[row], part.labels[row]
    group = AnswerGroup(report.study_id, report.text, source="gold", annotator=part.source)
    group.add(samples.greedy[row])
    for answer in samples.sampled[row]:
        group.add(answer)
    right = corrected(samples.greedy[row], samples.logits[row], gold, part.presence)
    right = findings.consistent(right)
    said = len(group.answers)  # by the policy itself
    gold_index = group.add(right) if section.include_gold else -1
    if section.include_gold and not part.presence and (gold != SKIP).all():
        group.gold = gold_index  # else some of its cells are the policy's own
    said = max(said, gold_index + 1)
    own = np.concatenate([samples.greedy[row][None], samples.sampled[row]])
    for edit in single_edits(right, findings, section.num_edits, rng, own):
        group.add(edit)
    costs = error_score(
        gold,
        group.array,
        missed=section.missed,
        hallucinated=section.hallucinated,
        wrong_certainty=section.wrong_certainty,
        presence=part.presence,
    )
    # An edit is only ever worse than gold: preferred to an answer with more errors, its one wrong cell, where
    # the policy was right, would be taught as better.
    pairs = [
        (i, j) for i in range(said) for j in range(len(costs)) if costs[i] < costs[j] and (j < said or i == gold_index)
    ]
    if len(pairs) > section.max_pairs_per_report:
        kept = sorted(rng.permutation(len(pairs))[: section.max_pairs_per_report].tolist())
        pairs = [pairs[k] for k in kept]
    group.pairs = pairs
    return group


def corrected(answer: LabelArray, logits: np.ndarray, gold: LabelArray, presence: bool) -> LabelArray:
    """The answer as an expert would correct it: gold where gold is known, the policy's own cell elsewhere.

    Presence codes only tell positive from not: a coded finding becomes positive; one that is not coded and
    was answered positive becomes the likelier of negative and absent.
    """
    if not presence:
        return np.where(gold == SKIP, answer, gold).astype(np.int8)
    likelier = np.where(
        logits[:, Certainty.NEGATIVE] > logits[:, Certainty.ABSENT], Certainty.NEGATIVE, Certainty.ABSENT
    )
    fixed = np.where((gold == Certainty.POSITIVE) & (answer != Certainty.UNCERTAIN), Certainty.POSITIVE, answer)
    wrong = (gold != SKIP) & (gold != Certainty.POSITIVE) & (answer == Certainty.POSITIVE)
    return np.where(wrong, likelier, fixed).astype(np.int8)


def _say(console: Console, part: Examples, samples: Samples, made: list[AnswerGroup]) -> None:
    same = float(np.mean([(s == s[0]).all() and (s[0] == g).all() for s, g in zip(samples.sampled, samples.greedy)]))
    pairs = sum(len(g.pairs) for g in made)
    console.print(
        f"{part.source}: {len(part)} reports, {pairs} pairs; for {same:.0%} of the reports all samples were equal",
        highlight=False,
    )
