"""Preference pairs: JSON lines in TRL's format, and the groups of answers that training packs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lite_chex.data.files import atomic_path
from lite_chex.data.records import Report
from lite_chex.data.splits import connected_groups, normalised_text
from lite_chex.errors import UserError
from lite_chex.findings import FindingSet, LabelArray
from lite_chex.prompt import report_of, user_message


@dataclass
class AnswerGroup:
    """Distinct answers to one report and which is preferred: answers int8 ``[K, F]``, pairs of (better, worse).

    gold: the answer that is gold in every cell, where there is one. patient_id: where it is known; not in the file.
    """

    study_id: str
    report: str
    answers: list[tuple[int, ...]] = field(default_factory=list)
    pairs: list[tuple[int, int]] = field(default_factory=list)
    source: str = "gold"
    annotator: str = ""
    gold: int | None = None
    patient_id: str | None = None

    def add(self, answer: Sequence[int] | LabelArray) -> int:
        """Index of an answer, added where it is new."""
        key = tuple(int(v) for v in answer)
        if key not in self.answers:
            self.answers.append(key)
        return self.answers.index(key)

    @property
    def array(self) -> LabelArray:
        return np.array(self.answers, dtype=np.int8)


def write_pairs(path: Path, groups: Iterable[AnswerGroup], findings: FindingSet) -> int:
    """Write all pairs (prompt, chosen, rejected, study_id, source, annotator; ``gold``: true where chosen is the gold
    answer); returns how many."""
    count = 0
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        for group in groups:
            prompt = user_message(findings, group.report)
            for better, worse in group.pairs:
                row: dict[str, object] = {
                    "prompt": prompt,
                    "chosen": findings.to_json(group.answers[better]),
                    "rejected": findings.to_json(group.answers[worse]),
                    "study_id": group.study_id,
                    "source": group.source,
                    "annotator": group.annotator,
                }
                if better == group.gold:
                    row["gold"] = True
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")
                count += 1
    return count


def read_pairs(path: Path, findings: FindingSet) -> list[AnswerGroup]:
    """Read pairs, ours or people's, and group them by report and by who preferred.

    Raises:
        UserError: naming file, row and key of the first wrong row.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such file of preference pairs")
    groups: dict[tuple[str, ...], AnswerGroup] = {}
    with path.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                report = report_of(row["prompt"])
            except (ValueError, KeyError, TypeError, AttributeError):
                raise UserError(
                    f'{path}, row {number}: not a JSON object with a "prompt" that holds a report'
                ) from None
            study = str(row.get("study_id", number))
            who = (str(row.get("source", "human")), str(row.get("annotator", "")))
            key = (study, normalised_text(report), *who)
            group = groups.setdefault(key, AnswerGroup(study, report, source=who[0], annotator=who[1]))
            pair = []
            for side in ("chosen", "rejected"):
                labels = findings.from_json(row.get(side) or "")
                if labels is None:
                    raise UserError(
                        f'{path}, row {number}, key "{side}": not an answer of these {len(findings)} findings '
                        "(one JSON object, each positive, negative, uncertain or absent)"
                    )
                pair.append(group.add(findings.consistent(labels)))
            if row.get("gold") is True:
                group.gold = pair[0]
            if pair[0] != pair[1]:
                group.pairs.append((pair[0], pair[1]))
    return [g for g in groups.values() if g.pairs]


def split_groups(
    groups: Sequence[AnswerGroup], fraction: float, seed: int
) -> tuple[list[AnswerGroup], list[AnswerGroup]]:
    """Hold out a fraction of the reports, by patient and text: train, held out."""
    ordered = sorted(groups, key=lambda g: normalised_text(g.report))
    together = connected_groups([Report(i, g.study_id, g.report, g.patient_id) for i, g in enumerate(ordered)])
    order = np.random.default_rng([seed, 77]).permutation(len(together))
    held = {id(ordered[i]) for k in order[: max(1, round(fraction * len(together)))] for i in together[k]}
    return [g for g in groups if id(g) not in held], [g for g in groups if id(g) in held]
