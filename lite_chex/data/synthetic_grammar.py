"""The grammar of synthetic reports: statements that know what they mean, and drafts made of them.

Gold labels follow from the statements that were chosen, never from reading the text. Each statement
speaks of findings that no other one speaks of, save for one that settles an earlier one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from lite_chex.data import synthetic_phrases as P
from lite_chex.findings import CHEXPERT14, NO_FINDING, Certainty, LabelArray

Mark = tuple[str, str]
"""A finding and ``p``, ``n`` or ``u``."""
CERTAINTY = {"p": Certainty.POSITIVE, "n": Certainty.NEGATIVE, "u": Certainty.UNCERTAIN}


@dataclass(frozen=True)
class Statement:
    text: str
    marks: tuple[Mark, ...] = ()
    veto: bool = False  # an abnormality outside the findings
    bars: tuple[str, ...] = ()  # findings that may not be present beside it ("the lungs are clear")
    hard: bool = False


@dataclass
class Draft:
    """A report under construction; ``labels`` holds what its statements say so far."""

    head: list[Statement] = field(default_factory=list)
    body: list[Statement] = field(default_factory=list)
    tail: list[Statement] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    veto: bool = False
    barred: set[str] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.head) + len(self.body) + len(self.tail)

    def add(self, new: Statement, part: str = "body", settles: bool = False) -> bool:
        """Take the statement unless it speaks of a finding already spoken of, or contradicts another one."""
        if not settles and any(f in self.labels for f, _ in new.marks):
            return False
        if any(self.labels.get(f, "n") != "n" for f in new.bars):
            return False
        if any(f in self.barred and c != "n" for f, c in new.marks):
            return False
        if any(new.text == s.text for s in (*self.head, *self.body, *self.tail)):
            return False
        self.labels.update(new.marks)
        self.veto |= new.veto
        self.barred.update(new.bars)
        getattr(self, part).append(new)
        return True

    def gold(self) -> LabelArray:
        """The labels, No Finding last."""
        values = np.full(len(CHEXPERT14), Certainty.ABSENT, dtype=np.int8)
        for finding, certainty in self.labels.items():
            values[CHEXPERT14.index(finding)] = CERTAINTY[certainty]
        if not self.veto and not CHEXPERT14.vetoed(values):
            values[CHEXPERT14.index(NO_FINDING)] = Certainty.POSITIVE
        return values


# How often a sentence about one finding is drawn, per (positive, negative, uncertain).
_WEIGHTS: dict[str, tuple[float, float, float]] = {
    P.EC: (6, 1, 6), P.CM: (10, 2, 7), P.LO: (6, 2, 5), P.LL: (6, 3, 5), P.ED: (6, 3, 5), P.CO: (6, 2, 5),
    P.PN: (5, 3, 5), P.AT: (6, 4, 4), P.PX: (5, 2, 5), P.PE: (8, 2, 5), P.PO: (5, 4, 4), P.FX: (7, 3, 7),
    P.SD: (9, 6, 6),
}  # fmt: skip
_SINGLE = [((f, c), w) for f, ws in _WEIGHTS.items() for c, w in zip("pnu", ws)]
_GENERIC = {
    "p": (P.POSITIVE, P.HARD_POSITIVE),
    "n": (P.NEGATIVE, P.HARD_NEGATIVE),
    "u": (P.UNCERTAIN, P.HARD_UNCERTAIN),
}
_HARD_SHARE = 0.22


def _frame(rng: random.Random, frames: Sequence[str], skewed: bool) -> str:
    """Any frame, or, skewed, the first ones more often: some wording must recur for experts' answers to teach it."""
    return frames[int(len(frames) * rng.random() ** (1.5 if skewed else 1.0))]


def _weighted(rng: random.Random, items: Sequence[tuple[Mark, float]]) -> Mark:
    point = rng.random() * sum(w for _, w in items)
    for item, weight in items:
        point -= weight
        if point < 0:
            return item
    return items[-1][0]


@dataclass(frozen=True)
class Noun:
    article: str
    text: str
    plural: bool

    def fill(self, frame: str, **more: str) -> str:
        with_article = f"{self.article} {self.text}" if self.article else self.text
        words = ("are", "have", "do") if self.plural else ("is", "has", "does")
        verbs = dict(zip(("is", "has", "do"), words))
        return sentence_case(frame.format(np=self.text, anp=with_article, **verbs, **more))


def sentence_case(text: str) -> str:
    text = " ".join(text.split())
    return text[:1].upper() + text[1:]


def noun_phrase(rng: random.Random, finding: str, modified: bool) -> Noun:
    """A noun phrase; ``modified`` adds size and place (what is denied is named plainly)."""
    kind, _, raw = rng.choice(P.NOUNS[finding]).partition(":")
    text = raw.format(side=rng.choice(P.SIDES) if modified or rng.random() < 0.3 else "")
    if modified and P.SIZES[finding] and rng.random() < 0.4 and "focal" not in text:
        text = f"{rng.choice(P.SIZES[finding])} {text}"
    if modified and finding in P.LOCATED and "{side}" not in raw and "lobe" not in raw and rng.random() < 0.4:
        text += rng.choice(P.BASES)
    if kind not in ("a", "an"):
        return Noun("", text, kind == "s")
    return Noun("an" if text[0] in "aeiou" else "a", text, False)


def _single(rng: random.Random, finding: str, certainty: str, hard: bool) -> Statement:
    """One sentence about one finding."""
    generic = _GENERIC[certainty][hard]
    own = (P.HARD if hard else P.EASY).get((finding, certainty), ())
    only_own = finding == P.SD  # devices are put in and taken out, not confirmed and excluded
    share = 0.55 if finding in (P.EC, P.CM) and not hard else 0.3
    frame = _frame(rng, own if own and (only_own or rng.random() < share) else generic, skewed=hard)
    bars = (*P.BARS.get(frame, ()), *_denied((finding,) if certainty == "n" else ()))
    text = noun_phrase(rng, finding, modified=certainty != "n").fill(frame)
    return Statement(text, ((finding, certainty),), bars=bars, hard=hard)


def _denied(findings: Collection[str]) -> tuple[str, ...]:
    """What cannot be present where these are denied: no consolidation without an airspace opacity."""
    return (P.CO, P.PN) if P.LO in findings else ()


def _join(words: Sequence[str], conjunction: str) -> str:
    if len(words) <= 2:
        return f" {conjunction} ".join(words)
    return f"{', '.join(words[:-1])} {conjunction} {words[-1]}"


def _free(rng: random.Random, draft: Draft, among: Collection[str], n: int) -> list[str]:
    rest = [f for f in among if f not in draft.labels]
    return [rest.pop(rng.randrange(len(rest))) for _ in range(min(n, len(rest)))]


def _add_single(rng: random.Random, draft: Draft) -> bool:
    finding, certainty = _weighted(rng, _SINGLE)
    return draft.add(_single(rng, finding, certainty, rng.random() < _HARD_SHARE))


_LIST_POOL = (P.PX, P.PX, P.PE, P.PE, P.CO, P.CO, P.LO, P.ED, P.PN, P.LL, P.AT, P.PO, P.FX)


def _listed(rng: random.Random, draft: Draft) -> tuple[list[str], list[str]]:
    pool = list(dict.fromkeys(rng.choice(_LIST_POOL) for _ in range(5)))
    findings = _free(rng, draft, pool, 2 + (rng.random() < 0.45) + (rng.random() < 0.1))
    return findings, [rng.choice(P.LISTED[f]) for f in findings]


def _add_negative_list(rng: random.Random, draft: Draft) -> bool:
    findings, words = _listed(rng, draft)
    if len(findings) < 2:
        return False
    hard = rng.random() < 0.12
    frame = rng.choice(P.HARD_NEGATIVE_LISTS if hard else P.NEGATIVE_LISTS)
    text = sentence_case(frame.format(list=_join(words, "and" if frame.startswith("{list}") else "or")))
    return draft.add(Statement(text, tuple((f, "n") for f in findings), bars=_denied(findings), hard=hard))


def _add_mixed_list(rng: random.Random, draft: Draft) -> bool:
    findings, words = _listed(rng, draft)
    other = _free(rng, draft, [f for f in P.NOUNS if f not in findings and f != P.SD], 1)
    if not findings or not other:
        return False
    words, findings = words[:2], findings[:2]
    text = noun_phrase(rng, other[0], modified=True).fill(rng.choice(P.MIXED_LISTS), list=_join(words, "or"))
    if other[0] in _denied(findings):
        return False
    marks = ((other[0], "p"), *((f, "n") for f in findings))
    return draft.add(Statement(text, marks, bars=_denied(findings)))


def _add_pair(rng: random.Random, draft: Draft) -> bool:
    pair = _free(rng, draft, (P.LO, P.LL, P.ED, P.CO, P.PN, P.AT, P.PE, P.PO, P.PX), 2)
    if len(pair) < 2:
        return False
    frames, certainties = rng.choice(((P.PAIRS_POSITIVE, "pp"), (P.PAIRS_UNCERTAIN, "uu"), (P.PAIRS_SPLIT, "pu")))
    first, second = (noun_phrase(rng, f, modified=True) for f in pair)
    frame = rng.choice(frames)
    text = first.fill(frame, other=second.text)
    return draft.add(Statement(text, tuple(zip(pair, certainties))))


def _add_opacity(rng: random.Random, draft: Draft) -> bool:
    settled = rng.random() < 0.35
    cause = rng.choice((P.AT, P.PN, P.ED, P.CO) if not settled else (P.PN, P.AT, P.ED))
    frame = rng.choice(P.OPACITY_SETTLED if settled else P.OPACITY_EXPLAINED)
    noun = next(n for n in iter(lambda: noun_phrase(rng, cause, modified=False), None) if "lobe" not in n.text)
    text = noun.fill(frame, opacity=rng.choice(P.OPACITIES))
    return draft.add(Statement(text, ((P.LO, "p"), (cause, "p" if settled else "u"))))


def _add_special(rng: random.Random, draft: Draft) -> bool:
    text, codes = rng.choice(P.SPECIAL_MARKS)
    return draft.add(Statement(text, tuple((P.CODES[code[:2]], code[2]) for code in codes.split())))


def _add_settled(rng: random.Random, draft: Draft) -> bool:
    """A statement and, at the end, another that settles it differently."""
    found = _free(rng, draft, [f for f in P.NOUNS if f not in (P.SD, P.CM)], 1)
    before, after = rng.choice(("up", "un", "un", "pn", "np", "pu", "up"))
    if not found or found[0] in draft.barred:
        return False
    noun = noun_phrase(rng, found[0], modified=False)
    frame = rng.choice(_GENERIC[before][0])
    first = Statement(noun.fill(frame), ((found[0], before),))
    last = Statement(noun.fill(rng.choice(P.SETTLED[after])), ((found[0], after),), hard=True)
    return draft.add(first) and draft.add(last, "tail", settles=True)


def _add_normal(rng: random.Random, draft: Draft) -> bool:
    finding = rng.choice((P.EC, P.CM, P.CM, P.LO, P.LO, P.PE))
    if rng.random() < 0.3:
        return _add_special(rng, draft)
    return draft.add(_single(rng, finding, "n", hard=rng.random() < _HARD_SHARE / 2))


def _add_filler(rng: random.Random, draft: Draft) -> bool:
    text = rng.choice(P.NEUTRAL)
    summary = text.startswith("No acute")
    bars = tuple(P.NOUNS) if summary else tuple(P.BARS.get(text, ()))
    return draft.add(Statement(text, bars=bars), "tail" if summary else "body")


def _add_veto(rng: random.Random, draft: Draft) -> bool:
    return draft.add(Statement(rng.choice(P.VETOING), veto=True))


def _add_no_mention(rng: random.Random, draft: Draft) -> bool:
    """Indication or recommendation: names a finding and says nothing about it."""
    frames, part = rng.choice(((P.HISTORY, "head"), (P.RECOMMEND, "tail")))
    finding = rng.choice([f for f in P.NOUNS if f not in (P.SD, P.EC, P.CM)])
    return draft.add(Statement(noun_phrase(rng, finding, modified=False).fill(rng.choice(frames)), hard=True), part)


def _add_comparison(rng: random.Random, draft: Draft) -> bool:
    return draft.add(Statement(rng.choice(P.COMPARED)), "head")


_Adder = Callable[[random.Random, Draft], bool]
_NORMAL_MIX: tuple[tuple[_Adder, int], ...] = (
    (_add_normal, 40), (_add_negative_list, 34), (_add_filler, 12), (_add_comparison, 4), (_add_no_mention, 4),
)  # fmt: skip
_ABNORMAL_MIX: tuple[tuple[_Adder, int], ...] = (
    (_add_single, 54), (_add_negative_list, 8), (_add_mixed_list, 6), (_add_pair, 6), (_add_opacity, 5),
    (_add_special, 2), (_add_settled, 6), (_add_normal, 8), (_add_filler, 3), (_add_veto, 4), (_add_comparison, 3),
    (_add_no_mention, 3),
)  # fmt: skip


def draft_report(rng: random.Random, sentences: int) -> Draft:
    mix = _NORMAL_MIX if rng.random() < 0.17 else _ABNORMAL_MIX
    adders = [adder for adder, weight in mix for _ in range(weight)]
    draft = Draft()
    for _ in range(sentences * 8):
        if len(draft) >= sentences:
            break
        rng.choice(adders)(rng, draft)
    if not draft.labels:
        _add_negative_list(rng, draft)
    return draft
