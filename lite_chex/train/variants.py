"""Variants of training reports for the labels that hardly occur: sentences about other findings.

Most cells (finding x certainty) of a corpus are rare: a thousand reports hold two doubtful fractures. Drawing
those two more often teaches two sentences. But doubt, denial and assertion are worded alike for every finding, so
a sentence that doubts one finding becomes one that doubts another by exchanging the phrase. The rule labeler finds
the phrases and labels the variant. The cells are served in turn.

No Finding is another matter: what is abnormal outside the findings has no list of names, and one such sentence turns
it. A quarter of the variants are reports that gain or lose theirs.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lite_chex.findings import NO_FINDING, Certainty
from lite_chex.labelers.rule_text import sentences
from lite_chex.labelers.rules import Mention, RuleLabeler

_MENTIONED = (Certainty.POSITIVE, Certainty.NEGATIVE, Certainty.UNCERTAIN)
_TRIES = 8
_MOST_EXCHANGES = 4
_NO_FINDING_SHARE = 0.25
_VERB = re.compile(r"\b(?:is|are|was|were|has|have|appears?|remains?)\b", re.I)


@dataclass(frozen=True)
class _Frame:
    """A sentence of a report without its phrase."""

    before: str
    after: str


def variants(texts: Sequence[str], rules: RuleLabeler, count: int, seed: int) -> list[str]:
    """Up to ``count`` reports, each one of ``texts`` with sentences exchanged, added or left out.

    A quarter turn No Finding, as far as the corpus allows. Each other report takes one to four sentences, for cells
    that are served in turn, in an order drawn anew every round. A cell's sentence is one of the corpus of that
    certainty, whatever its finding, with a phrase of the cell's finding; every sentence and every phrase of the
    corpus is as likely as any other, however often it occurs. A report's own sentences on that finding give way to
    it. A sentence that the rules do not read as the cell is drawn again, and after 8 draws left out.
    """
    rng = np.random.default_rng([seed, 78])
    found = _turned(texts, rules, round(_NO_FINDING_SHARE * count), rng) if rules.findings.has_no_finding else []
    read = [[m for m in rules.explain(text) if m.finding != NO_FINDING] for text in texts]
    noun = {m.phrase.lower(): _is_noun(m, rules) for mentions in read for m in mentions}
    frames: dict[Certainty, dict[_Frame, None]] = defaultdict(dict)
    phrases: dict[str, dict[str, None]] = defaultdict(dict)
    for text, mentions in zip(texts, read, strict=True):
        for m in (m for m in mentions if noun[m.phrase.lower()]):
            frames[m.certainty][_Frame(text[m.sentence[0] : m.span[0]], text[m.span[1] : m.sentence[1]])] = None
            phrases[m.finding][m.phrase.lower()] = None
    choices = {key: list(found) for key, found in frames.items()}
    words = {name: list(found) for name, found in phrases.items()}
    cells = [(name, c) for name in rules.findings.names if name in words for c in _MENTIONED if choices.get(c)]
    turn: list[int] = []
    for _ in range(count - len(found) if cells else 0):
        text, exchanged = texts[int(rng.integers(len(texts)))], False
        for _ in range(rng.integers(1, _MOST_EXCHANGES + 1)):
            turn = turn or rng.permutation(len(cells)).tolist()
            finding, certainty = cells[turn.pop()]
            own = [m for m in rules.explain(text) if m.finding == finding]
            for _ in range(_TRIES):
                frame = choices[certainty][rng.integers(len(choices[certainty]))]
                phrase = words[finding][rng.integers(len(words[finding]))]
                sentence = f"{frame.before}{phrase if frame.before else phrase.capitalize()}{frame.after}"
                candidate = _placed(text, own, sentence, rng)
                if rules.label([candidate]).values[0, rules.findings.index(finding)] == certainty:
                    text, exchanged = candidate, True
                    break
        if exchanged:
            found.append(text)
    return found


def _turned(texts: Sequence[str], rules: RuleLabeler, count: int, rng: np.random.Generator) -> list[str]:
    """Reports that turn their No Finding: half lose all their sentences on abnormalities outside the findings, half
    are normal and gain one of the corpus. Each still speaks of a finding."""
    gained: dict[str, None] = {}
    normal, lost = [], []
    for text in texts:
        mentions = rules.explain(text)
        places = list(dict.fromkeys(m.sentence for m in mentions if m.finding == NO_FINDING))
        named = {m.sentence for m in mentions if m.finding != NO_FINDING}
        gained.update(dict.fromkeys(text[start:end] for start, end in places if (start, end) not in named))
        rest = _replaced(text, places)
        if named - set(places) and rules.label([rest]).values[0, -1] == Certainty.POSITIVE:
            normal.append(rest)
            if places:
                lost.append(rest)
    pool = list(gained)
    if not pool or not normal:
        return []
    found = [lost[rng.integers(len(lost))] for _ in range(count // 2 if lost else 0)]
    while len(found) < count:
        text, sentence = normal[rng.integers(len(normal))], pool[rng.integers(len(pool))]
        at = rng.choice([s.start for s in sentences(text)])
        found.append(f"{text[:at]}{sentence.rstrip(' .')}. {text[at:]}")
    return found


def _is_noun(mention: Mention, rules: RuleLabeler) -> bool:
    """True for a phrase that names the finding ("effusion"), False for one that says something of its own accord
    ("heart is enlarged", "lungs are clear")."""
    alone = [m for m in rules.explain(mention.phrase) if m.finding != NO_FINDING]
    named = [(m.finding, m.certainty) for m in alone] == [(mention.finding, Certainty.POSITIVE)]
    return named and not _VERB.search(mention.phrase)


def _placed(text: str, own: Sequence[Mention], sentence: str, rng: np.random.Generator) -> str:
    """The report with the sentence in place of its own on the finding, else before or after all it says."""
    places = list(dict.fromkeys(m.sentence for m in own))
    if not places:
        whole = sentence.rstrip(" .") + "."
        return f"{whole} {text}" if rng.random() < 0.5 else f"{text.rstrip()} {whole}"
    at = int(rng.integers(len(places)))
    return _replaced(text, places, at, sentence)


def _replaced(text: str, places: Sequence[tuple[int, int]], at: int = -1, sentence: str = "") -> str:
    """The report without its sentences at ``places``; ``sentence`` stands in the place of number ``at``."""
    for i, (start, end) in reversed(list(enumerate(places))):
        rest = text[end:]
        text = text[:start] + (sentence + rest if i == at else rest.lstrip(" .;"))
    return text
