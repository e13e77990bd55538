"""Puts misspelt key words right ("pneumothroax"), and keeps the way back to the characters that were typed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_WORD = re.compile(r"[a-z]{7,}")
_DECISIVE = (
    "pneumothorax pneumothoraces effusion effusions consolidation consolidations atelectasis atelectatic cardiomegaly "
    "cardiomediastinal mediastinum mediastinal silhouette infiltrate infiltrates opacity opacities opacification "
    "pneumonia fracture fractures enlarged unremarkable congestion pulmonary granuloma emphysema degenerative evidence "
    "without cardiopulmonary thickening scarring interstitial airspace borderline scoliosis tortuous nodules"
)
# Words in their own right that are one letter away from those.
_CORRECT = (
    "enlarge fractured infiltrated infusion infusions effusive pneumonic pneumonias opacified opacifies granulomas "
    "silhouettes silhouetted airspaces evidences consolidating"
)
_KEY_WORDS = tuple(_DECISIVE.split())
_MEMO = 20_000


@dataclass(frozen=True)
class Mended:
    """A folded sentence with misspelt key words put right.

    shifts: (place in the mended text, how far the typed text runs ahead of it from there on).
    """

    text: str
    shifts: tuple[tuple[int, int], ...] = ()

    def place(self, at: int) -> int:
        """Where a character of the mended text stands in the typed one."""
        ahead = 0
        for start, shift in self.shifts:
            if at < start:
                break
            ahead = shift
        return at + ahead


class Speller:
    """Knows the key words, and the words it must leave alone (a user's own phrases)."""

    def __init__(self, keep: Iterable[str] = ()) -> None:
        self._own = {word: word for word in (*_KEY_WORDS, *_CORRECT.split(), *keep)}
        self._known = dict(self._own)

    def mend(self, text: str) -> Mended:
        """Put the key words of a folded sentence right."""
        parts: list[str] = []
        shifts: list[tuple[int, int]] = []
        behind = length = 0
        for match in _WORD.finditer(text):
            word = match.group()
            right = self._known.get(word)
            if right is None:
                if len(self._known) > _MEMO:
                    self._known = dict(self._own)
                right = self._known[word] = _correction(word)
            if right != word:
                parts += [text[behind : match.start()], right]
                length += match.start() - behind + len(right)
                behind = match.end()
                shifts.append((length, behind - length))
        if not parts:
            return Mended(text)
        return Mended("".join([*parts, text[behind:]]), tuple(shifts))


def _correction(word: str) -> str:
    for key in _KEY_WORDS:
        if abs(len(key) - len(word)) <= 1 and word[0] == key[0] and _one_slip(word, key):
            return key
    return word


def _one_slip(word: str, key: str) -> bool:
    """True where the two differ by one letter put in, left out or replaced, or swapped with its neighbour."""
    i = 0
    while i < min(len(word), len(key)) and word[i] == key[i]:
        i += 1
    a, b = word[i:], key[i:]
    if len(a) == len(b):
        return a[1:] == b[1:] or (a[:1] == b[1:2] and a[1:2] == b[:1] and a[2:] == b[2:])
    return a[1:] == b if len(a) > len(b) else a == b[1:]
