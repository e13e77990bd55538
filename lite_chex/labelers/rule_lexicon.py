"""Finds the phrases of :mod:`rule_phrases` and :mod:`rule_cues` in a sentence in one pass over its words.

A regular expression of several hundred alternatives is slow in Python. Every phrase begins with literal
letters, so the phrases are filed under the first three of them, and a word only meets the few that can match.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from itertools import pairwise

from lite_chex.labelers import rule_cues as cues
from lite_chex.labelers import rule_phrases as vocabulary


class Kind(Enum):
    """What a piece of a sentence is to the rules."""

    MENTION = auto()
    SUBJECT = auto()
    STATE = auto()
    NEGATION = auto()
    REMOVAL = auto()
    NEGATION_AFTER = auto()
    UNCERTAIN = auto()
    UNCERTAIN_AFTER = auto()
    IGNORE = auto()
    PSEUDO = auto()
    LINK = auto()
    OR = auto()
    TERMINATOR = auto()
    NOTHING = auto()


@dataclass(frozen=True)
class Item:
    """A phrase or cue found in a sentence; ``names`` are findings, or the one subject or state."""

    kind: Kind
    start: int
    end: int
    names: tuple[str, ...] = ()


_TOKEN = re.compile(r"[a-z0-9]+|\?")
_LITERAL = re.compile(r"[a-z0-9]+|\\\?")


_Buckets = dict[str, list[tuple[re.Pattern[str], Kind, tuple[str, ...]]]]


class Lexicon:
    """Every phrase and cue, filed by its beginning.

    Args:
        own: phrases of findings that a user added. They are found first, also within a longer phrase of ours.
    """

    def __init__(self, phrases: Mapping[str, Sequence[str]], own: Mapping[str, Sequence[str]] | None = None) -> None:
        self._buckets: _Buckets = defaultdict(list)
        for finding, sources in (own or {}).items():
            self._add(sources, Kind.MENTION, finding)
        self._own, self._buckets = self._buckets, defaultdict(list)
        for finding, sources in phrases.items():
            self._add(sources, Kind.MENTION, finding)
        for source, findings in vocabulary.MULTI_PHRASES.items():
            self._add([source], Kind.MENTION, *(f for f in findings if f in phrases))
        self._add(vocabulary.OTHER_PHRASES, Kind.MENTION, vocabulary.OTHER)
        self._add(
            cues.NEGATION_AFTER, Kind.NEGATION_AFTER
        )  # first: "resolved" behind a mention, before "resolved" ahead
        for subject, sources in cues.SUBJECTS.items():
            self._add(sources, Kind.SUBJECT, subject)
        for state, sources in cues.STATES.items():
            self._add(sources, Kind.STATE, state)
        for kind, sources in (
            (Kind.NOTHING, vocabulary.NOT_FINDINGS),
            (Kind.NEGATION, cues.NEGATION),
            (Kind.REMOVAL, cues.REMOVAL),
            (Kind.UNCERTAIN, cues.UNCERTAIN),
            (Kind.UNCERTAIN_AFTER, cues.UNCERTAIN_AFTER),
            (Kind.IGNORE, cues.IGNORE),
            (Kind.PSEUDO, cues.PSEUDO),
            (Kind.LINK, cues.LINKS),
            (Kind.OR, cues.ALTERNATIVES),
            (Kind.TERMINATOR, cues.TERMINATORS),
        ):
            self._add(sources, kind)

    def _add(self, sources: Iterable[str], kind: Kind, *names: str) -> None:
        for source in sources:
            for variant in _unfold(source):
                literal = _LITERAL.match(variant)
                if literal is None:
                    raise ValueError(f"a phrase must begin with a word: {source!r}")
                beginning = literal.group().lstrip("\\")
                rest = variant[literal.end() : literal.end() + 1]
                if rest in ("?", "*", "{"):
                    beginning = beginning[:-1]
                if len(beginning) < 3 and rest not in ("", " ", "/", "\\") and beginning != "?":
                    raise ValueError(f"a phrase must begin with three letters or a whole word: {source!r}")
                ends = "" if variant == r"\?" else r"(?![a-z0-9])"
                pattern = re.compile(variant.replace(" ?", r"[\s\-]*").replace(" ", r"[\s\-]+") + ends)
                self._buckets[beginning[:3]].append((pattern, kind, names))

    def scan(self, text: str) -> list[Item]:
        """The items of a folded sentence from left to right: at each word the longest match, then on behind it."""
        if not self._own:
            return _longest_matches(text, self._buckets, 0, len(text))
        items: list[Item] = []
        behind = 0
        for item in _longest_matches(text, self._own, 0, len(text)):
            items += [*_longest_matches(text, self._buckets, behind, item.start), item]
            behind = item.end
        return items + _longest_matches(text, self._buckets, behind, len(text))


def _longest_matches(text: str, buckets: _Buckets, start: int, end: int) -> list[Item]:
    """The items between two places of the text."""
    items: list[Item] = []
    behind = start
    for token in _TOKEN.finditer(text, start, end):
        at = token.start()
        if at < behind:
            continue
        bucket = buckets.get(token.group()[:3])
        if bucket is None:
            continue
        longest = at
        best: list[Item] = []
        for pattern, kind, names in bucket:
            match = pattern.match(text, at, end)
            if match is not None and match.end() >= longest:
                if match.end() > longest:
                    best, longest = [], match.end()
                best.append(Item(kind, at, longest, names))
        if best:
            items.extend(best)
            behind = longest
    return items


def _unfold(source: str) -> list[str]:
    """Write out a group at the very beginning, so that every variant begins with letters."""
    if not source.startswith("("):
        return [source]
    depth, cuts = 0, []
    for at, character in enumerate(source):
        escaped = at > 0 and source[at - 1] == "\\"
        if character == "(" and not escaped:
            depth += 1
        elif character == ")" and not escaped:
            depth -= 1
        if depth == 1 and character == "|":
            cuts.append(at)
        if depth == 0:
            break
    optional = source[at + 1 : at + 2] == "?"
    rest = source[at + 1 + optional :]
    bounds = [2, *cuts, at]
    heads = [source[a + (i > 0) : b] for i, (a, b) in enumerate(pairwise(bounds))]
    heads[0] = heads[0].lstrip(":")
    heads += [""] if optional else []
    return [variant for head in heads for variant in _unfold(head + rest)]
