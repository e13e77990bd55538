"""From a recipe's sources to arrays: report texts, gold or weak labels, rule drafts, token ids."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from lite_chex.data.labels import read_labels
from lite_chex.data.readers import iter_reports
from lite_chex.data.records import Report
from lite_chex.data.splits import check_disjoint
from lite_chex.errors import UserError
from lite_chex.findings import SKIP, Certainty, FindingSet, LabelArray

if TYPE_CHECKING:
    from lite_chex.recipe import Recipe, Source


@dataclass
class Examples:
    """Reports with labels, one row each.

    labels: int8 ``[n, F]`` (Certainty, or SKIP where nothing is known). presence: the labels only tell
    positive (coded) from everything else (absent = not coded). source: where the labels come from.
    scored: bool ``[F]``, the findings that the label file has.
    """

    reports: list[Report]
    labels: LabelArray
    scored: np.ndarray
    presence: bool
    source: str

    def __len__(self) -> int:
        return len(self.reports)

    @property
    def texts(self) -> list[str]:
        return [r.text for r in self.reports]

    @property
    def protocol(self) -> Literal["macro", "presence"]:
        """How the evaluator scores answers against these labels."""
        return "presence" if self.presence else "macro"

    def subset(self, rows: Sequence[int]) -> Examples:
        index = list(rows)
        return Examples([self.reports[i] for i in index], self.labels[index], self.scored, self.presence, self.source)


def rule_labels(texts: Sequence[str], recipe: Recipe) -> LabelArray:
    """The rule labeler's labels: weak labels for SFT, drafts for the decoder."""
    from lite_chex.labelers.rules import RuleLabeler

    if not texts:
        return np.empty((0, len(recipe.findings)), dtype=np.int8)
    return RuleLabeler(recipe.findings).label(list(texts)).values


def load_source(source: Source, recipe: Recipe) -> Examples:
    """Read one source; empty and unreadable reports and reports without labels are left out.

    Raises:
        UserError: if a file, column or code is wrong, or nothing is left.
    """
    findings = recipe.findings
    path = Path(source.reports)
    if not path.is_file():
        raise UserError(f"data: there is no file {path}")
    seen: set[str] = set()
    reports = []
    for report in iter_reports(path, source.text_column, source.id_column):
        if report.error is None and report.text.strip() and report.study_id not in seen:
            seen.add(report.study_id)
            reports.append(report)
    if source.labels is None:
        raise UserError(f"data: the source {path} needs labels: 'rules' or a label file")
    if source.labels == "rules":
        labels = rule_labels([r.text for r in reports], recipe)
        scored = np.ones(len(findings), dtype=bool)
        name = "weak labels (rules)"
    else:
        table = read_labels(Path(source.labels), findings, source.id_column, presence=source.presence)
        row_of = {id_: i for i, id_ in enumerate(table.ids)}
        reports = [r for r in reports if r.study_id in row_of]
        labels = table.values[[row_of[r.study_id] for r in reports]]
        scored = table.columns
        if source.presence and findings.has_no_finding:
            scored = scored & np.array([n != "No Finding" for n in findings.names])
        if not source.presence:
            labels = findings.consistent(labels)
        labels = np.where(scored[None], labels, SKIP).astype(np.int8)
        name = f"{'presence codes' if source.presence else 'gold'} ({Path(source.labels).name})"
    if not reports:
        raise UserError(f"data: no report of {path} has text and labels (ids of {source.labels} must match)")
    examples = Examples(reports, labels, scored, source.presence, source.name or name)
    if source.limit and source.limit < len(examples):
        rng = np.random.default_rng([recipe.seed, zlib.crc32(path.name.encode())])
        examples = examples.subset(sorted(rng.permutation(len(examples))[: source.limit].tolist()))
    return examples


def load_split(recipe: Recipe, split: str) -> list[Examples]:
    """All sources of ``train``, ``validation``, ``preference`` or ``test``."""
    return [load_source(source, recipe) for source in getattr(recipe.data, split)]


def check_splits(recipe: Recipe) -> None:
    """Refuse a recipe whose splits share a patient or a report text.

    Raises:
        UserError: naming the two splits.
    """
    splits = {}
    for split in ("train", "validation", "preference", "test"):
        reports: list[Report] = []
        for source in getattr(recipe.data, split):
            path = Path(source.reports)
            if not path.is_file():
                raise UserError(f"data.{split}: there is no file {path}")
            reports += iter_reports(path, source.text_column, source.id_column)
        if reports:
            splits[split] = [r for r in reports if r.error is None and r.text.strip()]
    check_disjoint(splits)


def merge(parts: Sequence[Examples], what: str) -> Examples:
    """One set of several sources with labels of one kind.

    Raises:
        UserError: if there is none.
    """
    if not parts:
        raise UserError(f"data.{what}: the recipe names no source")
    return Examples(
        [r for p in parts for r in p.reports],
        np.concatenate([p.labels for p in parts]),
        np.logical_or.reduce([p.scored for p in parts]),
        any(p.presence for p in parts),
        "; ".join(dict.fromkeys(p.source for p in parts)),
    )


def validation_gold(recipe: Recipe, what: str) -> list[Examples]:
    """The validation split by kind of gold: four certainties first, then presence codes.

    Raises:
        UserError: if there is neither; what: the stage that chooses its checkpoint on it.
    """
    parts = load_split(recipe, "validation")
    kinds = [[p for p in parts if p.presence == presence] for presence in (False, True)]
    if not parts:
        raise UserError(f"data.validation: {what} needs reports with gold to choose its checkpoint on")
    return [merge(kind, "validation") for kind in kinds if kind]


def error_score(
    gold: LabelArray, answers: LabelArray, *, missed: float, hallucinated: float, wrong_certainty: float, presence: bool
) -> np.ndarray:
    """Clinical error score of answers against gold: ``[F], [K, F] -> float [K]``, lower is better.

    Each wrong cell counts: *missed* (gold mentions it, the answer is absent), *hallucinated* (the answer
    mentions it, gold is absent), *wrong certainty* (both mention it, differently). SKIP cells count nothing.
    With presence codes only positive against not-positive counts: a coded finding answered negative or
    absent is missed, one not coded answered positive is hallucinated, an answered ``uncertain`` is left out.
    """
    known = gold != SKIP
    if presence:
        coded = gold == Certainty.POSITIVE
        said = answers == Certainty.POSITIVE
        open_ = answers == Certainty.UNCERTAIN
        miss = known & coded & ~said & ~open_
        extra = known & ~coded & said
        return missed * miss.sum(1) + hallucinated * extra.sum(1)
    gold_mentions, says = gold != Certainty.ABSENT, answers != Certainty.ABSENT
    miss = known & gold_mentions & ~says
    extra = known & ~gold_mentions & says
    differs = known & gold_mentions & says & (answers != gold)
    return missed * miss.sum(1) + hallucinated * extra.sum(1) + wrong_certainty * differs.sum(1)


def single_edits(
    gold: LabelArray, findings: FindingSet, count: int, rng: np.random.Generator, answers: LabelArray | None = None
) -> LabelArray:
    """Answers that differ from a gold answer in one cell (and its No Finding consequence): int8 ``[count, F]``.

    The first half takes over one wrong cell each of the policy's ``answers`` ``[K, F]``, in their order: the
    mistakes that it really makes, one at a time, which is what a reward model has most to learn from. The rest
    is random; every other one changes a finding that gold mentions, where there is one. Most cells are absent:
    edits of any cell alike would nearly all invent a finding, and teach that saying nothing is best.
    """
    free = [i for i, name in enumerate(findings.names) if name != "No Finding"]
    mentioned = [i for i in free if gold[i] != Certainty.ABSENT] or free
    said = [] if answers is None else [(i, int(a[i])) for a in answers for i in free if a[i] != gold[i]]
    changes = list(dict.fromkeys(said))[: count // 2]
    for k in range(count - len(changes)):
        i = int(rng.choice(mentioned if k % 2 == 0 else free))
        changes.append((i, int(rng.choice([c for c in range(4) if c != gold[i]]))))
    edits = []
    for i, value in changes:
        answer = gold.copy()
        answer[i] = value
        edits.append(findings.consistent(answer))
    return np.array(edits, dtype=np.int8).reshape(count, len(findings))
