"""Judgements as files: preferences for training, gold labels, the reader study, everything as JSONL."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lite_chex.annotate.agreement import by_item
from lite_chex.annotate.items import Item
from lite_chex.annotate.store import SKIP, Judgement, Store
from lite_chex.data.files import atomic_path
from lite_chex.data.labels import write_labels
from lite_chex.data.records import LabelTable
from lite_chex.errors import UserError
from lite_chex.findings import CERTAINTY_WORDS, FindingSet, LabelArray, findings_option
from lite_chex.findings import SKIP as NOT_SCORED
from lite_chex.prompt import user_message
from lite_chex.wording import plural

REVIEW_HEADER = ("reader", "study_id", "system", "missed", "hallucinated", "wrong_certainty", "format")


@dataclass(frozen=True)
class Preference:
    """One row of a preferences file (TRL's format, and where it comes from)."""

    prompt: str
    chosen: str
    rejected: str
    study_id: str
    source: str
    annotator: str


def preferences(store: Store) -> list[Preference]:
    """What the comparisons say, as pairs.

    A verdict left or right is one pair. A corrected cell makes an answer better, whatever the verdict: the
    preferred answer with its corrections is preferred to itself without them; after a tie or "both wrong"
    that holds for each of the two. A tie alone says nothing that eq. 2 could use.
    """
    items = store.items("compare")
    rows: list[Preference] = []
    for judgement in store.judgements("compare"):
        item = items[judgement.item]
        findings = FindingSet(item.finding_set, tuple(json.loads(item.answers[0].text)))
        prompt = user_message(findings, item.report)
        for chosen, rejected in _pairs(judgement, findings):
            rows.append(Preference(prompt, chosen, rejected, item.study_id, "human", judgement.annotator))
    return rows


def _pairs(judgement: Judgement, findings: FindingSet) -> Iterator[tuple[str, str]]:
    if judgement.verdict == SKIP:
        return
    answers = {side: judgement.detail[side]["answer"] for side in ("left", "right")}
    verdict = judgement.verdict
    if verdict in answers:
        other = answers["right" if verdict == "left" else "left"]
        yield answers[verdict], other
        answers = {verdict: answers[verdict]}
    for answer in answers.values():
        corrected = _corrected(answer, judgement.detail["corrections"], findings)
        if corrected != answer:
            yield corrected, answer


def _corrected(answer: str, corrections: Mapping[str, str], findings: FindingSet) -> str:
    words = {**json.loads(answer), **corrections}
    labels = np.array([CERTAINTY_WORDS.index(words[name]) for name in findings.names], dtype=np.int8)
    return findings.to_json(findings.consistent(labels))


def write_preferences(store: Store, path: Path) -> int:
    """Write :func:`preferences` as JSONL; returns the number of rows."""
    return _write_jsonl(path, [asdict(row) for row in preferences(store)])


def gold_labels(store: Store, findings: FindingSet) -> LabelTable:
    """Gold labels of all studies that have any.

    An adjudicated study has the adjudicator's labels. Else, of annotators' labels, a cell has the value all
    agree on, and ``x`` (not scored) where they differ. Else there are only cells corrected while comparing,
    and, where the annotator said so, those in which both answers agreed; the rest is ``x``. Judgements of
    another finding set are left out, which the table's warnings say.

    Raises:
        UserError: if all labels are of another finding set, or one study's are of two report texts.
    """
    items = store.items()
    judged = [j for j in store.judgements() if j.task != "review" and j.verdict != SKIP]
    ours = [j for j in judged if items[j.item].finding_set == findings.name]
    if judged and not ours:
        other = items[judged[0].item].finding_set
        raise UserError(f"{store.path}: holds labels of the findings {other}; give {findings_option(other)}")
    _require_one_text(store.path, items, ours)
    compared = _votes("compare", ours, items, findings)
    gold = {study: findings.consistent(_cells(votes)) for study, votes in compared.items()}
    gold = {study: values for study, values in gold.items() if (values != NOT_SCORED).any()}
    for task in ("label", "adjudicate"):
        gold |= {study: _whole(votes) for study, votes in _votes(task, ours, items, findings).items()}
    ids = sorted(gold)
    values = np.array([gold[i] for i in ids], dtype=np.int8).reshape(len(ids), len(findings))
    left_out = len({j.item for j in judged}) - len({j.item for j in ours})
    warnings = [f"{plural(left_out, 'judged item')} of other findings left out"] if left_out else []
    return LabelTable(findings, ids, values, np.ones(len(findings), dtype=bool), _id_column(ours), warnings)


def write_gold(store: Store, path: Path, findings: FindingSet) -> LabelTable:
    """Write :func:`gold_labels` as a label file, and return them."""
    table = gold_labels(store, findings)
    write_labels(path, table)
    return table


def _require_one_text(path: Path, items: Mapping[str, Item], judgements: Sequence[Judgement]) -> None:
    """Refuse to merge two studies whose reports only share their ids (two files with the rows 0, 1, 2, say)."""
    texts: dict[str, str] = {}
    for judgement in judgements:
        item = items[judgement.item]
        if texts.setdefault(item.study_id, item.report) != item.report:
            raise UserError(
                f'{path}: the study "{item.study_id}" has judgements on two different report texts; judge each '
                "reports file into a --store of its own"
            )


def _id_column(judgements: Sequence[Judgement]) -> str:
    """The name of the reports' id column, where the judgements know one."""
    known = {str(j.versions["id_column"]) for j in judgements if "id_column" in j.versions}
    return known.pop() if len(known) == 1 else "study_id"


def _votes(
    task: str, judgements: Sequence[Judgement], items: Mapping[str, Item], findings: FindingSet
) -> dict[str, list[LabelArray]]:
    """study -> each annotator's labels of it in one task."""
    found: dict[str, list[LabelArray]] = {}
    for key, given in by_item([j for j in judgements if j.task == task]).items():
        vote = _correction_vote if task == "compare" else _label_vote
        found.setdefault(items[key].study_id, []).extend(vote(j, findings) for j in given.values())
    return found


def _label_vote(judgement: Judgement, findings: FindingSet) -> LabelArray:
    return _vector([None if word == "x" else word for word in judgement.detail["labels"]])


def _correction_vote(judgement: Judgement, findings: FindingSet) -> LabelArray:
    left, right = (json.loads(judgement.detail[side]["answer"]) for side in ("left", "right"))
    known = {
        name: left[name] for name in findings.names if judgement.detail["agreed_right"] and left[name] == right[name]
    }
    known |= judgement.detail["corrections"]
    return _vector([known.get(name) for name in findings.names])


def _vector(words: Sequence[str | None]) -> LabelArray:
    return np.array([NOT_SCORED if w is None else CERTAINTY_WORDS.index(w) for w in words], dtype=np.int8)


def _whole(votes: list[LabelArray]) -> LabelArray:
    """The cells on which all agree; an annotator's own ``x`` is a vote."""
    stacked = np.stack(votes)
    return np.where((stacked == stacked[0]).all(axis=0), stacked[0], NOT_SCORED).astype(np.int8)


def _cells(votes: list[LabelArray]) -> LabelArray:
    """The same for single corrected cells, where ``x`` only means that somebody said nothing."""
    merged = np.full_like(votes[0], NOT_SCORED)
    for cell in range(len(merged)):
        said = {int(v[cell]) for v in votes} - {int(NOT_SCORED)}
        if len(said) == 1:
            merged[cell] = said.pop()
    return merged


def review_rows(store: Store) -> list[dict[str, str | int]]:
    """The reader study: a row per reader, study and system, errors counted; an unusable answer is all wrong.

    Raises:
        UserError: if one study's reviews are of two report texts.
    """
    items = store.items("review")
    judgements = [j for j in store.judgements("review") if j.verdict != SKIP]
    _require_one_text(store.path, items, judgements)
    # An answer that changed between two runs is another item: of one reader the latest reading of a system counts.
    rows: dict[tuple[str, str, str], dict[str, str | int]] = {}
    for judgement in judgements:
        marks = Counter(judgement.detail["marks"])
        broken = judgement.detail["format"]
        cells = len(judgement.detail["marks"])
        counts = {name: 0 if broken else marks[name] for name in REVIEW_HEADER[3:6]}
        reader, study, system = judgement.annotator, items[judgement.item].study_id, judgement.detail["system"]
        who = {"reader": reader, "study_id": study, "system": system}
        rows[reader, study, system] = {**who, **counts, "format": cells if broken else 0}
    return list(rows.values())


def write_review(store: Store, path: Path) -> int:
    """Write :func:`review_rows` as the CSV that ``eval --reader-study`` reads; returns the number of rows."""
    rows = review_rows(store)
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, REVIEW_HEADER, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return len(rows)


def write_judgements(store: Store, path: Path) -> int:
    """Write every standing judgement as JSONL, with its report's id, seed, versions and times."""
    items = store.items()
    rows = [{"study_id": items[j.item].study_id, **asdict(j)} for j in store.judgements()]
    return _write_jsonl(path, rows)


def win_rates(store: Store) -> dict[str, tuple[float, int]]:
    """Per system ``(share of comparisons won, comparisons)``; a tie or "both wrong" is half a win for each."""
    won: Counter[str] = Counter()
    judged: Counter[str] = Counter()
    for judgement in store.judgements("compare"):
        if judgement.verdict == SKIP:
            continue
        for side in ("left", "right"):
            share = 1.0 if judgement.verdict == side else 0.0 if judgement.verdict in ("left", "right") else 0.5
            for system in judgement.detail[side]["systems"]:
                judged[system] += 1
                won[system] += share  # type: ignore[assignment]
    return {name: (won[name] / n, n) for name, n in sorted(judged.items())}


def _write_jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> int:
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(dict(row), ensure_ascii=False) + "\n")
    return len(rows)
