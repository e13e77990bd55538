"""From a recipe's sources to arrays: report texts, gold or weak labels, rule drafts, token ids."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from lite_chex.data.labels import id_column_beside, read_labels
from lite_chex.data.readers import id_column_of, iter_reports, split_name
from lite_chex.data.records import LabelTable, Report
from lite_chex.data.splits import check_disjoint, report_keys
from lite_chex.errors import UserError
from lite_chex.findings import NO_FINDING, SKIP, Certainty, FindingSet, LabelArray

if TYPE_CHECKING:
    from rich.console import Console

    from lite_chex.recipe import Recipe, Source


SPLITS = ("train", "preference", "validation", "test")
"""A report that two of them share stays in the later one, where ``data.shared`` is ``leave_out``."""
NORMAL_AMONG = 2000
"""Training reports that tell how many are normal."""


@dataclass
class Examples:
    """Reports with labels, one row each.

    labels: int8 ``[n, F]`` (Certainty, or SKIP where nothing is known). presence: the labels only tell
    positive (coded) from everything else (absent = not coded). source: where the labels come from.
    scored: bool ``[F]``, the findings that the label file has. notes: what was left out of the files.
    """

    reports: list[Report]
    labels: LabelArray
    scored: np.ndarray
    presence: bool
    source: str
    notes: list[str] = field(default_factory=list)

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
        reports = [self.reports[i] for i in index]
        return Examples(reports, self.labels[index], self.scored, self.presence, self.source, self.notes)


class Labelled(NamedTuple):
    """Reports that have labels, each id once, and their label file (None: the rules label them).

    notes: label rows that found no report, reports under an id that an earlier one has, the file's own warnings.
    """

    reports: list[Report]
    table: LabelTable | None
    notes: list[str]


def rule_labels(texts: Sequence[str], recipe: Recipe) -> LabelArray:
    """The rule labeler's labels: weak labels for SFT, drafts for the decoder."""
    from lite_chex.labelers.rules import RuleLabeler

    if not texts:
        return np.empty((0, len(recipe.findings)), dtype=np.int8)
    return RuleLabeler(recipe.findings).label(list(texts)).values


def source_reports(source: Source) -> Iterator[Report]:
    """The reports of a source that can be read, of its split where it names one.

    Raises:
        UserError: if the file is missing or wrong, or has no row of the split.
    """
    path = _reports_file(source)
    wanted = split_name(source.split)
    splits: set[str] = set()
    for report in iter_reports(path, source.text_column, source.id_column):
        splits.add(report.split or "")
        if report.error is None and report.text.strip() and wanted in (None, report.split):
            yield report
    if wanted and wanted not in splits:
        found = ", ".join(sorted(filter(None, splits))) or "nothing in a column `split`"
        raise UserError(f'data: {path} has no report of the split "{wanted}" (it has {found})')


def labelled_reports(source: Source, recipe: Recipe) -> Labelled:
    """The reports of a source that have labels.

    Raises:
        UserError: if a file, column or code is wrong.
    """
    if source.labels is None:
        raise UserError(f"data: the source {source.reports} needs labels: 'rules' or a label file")
    table, known = None, None
    if source.labels != "rules":
        reports_id = id_column_of(_reports_file(source), source.id_column)
        labels = Path(source.labels)
        table = read_labels(labels, recipe.findings, id_column_beside(labels, reports_id), presence=source.presence)
        scored = (table.values[:, _scored_columns(source, table)] != SKIP).any(1)
        known = {id_ for id_, any_scored in zip(table.ids, scored) if any_scored}
    by_id: dict[str, Report] = {}
    repeated = 0
    for report in source_reports(source):
        if known is None or report.study_id in known:
            repeated += report.study_id in by_id
            by_id.setdefault(report.study_id, report)
    return Labelled(list(by_id.values()), table, _notes(source, table, len(known or ()) - len(by_id), repeated))


def _notes(source: Source, table: LabelTable | None, unmatched: int, repeated: int) -> list[str]:
    reports, notes = Path(source.reports).name, []
    if table is not None:
        labels = Path(str(source.labels)).name
        notes = [f"{labels}: {warning}" for warning in table.warnings]
        if unmatched and source.split is None:  # the rows of other splits find no report here, as they should
            notes.append(f"{labels}: {unmatched:,} of its rows left out, no report of {reports} with text has their id")
    if repeated:
        notes.append(f"{reports}: {repeated:,} of its reports left out, an earlier one has their id")
    return notes


def _scored_columns(source: Source, table: LabelTable) -> np.ndarray:
    """bool ``[F]``: the findings that the label file has; presence codes say nothing of No Finding."""
    if not source.presence:
        return table.columns
    return table.columns & np.array([name != NO_FINDING for name in table.findings.names])


def _reports_file(source: Source) -> Path:
    path = Path(source.reports)
    if not path.is_file():
        raise UserError(f"data: there is no file {path}")
    return path


def load_source(source: Source, recipe: Recipe, taken: Set[tuple[str, str]] = frozenset()) -> Examples:
    """Read one source; empty and unreadable reports, reports without labels and those of a ``taken`` patient or text
    are left out.

    Raises:
        UserError: if a file, column or code is wrong, or nothing is left.
    """
    findings = recipe.findings
    path = Path(source.reports)
    reports, table, notes = labelled_reports(source, recipe)
    if not reports:
        why = "" if table is None else f" (ids of {source.labels} must match)"
        raise UserError(f"data: no report of {path} has text and labels{why}")
    reports = _chosen(reports, source, recipe.seed, taken)
    if not reports:
        raise UserError(f"data: every report of {path} is left to a later split (data.shared)")
    if table is None:
        labels = rule_labels([r.text for r in reports], recipe)
        scored = np.ones(len(findings), dtype=bool)
        name = "weak labels (rules)"
    else:
        row_of = {id_: i for i, id_ in enumerate(table.ids)}
        labels = table.values[[row_of[r.study_id] for r in reports]]
        scored = _scored_columns(source, table)
        if not source.presence:
            labels = findings.consistent(labels)
        labels = np.where(scored[None], labels, SKIP).astype(np.int8)
        name = f"{'presence codes' if source.presence else 'gold'} ({Path(str(source.labels)).name})"
    return Examples(reports, labels, scored, source.presence, source.name or name, notes)


def _chosen(reports: list[Report], source: Source, seed: int, taken: Set[tuple[str, str]]) -> list[Report]:
    """The labelled reports of a source that its split has: none of a ``taken`` patient or text, and within its
    limit."""
    reports = [report for report in reports if taken.isdisjoint(report_keys(report))]
    if source.limit is None or source.limit >= len(reports):
        return reports
    rng = np.random.default_rng([seed, zlib.crc32(Path(source.reports).name.encode())])
    return [reports[i] for i in sorted(rng.permutation(len(reports))[: source.limit].tolist())]


def load_split(recipe: Recipe, split: str) -> list[Examples]:
    """All sources of ``train``, ``validation``, ``preference`` or ``test``, without what the recipe leaves to a later
    split.

    Raises:
        UserError: as load_source, or if nothing is left of a source.
    """
    taken = left_to_later(recipe, split)
    return [load_source(source, recipe, taken) for source in getattr(recipe.data, split)]


def left_to_later(recipe: Recipe, split: str) -> set[tuple[str, str]]:
    """Patients and texts of the splits behind ``split`` that it leaves to them; none unless the recipe says so."""
    taken: set[tuple[str, str]] = set()
    if recipe.data.shared == "refuse":
        return taken
    for later in reversed(SPLITS[SPLITS.index(split) + 1 :]):
        # What a split leaves to one behind it, or beyond its limit, is not in it.
        taken |= {
            key
            for source in getattr(recipe.data, later)
            for report in _chosen(labelled_reports(source, recipe).reports, source, recipe.seed, taken)
            for key in report_keys(report)
        }
    return taken


def check_splits(recipe: Recipe) -> None:
    """Refuse a recipe whose splits share a patient or a report text, unless it leaves such reports out.

    Raises:
        UserError: naming the two splits.
    """
    if recipe.data.shared == "refuse":
        named = {split: getattr(recipe.data, split) for split in SPLITS}
        check_disjoint({k: [r for s in v for r in labelled_reports(s, recipe).reports] for k, v in named.items()})


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
        [note for p in parts for note in p.notes],
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


def print_rare_normal(gold: Sequence[Examples], recipe: Recipe, console: Console) -> None:
    """Warn where No Finding is much rarer in gold than the rules find it among the training reports."""
    known = [p.labels[:, -1] for p in gold if recipe.findings.has_no_finding and not p.presence]
    cells = np.concatenate([column[column != SKIP] for column in known]) if known else np.empty(0)
    texts = [r.text for r in islice(chain.from_iterable(map(source_reports, recipe.data.train)), NORMAL_AMONG)]
    if not texts or not len(cells):
        return
    usual = float((rule_labels(texts, recipe)[:, -1] == Certainty.POSITIVE).mean())
    found = int((cells == Certainty.POSITIVE).sum())
    if usual * len(cells) >= 10 and found < usual * len(cells) / 2:
        console.print(
            f"{NO_FINDING} stands in {found} of {len(cells)} gold reports, and in {usual:.0%} of the training reports "
            "(by the rules): such gold teaches that hardly any report is normal; draw gold as reports come",
            style="yellow",
            highlight=False,
        )


def print_notes(parts: Sequence[Examples], console: Console) -> None:
    """What was left out of the parts' files, each sentence once."""
    for note in dict.fromkeys(note for part in parts for note in part.notes):
        console.print(note, style="yellow", highlight=False, markup=False)


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
