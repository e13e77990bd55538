"""A CheXpert-style rule labeler: phrases, scopes of negation and doubt, and a precedence between statements.

The method is that of the CheXpert labeler (Irvin et al. 2019): find mentions, classify each by the words around
it, aggregate. The rules are our own and follow a written labelling guideline; :meth:`RuleLabeler.explain` shows
for every decision its phrase, its cue and where they stand.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lite_chex.errors import UserError
from lite_chex.findings import ALIASES, NO_FINDING, PAPER13, Certainty, FindingSet, LabelArray
from lite_chex.labelers import rule_phrases, rule_text
from lite_chex.labelers.base import LabelBatch
from lite_chex.labelers.rule_lexicon import Lexicon
from lite_chex.labelers.rule_scopes import Statement
from lite_chex.labelers.rule_sentences import SentenceRules
from lite_chex.labelers.rule_spelling import Speller

_MEMO = 50_000


@dataclass(frozen=True)
class Mention:
    """One statement of a report on one finding.

    span and sentence are character ranges of the report as given; phrase and cue its own words there.
    An abnormality outside the findings, which forbids No Finding, is a mention of No Finding as absent.
    """

    finding: str
    certainty: Certainty
    phrase: str
    cue: str | None
    span: tuple[int, int]
    sentence: tuple[int, int]


class RuleLabeler:
    """Labels reports by rules alone: no model, one core, thousands of reports a second.

    Args:
        findings: the findings to label. A name that the built-in vocabulary does not know needs phrases, else
            the name itself is the phrase.
        phrases: plain words per finding; None takes the set's own. They are added to a built-in finding's
            own, and are the whole list of any other finding.

    Raises:
        UserError: if phrases name a finding that is not in the set, or do not begin with a word.
    """

    name = "rules"

    def __init__(self, findings: FindingSet = PAPER13, phrases: Mapping[str, Sequence[str]] | None = None) -> None:
        self.findings = findings
        given = findings.phrases if phrases is None else phrases
        self._phrases = {k: tuple(v) for k, v in given.items()}
        self._build()

    def _build(self) -> None:
        lexicon: dict[str, list[str]] = {k: list(v) for k, v in rule_phrases.FINDING_PHRASES.items()}
        known = {name: builtin for builtin, name in self.findings.aliases.items() if builtin in lexicon}
        own = {name: known.get(name, ALIASES.get(name, name)) for name in self.findings.names}
        self._named = {builtin: name for name, builtin in own.items()}
        added: dict[str, list[str]] = {}
        for finding, words in self._phrases.items():
            if finding not in self.findings.names or finding == NO_FINDING:
                raise UserError(
                    f'phrases: "{finding}" is not a finding of the set "{self.findings.name}" that has phrases'
                )
            bad = [w for w in words if not re.match(r"\s*[a-z0-9]", w, re.I)]
            if bad:
                raise UserError(f'phrases of "{finding}": a phrase must begin with a letter or a digit, not {bad[0]!r}')
            added.setdefault(own[finding], []).extend(_plain(w) for w in words)
        for finding, name in self._named.items():
            if finding != NO_FINDING and finding not in lexicon and not added.get(finding):
                added[finding] = [_plain(name)]
        for finding in lexicon:
            lexicon[finding] += added.pop(finding, [])
        self._rules = SentenceRules(Lexicon(lexicon))
        # The user's findings are read apart, so that they change nothing about the others.
        self._own_rules = SentenceRules(Lexicon(lexicon, added)) if added else None
        self._own = frozenset(added)
        self._speller = Speller(
            w for words in self._phrases.values() for phrase in words for w in phrase.lower().split()
        )
        self._memo: dict[str, list[Statement]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"findings": self.findings, "_phrases": self._phrases}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._build()

    def fingerprint(self) -> str:
        """Of the rules' code and vocabulary, the findings and the phrases."""
        named = sorted(self._named.items())
        digest = hashlib.sha256(f"{self.findings.names}|{named}|{sorted(self._phrases.items())}".encode())
        for source in sorted(Path(__file__).parent.glob("rule*.py")):
            digest.update(source.read_bytes())
        return f"rules-{digest.hexdigest()[:16]}"

    def label(self, reports: Sequence[str]) -> LabelBatch:
        """Label non-empty report texts, in order."""
        values = np.full((len(reports), len(self.findings)), Certainty.ABSENT, dtype=np.int8)
        for row, report in enumerate(reports):
            self._decide([s for _, statements in self._read(report) for s in statements], values[row])
            if self.findings.has_no_finding and not report.strip():
                values[row, -1] = Certainty.ABSENT
        return LabelBatch(self.findings.consistent(values))

    def explain(self, report: str) -> list[Mention]:
        """Every statement of the report on one of the findings, in order."""
        mentions = []
        for sentence, statements in self._read(report):
            for s in statements:
                name = self._named.get(s.finding)
                certainty = s.certainty
                if s.finding == rule_phrases.OTHER and s.certainty is not Certainty.NEGATIVE:
                    name, certainty = self._named.get(NO_FINDING), Certainty.ABSENT
                if name is None:
                    continue
                start, end = sentence.start + s.start, min(sentence.start + s.end, sentence.end)
                cue = report[sentence.start + s.cue[0] : sentence.start + s.cue[1]] if s.cue else None
                mentions.append(
                    Mention(name, certainty, report[start:end], cue, (start, end), (sentence.start, sentence.end))
                )
        return sorted(mentions, key=lambda m: m.span)

    def _read(self, report: str) -> list[tuple[rule_text.Sentence, list[Statement]]]:
        read = []
        for sentence in rule_text.sentences(report):
            statements = self._memo.get(sentence.text)
            if statements is None:
                if len(self._memo) >= _MEMO:
                    self._memo.clear()
                mended = self._speller.mend(sentence.text)
                statements = self._rules.read(mended.text)
                if self._own_rules is not None:
                    statements += [s for s in self._own_rules.read(mended.text) if s.finding in self._own]
                if mended.shifts:
                    statements = [s.moved(mended.place) for s in statements]
                self._memo[sentence.text] = statements
            read.append((sentence, statements))
        return read

    def _decide(self, statements: list[Statement], row: LabelArray) -> None:
        """Aggregate: positive > uncertain > negative, unless a later statement settles it."""
        by_finding: dict[str, list[Statement]] = {}
        for s in statements:
            by_finding.setdefault(s.finding, []).append(s)
        abnormal = False
        for finding, said in by_finding.items():
            settled = _settle(said)
            if settled is not Certainty.NEGATIVE and finding != rule_phrases.SD:
                abnormal = True
            name = self._named.get(finding)
            if name is not None:
                row[self.findings.index(name)] = settled
        if self.findings.has_no_finding:
            row[-1] = Certainty.ABSENT if abnormal else Certainty.POSITIVE


def _settle(said: list[Statement]) -> Certainty:
    """Positive > uncertain > negative, but a doubt is settled by a later denial of the same thing.

    Lung Opacity is many things (a doubtful scar is not settled by "no infiltrate"), so is Edema: there the word must
    agree. "No tuberculosis" settles no pneumonia.
    """
    certainties = [s.certainty for s in said]
    if Certainty.POSITIVE in certainties:
        return Certainty.POSITIVE
    doubts = [s for s in said if s.certainty is Certainty.UNCERTAIN]
    if doubts:
        later = said[said.index(doubts[-1]) + 1 :]
        denials = [s for s in later if s.certainty is Certainty.NEGATIVE and s.word and not s.partial]
        settled = any(all(_same(d, denial) for d in doubts) for denial in denials)
        return Certainty.NEGATIVE if settled else Certainty.UNCERTAIN
    return Certainty.NEGATIVE


def _same(doubt: Statement, denial: Statement) -> bool:
    if {doubt.side, denial.side} == {"left", "right"}:
        return False
    if (doubt.word, denial.word) == ("old", "acute"):
        return False  # "possible old fracture. No acute fracture"
    apart = doubt.finding in (rule_phrases.LO, rule_phrases.ED) or denial.word.startswith(("tuber", "tb"))
    return not apart or doubt.word == denial.word


def _plain(words: str) -> str:
    """A user's plain words as a pattern: folded, any blanks between, an optional plural."""
    parts = [re.escape(w) for w in words.lower().split()]
    return " ".join(parts) + ("(?:s|es)?" if len(parts[-1]) > 2 else "")
