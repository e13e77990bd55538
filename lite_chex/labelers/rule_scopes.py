"""Decides whether a sentence asserts, denies or doubts a mention: the cues around it and how far they reach."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from lite_chex.findings import Certainty
from lite_chex.labelers import rule_phrases as vocabulary
from lite_chex.labelers.rule_lexicon import Item, Kind

VERB = (
    r"(?:is|are|was|were|has|have|may|might|could|can|represents?|reflects?|suggests?|appears?|remains?|"
    r"demonstrates?|shows?)"
)
# A comma or a new subject with its own verb starts a clause of its own ...
_NEW_CLAUSE = re.compile(
    rf",\s+(?!or\b|and\b|nor\b)(?=[^,]*?\b{VERB}\b)(?!(?:(?!\b{VERB}\b)[^,])*\b(?:or|and|nor)\b)"
    r"|(?<!and)(?<!or)(?<!the)(?<![,/])\s(?=(?:the )?(?:lungs?|heart|mediastinum|cardiac silhouette|"
    rf"cardiomediastinal silhouette|bony|osseous)\b[^,.]{{0,40}}?\b{VERB}\b)"
    r"|,\s+(?=(?:old|healed|healing|chronic|stable|mild|small|moderate|large|right|left|bilateral) "
    r"(?:(?!(?:or|and|nor)\b)[^,])*\b(?:noted|seen|identified)[\s.]*$)"
)
_PRONOUN = re.compile(r"(?:this|these|it|they)\b")
# ... and a denial also ends where something is plainly described as present ("no effusion, mild atelectasis").
_AS_IT_IS = "stable|unchanged|mild|mildly|minimal|minimally|moderate|persistent|small|tiny|trace|improved|again|there"
_IN_A_LIST = r"(?<!\bor)(?<!nor)(?<!and)(?<!the)(?<!\ba)(?<!\bof)(?<!\bin)(?<!even)(?<!any)(?<!with)(?<!large)(?<!\bto)"
_DESCRIBED = re.compile(
    rf"(?:,|,?\s+and)\s+(?:(?:an?|only|the)\s+)*(?=(?:{_AS_IT_IS})\b)(?![^,;]*,\s*(?:or|nor)\b)"
    r"|\b(?:seen|identified|noted|evident|visuali[sz]ed),\s+(?!and\b|or\b|nor\b|[^;]*\b(?:or|nor)\b)"
    r"|,?\s+and\s+an?\s+(?=(?:old|healed|healing|chronic|large)\b)"
    rf"|{_IN_A_LIST}(?<![,/])\s(?=(?:{_AS_IT_IS})\b)"
    r"|,?\s+and\s+(?=[^,;]*?\b(?:persists?|remains?|(?:is|are|has|have)\s+(?:(?:now|again|still|also|essentially|"
    r"slightly|not|overall|been)\s+)*(?:(?:un)?changed|stable|similar|small|moderate|mild|severe|large|minimal|new|"
    r"increased|decreased|improved|worsened|worse|better|larger|smaller|resolved|cleared|persistent))\b)"
)
_LIST_GAP = re.compile(
    rf"^[\s,/&]*(?:(?:and|or|nor|with|the)\b[\s,/&]*)*(?:(?!(?:{VERB}|of|in|on|at|to|for|no|not|without|either|which|that)\b)[a-z]+"
    r"[\s\-]+){0,2}$"
)
# "has cleared on the left but persists on the right"
_ELSEWHERE = re.compile(r"[^.;]*?\b(?:but|while) (?:persists?|persisting|remains?|remaining) (?:in|on|at)\b")
_APPOSITION = re.compile(r",\s[^,]*\w[^,]*$")  # "opacity, infarct versus pneumonia"
_LOOKALIKE = re.compile(
    r"\b(?:shadows?|structures?|artifacts?|overlap\w*|technique|rotation|vessels?|vasculature|summation|folds?|island)\s*$"
)
_ENDS = re.compile(r"(?<!for)(?<!of)(?<!about)\s*(?:$|[,.;])")
_MASKED = re.compile(
    r"(?:,|opacit\w+|densit\w+|disease)\s*(xxx+)\s+(?:(?:a|the|combination|chronic|subsegmental|focal|mild|minimal|linear|basilar|bibasilar|"
    r"discoid|platelike|small|of|residual|passive|compressive|some|early|developing|associated)\s+){0,3}$"
)
_OLD_FILM = re.compile(
    r"(?:on |in )?(?:the |an? )?(?:old|prior|previous|earlier)\b[^,;]{0,20}"
    r"\b(?:films?|exam|stud|radiograph|images?|ct|x ?ray)"
)
# "suspected mass with obstructive atelectasis"
_CONSEQUENCE = re.compile(
    r"(?<!,) with (?:\w+ )?(?:associated|obstructive|post[ -]?obstructive|resultant|resulting|distal|"
    r"secondary) (?:\w+ ){0,2}$"
)
_CAUSED = ("atelecta", "collaps", "pneumon", "infect")
_SOME_OF = re.compile(
    r"\b(?:most|much|some|part|half|majority) of (?:the |this )?(?:(?!lungs?\b|chest\b|thorax\b)\w+ ){0,3}$"
)
_SAYS = re.compile(rf"[^,]*\b(?:{VERB}|should|cannot|would|must)\b")
_NOW = re.compile(r"\b(?:current|present|today\w*|now|this)\b")
_GIVEN = re.compile(r"(?:given|with|in (?:an?|this|the) (?:\w+ )?patient|in (?:view|light) of)\b")
# "suspected at the apex"
_IN_PLACE = re.compile(
    r"(?:suspected|possible|questioned|questionable) (?:at|in|on|along|within) (?:the )?"
    r"(?:left|right|upper|lower|mid|middle|bi|bases?|apex|apices|lungs?|lingula)"
)
_LOOKS = ("opaci", "densit", "airspace", "air space", "interstit", "reticul", "haz", "increased")
_ADJECTIVES = (
    "possibl",
    "probab",
    "likely",
    "suspect",
    "question",
    "potential",
    "perhaps",
    "presum",
    "borderline",
    "favor",
)
_HEART_AND = re.compile(r"(?:cardiomeg\w+|silhouette|size|enlarge\w+)\b.*\band\b")
_HELD = re.compile(
    r"\s*(?:$|[,.;:)]|(?:present|seen|there|bilateral\w*|today|again|in|at|on|within|and|or|but|given|with|as|although|though|by|based|not)\b)"
)
_STRAIGHT_ON = re.compile(r"^(?:\s+(?!in\b|at\b|on\b|for\b|with\b|but\b|and\b|or\b|by\b|as\b|given\b)\w+){0,4}\s+$")


@dataclass(frozen=True)
class Statement:
    """One finding in one sentence: where its phrase stands, what is said, and the cue that decided it.

    word: the beginning of the phrase; "" where the state of an organ implies the finding.
    side: "left" or "right" where the sentence names just one.
    partial: True where only some are spoken of (large, new, displaced).
    """

    finding: str
    certainty: Certainty
    start: int
    end: int
    cue: tuple[int, int] | None = None
    word: str = ""
    side: str = ""
    partial: bool = False

    def moved(self, place: Callable[[int], int]) -> Statement:
        """The same statement at the places that a mended text's characters really have."""
        cue = (place(self.cue[0]), place(self.cue[1])) if self.cue else None
        return replace(self, start=place(self.start), end=place(self.end), cue=cue)


Verdict = tuple[Certainty, "Item | None"]


def statement(finding: str, start: int, end: int, verdict: Verdict, word: str = "") -> Statement:
    """The statement that a verdict makes on a finding."""
    certainty, cue = verdict
    return Statement(finding, certainty, start, end, (cue.start, cue.end) if cue else None, word)


def _forward(text: str, items: list[Item], at: int) -> Item:
    """A doubt behind one mention that really governs the next ("the opacity is likely atelectasis")."""
    item = items[at]
    if item.kind is Kind.UNCERTAIN_AFTER:
        following = next((i for i in items[at + 1 :] if i.kind is Kind.MENTION), None)
        excluded = text.endswith(("excluded", "ruled out"), item.start, item.end)
        if following is not None and not excluded and _STRAIGHT_ON.match(text[item.end : following.start]):
            return replace(item, kind=Kind.UNCERTAIN)
        if text.startswith(("is", "are"), item.start) and not _HELD.match(text, item.end):
            return replace(item, kind=Kind.LINK)  # "the density is likely a nipple shadow" doubts no density
    return item


class Clause:
    """A sentence's items with the barriers that end scopes."""

    def __init__(self, text: str, items: list[Item]) -> None:
        self.text = text
        self.items = [_forward(text, items, at) for at in range(len(items))]
        self._walls = [i.start for i in items if i.kind is Kind.TERMINATOR]
        self._clauses = [m.end() for m in _NEW_CLAUSE.finditer(text)]
        self._described = [m.end() for m in _DESCRIBED.finditer(text)]
        self._mentions = [i.start for i in items if i.kind in (Kind.MENTION, Kind.SUBJECT)]

    def cut(self, start: int, end: int, denial: bool = False, whole: bool = False) -> bool:
        """True where a scope cannot reach from start to end: a terminator, or a new clause behind what it governs.

        whole: the scope begins with a clause of its own, the next one ("..., this is") is the one that it governs.
        """
        if any(start < wall <= end for wall in self._walls):
            return True
        return any(
            start < clause <= end
            and (any(start < m < clause for m in self._mentions) or (not whole and _PRONOUN.match(self.text, clause)))
            for clause in (self._clauses + self._described if denial else self._clauses)
        )

    def judge(self, index: int) -> Verdict | None:
        """The certainty of the mention at index, and the deciding cue; None where it is no mention at all."""
        item = self.items[index]
        doubt: Item | None = None
        unchanged = False
        cause = self._cause(item)
        for other in reversed(self.items[:index]):
            if other.start >= item.start:
                continue
            kind = other.kind
            end = cause if kind is Kind.UNCERTAIN and other.end <= cause else item.start
            if self.cut(other.end, end, whole=self._of_the_whole(other)):
                if cause < item.start:
                    continue
                break
            if kind is Kind.IGNORE:
                if self._ends_with_comma(other, item):
                    break
                if doubt and self._only_advises(other, doubt):
                    break
                return None
            if kind is Kind.PSEUDO:
                unchanged = "chang" in self.text[other.start : other.end]  # "no change in the opacities or effusion"
                break
            if kind is Kind.NEGATION and self.cut(other.start, item.start, denial=True):
                break
            if kind is Kind.NEGATION or (kind is Kind.REMOVAL and vocabulary.SD in item.names):
                return Certainty.NEGATIVE, other
            if kind is Kind.UNCERTAIN and doubt is None and self._reaches(other, end):
                doubt = other
        after = self._after(index)
        if after is not None:
            if after.kind is Kind.IGNORE:
                return None
            if after.kind not in (Kind.UNCERTAIN_AFTER, Kind.UNCERTAIN):
                old = self.text.startswith(("was", "were"), after.start) and _OLD_FILM.match(self.text)
                if old and not _NOW.search(self.text, after.end):
                    return None  # "the old film was reviewed, and the nodule was not seen"
                rest = _ELSEWHERE.match(self.text, after.end)
                if rest and not any(after.end < at < rest.end() for at in self._mentions):
                    return Certainty.POSITIVE, None
                return Certainty.NEGATIVE, after
            doubt = doubt or after
        doubt = doubt or (None if unchanged else self._alternative(index)) or self._masked(index)
        return (Certainty.UNCERTAIN, doubt) if doubt else (Certainty.POSITIVE, None)

    def _of_the_whole(self, cue: Item) -> bool:
        """ "In the appropriate setting, this is compatible with ...": the condition opens the sentence."""
        opens = not any(m < cue.start for m in self._mentions)
        return (
            opens and cue.kind in (Kind.UNCERTAIN, Kind.UNCERTAIN_AFTER) and self.text.startswith("in the", cue.start)
        )

    def _cause(self, item: Item) -> int:
        """Where the cause ends whose consequence the mention is ("suspected mass with obstructive atelectasis"): doubt
        about the cause holds for both. Without a cause, where the mention begins."""
        cause = self.text.startswith(_CAUSED, item.start) and _CONSEQUENCE.search(self.text, 0, item.start)
        return cause.start() if cause else item.start

    def _ends_with_comma(self, history: Item, item: Item) -> bool:
        """ "Given the history of trauma, rib fractures ...": the history ends at the comma."""
        said = self.text.startswith(("histor", "h/o"), history.start) and _GIVEN.match(self.text)
        return bool(said and "," in self.text[history.end : item.start] and _SAYS.match(self.text, item.end))

    def _only_advises(self, advice: Item, doubt: Item) -> bool:
        """Advice that does not take the doubt behind it back ("recommend CT, as it may represent a nodule")."""
        if not self.text.startswith(("recommend", "correlat"), advice.start):
            return False
        return "," in self.text[advice.end : doubt.start] or self.text.startswith(
            ("may", "might", "could"), doubt.start
        )

    def _reaches(self, cue: Item, end: int) -> bool:
        between = self.text[cue.end : end]
        if self.text.startswith("borderline", cue.start) and _HEART_AND.search(between):
            return False  # "borderline heart size and abnormal interstitial markings"
        if self.text.startswith(_ADJECTIVES, cue.start):
            return "," not in between and not re.search(r"\bwith\b", between)
        return True

    def _after(self, index: int) -> Item | None:
        """A negation or doubt that follows the mention, directly or behind a list that the mention is part of."""
        end = self.items[index].end
        open_list = explained = False
        for other in self.items[index + 1 :]:
            if other.start < end or self.cut(end, other.start):
                if other.start < end:
                    continue
                return None
            gap = self.text[end : other.start]
            if other.kind is Kind.LINK and self.text.startswith(("compat", "consist", "in keep"), other.start):
                explained = True
            if explained and other.kind in (Kind.UNCERTAIN, Kind.UNCERTAIN_AFTER):
                return None  # the doubt is about the explanation
            denies = other.kind is Kind.NEGATION or self.text.startswith("negative", other.start)
            if denies and gap.strip() in (":", "-") and not self.text[other.end :].strip(" .,;"):
                return other  # a form's field: "Effusion: no"
            if other.kind is Kind.UNCERTAIN and _ENDS.match(self.text, other.end) and gap.count(" ") <= 3:
                return other
            if other.kind is Kind.UNCERTAIN and gap == " " and _IN_PLACE.match(self.text, other.start):
                return other
            if other.kind in (Kind.NEGATION_AFTER, Kind.UNCERTAIN_AFTER) or (
                other.kind is Kind.REMOVAL and vocabulary.SD in self.items[index].names
            ):
                if other.kind is Kind.NEGATION_AFTER and _SOME_OF.search(self.text, 0, self.items[index].start):
                    return None
                held = ("," not in gap and not open_list) or self.text.startswith(("if", "which"), other.start)
                return other if gap.count(" ") <= 8 and held else None
            if other.kind is Kind.IGNORE and self.text.startswith(("may be", "may not", "can be"), other.start):
                return other
            if other.kind is Kind.MENTION:
                if not _LIST_GAP.match(gap):
                    return None
                open_list = not re.search(r"\b(?:and|or)\b", gap) and ("," in gap or open_list)
                end = other.end
            elif other.kind in (Kind.NEGATION, Kind.UNCERTAIN, Kind.STATE):
                return None
        return None

    def _alternative(self, index: int) -> Item | None:
        """An "or" or "versus" that offers this mention as one of several explanations, alone or in a list."""
        item = self.items[index]
        group = [i for i in self.items if i.kind is Kind.MENTION]
        for other in self.items:
            if other.kind is not Kind.OR:
                continue
            before = [i for i in group if i.end <= other.start]
            behind = [i for i in group if i.start >= other.end]
            versus = not self.text.startswith(("or", "and"), other.start)
            if item.start < other.start:
                at = len(before) - 1
                if at < 0 or self.cut(item.end, other.start):
                    continue
                gap = self.text[before[at].end : other.start]
                near = len(gap) <= 2 or ((versus or self._near(other, behind)) and len(gap) <= 30)
                if before[at] is item and self.text.startswith(_LOOKS, item.start) and _APPOSITION.match(gap):
                    return None
                while near and before[at].start > item.start:
                    at -= 1
                    if at < 0 or self.text.startswith(_LOOKS, before[at].start):
                        # The list begins behind this, or with a look: "streaky opacities, atelectasis versus scar".
                        return None
                    near = bool(_LIST_GAP.match(self.text[before[at].end : before[at + 1].start]))
                if near:
                    return other
                continue
            beside = (before and other.start - before[-1].end <= 30) or (
                _LOOKALIKE.search(self.text, 0, other.start)  # "nipple shadow versus nodule"
            )
            if (
                beside
                and self._near(other, behind)
                and behind[0].start == item.start
                and not self.cut(other.start, item.start)
            ):
                return other
        return None

    def _near(self, other: Item, behind: list[Item]) -> bool:
        return bool(behind) and behind[0].start - other.end <= 40 and not self.cut(other.end, behind[0].start)

    def _masked(self, index: int) -> Item | None:
        """A masked word between a comma and the mention stood for "likely" ("opacity, XXXX atelectasis")."""
        item = self.items[index]
        mask = _MASKED.search(self.text, 0, item.start)
        if mask is None or not any(i.kind is Kind.MENTION and i.end <= mask.start(1) for i in self.items[:index]):
            return None
        return Item(Kind.UNCERTAIN, mask.start(1), mask.end(1))
