"""Reads what the state of an organ says about a finding: "heart size and mediastinal contours are normal"."""

from __future__ import annotations

import re

from lite_chex.findings import Certainty
from lite_chex.labelers import rule_phrases as vocabulary
from lite_chex.labelers.rule_lexicon import Item, Kind
from lite_chex.labelers.rule_scopes import VERB, Clause, Statement, statement

_LINKING = re.compile(r"\b(?:is|are|was|were|appears?|remains?|within|seems?|demonstrates?|shows?)\b|:")
_JOINED = re.compile(
    rf"^(?:[\s,/&]|and\b|or\b|with\b|the\b|both\b|otherwise\b|xxx\w*)*(?:(?!(?:{VERB}|of|in|to|for|at|no|"
    rf"not)\b)[a-z]+\s+){{0,2}}$"
)
_BARE = ("cardiac", "mediastinal", "pleural", "hilar", "atrial", "bony", "osseous")
_BARE_NEXT = re.compile(r"\s*(?:$|[,./&:;]|(?:and|or|is|are|appears?|xxx\w*|normal (?:in )?(?:width|size))\b)")
_ATTRIBUTE_GAP = re.compile(
    r"^\s*(?:(?:in|of|the|size|and (?:configuration|contour|shape)|contour|caliber|appearance|appearing|"
    r"overall|sized|for|"
    r"transverse|stable|shape|left|right|bilateral|hyperexpanded|hyperinflated|both)\s*)*$"
)
_STATES_JOINED = re.compile(r"^\s*(?:and|but|to|or|/)?\s*$")
_STATE_GAP = re.compile(
    r"^[\s,]*(?:(?:and|to|but|in|size|mildly|slightly|moderately|grossly|otherwise|again|remains|at|the|upper|is|appears|"
    r"likely|probably|for|or|borderline|may|might|could|be)\s*)*$"
)
_STATE_ENDS = re.compile(r"\s*(?:$|[,.;]|(?:in size|compared|since|from|than|and|with|without|but|on)\b)")
_INFLATED = re.compile(r"^[a-z\s]*\b(?:inflated|expanded|aerated) and (?:grossly )?$")
_PLEURA_FREE = re.compile(
    r"\bpleural? (?:(?!disease|thick|plaqu|scar)\w+ )?(?:(?:show|demonstrate)s? no|without) (?:acute |"
    r"significant )*abnormalit\w+"
)
_ASIDE = re.compile(r"\b(?:by|given|due to|secondary to|because of) (?:\w+ ){0,2}$")
_OTHERWISE_CLEAR = re.compile(r"\botherwise,? (?:grossly |essentially )?clear\b")
_STILL_CLEAR = re.compile(r"(?:\bbut|\bwhich|,)\s*(?:they\s+)?(?:are\s+)?(?:otherwise\s+)?(?:grossly\s+)?$")


def anatomy(clause: Clause) -> list[Statement]:
    """What the states of heart, mediastinum, lungs and pleura say."""
    statements: list[Statement] = []
    previous: tuple[Item, list[int]] | None = None
    for index, item in enumerate(clause.items):
        if item.kind is not Kind.SUBJECT:
            continue
        if clause.text.endswith(_BARE, item.start, item.end) and not _BARE_NEXT.match(clause.text, item.end):
            continue  # an adjective of something else: "mediastinal clips", "cardiac device"
        states, before = _following(clause, index), _preceding(clause, index)
        if not states or (before and any(s.kind is Kind.SUBJECT for s in clause.items[index + 1 : states[0]])):
            states = before
        if before and all(clause.items[at].names == ("same",) for at in states):
            states = before  # "the normal heart size is stable"
        if not states and previous and previous[1] and _JOINED.match(clause.text[previous[0].end : item.start]):
            states = previous[1]
        previous = (item, states)
        if states:
            statements.extend(_implied(clause, item, states))
    free = _PLEURA_FREE.search(clause.text)
    if free:
        statements.append(Statement(vocabulary.PE, Certainty.NEGATIVE, *free.span(), free.span()))
    rest = _OTHERWISE_CLEAR.search(clause.text)
    if rest and not any(s.finding == vocabulary.LO for s in statements):
        statements.append(Statement(vocabulary.LO, Certainty.NEGATIVE, *rest.span(), rest.span()))
    return statements


def _following(clause: Clause, index: int) -> list[int]:
    subject = clause.items[index]
    verb = False
    end = subject.end
    for at in range(index + 1, len(clause.items)):
        other = clause.items[at]
        if other.start < end:
            continue
        gap = clause.text[end : other.start]
        if other.kind is Kind.SUBJECT and _ASIDE.search(clause.text, 0, other.start):
            continue  # "heart size is accentuated by low lung volumes and is enlarged"
        if clause.text.startswith("which", other.start) and not gap.strip(" ,"):
            end = other.end
            continue
        verb = verb or bool(_LINKING.search(gap))
        if clause.cut(end, other.start) or (verb and "," in gap):
            return _still_clear(clause, end, at)
        if other.kind is Kind.SUBJECT:
            if verb or not _JOINED.match(gap):
                return []
            end = other.end
        elif other.kind is Kind.STATE:
            if not verb and len(gap.strip()) > 30 and not _INFLATED.match(gap):
                return []
            if not verb and gap.strip() and _attributive(clause, at):
                return []
            return _run(clause, at)
        elif other.kind in (Kind.NEGATION, Kind.UNCERTAIN, Kind.LINK, Kind.OR):
            continue
        elif other.kind is Kind.MENTION and not verb and not _also_state(clause, at):
            return []
    return []


def _still_clear(clause: Clause, end: int, at: int) -> list[int]:
    """The one state that holds across a contrast ("the lungs are hyperinflated but clear")."""
    for index in range(at, min(at + 3, len(clause.items))):
        state = clause.items[index]
        if state.kind is Kind.STATE:
            clear = state.names == ("clear",) and _STILL_CLEAR.search(clause.text, end, state.start)
            return [index] if clear else []
    return []


def _also_state(clause: Clause, at: int) -> bool:
    return any(i.kind is Kind.STATE and i.start == clause.items[at].start for i in clause.items[at + 1 : at + 4])


def _attributive(clause: Clause, at: int) -> bool:
    """True where the state stands right before the next subject ("normal mediastinal contours")."""
    state = clause.items[at]
    following = next((i for i in clause.items[at + 1 :] if i.start >= state.end and i.kind is not Kind.STATE), None)
    return (
        following is not None
        and following.kind is Kind.SUBJECT
        and clause.text[state.end : following.start].strip() == ""
    )


def _run(clause: Clause, at: int) -> list[int]:
    """The states that stand together ("stable and mildly enlarged")."""
    run, end = [at], clause.items[at].end
    for following in range(at + 1, len(clause.items)):
        other = clause.items[following]
        if other.start < end:
            if other.kind is Kind.STATE:
                run.append(following)
            continue
        if other.kind in (Kind.LINK, Kind.UNCERTAIN, Kind.NEGATION) or clause.text.startswith("but", other.start):
            continue
        if other.kind is Kind.MENTION and _also_state(clause, following):
            continue
        gap = clause.text[end : other.start]
        if other.kind is not Kind.STATE or not _STATE_GAP.match(gap):
            break
        if "but" in gap and not _STATE_ENDS.match(clause.text, other.end):
            break  # the state of something else: "normal but large left effusion"
        if _attributive(clause, following):
            break
        run.append(following)
        end = other.end
    return run


def _preceding(clause: Clause, index: int) -> list[int]:
    subject = clause.items[index]
    run: list[int] = []
    start = subject.start
    for at in range(index - 1, -1, -1):
        other = clause.items[at]
        if other.end > start or (other.kind is not Kind.STATE and run and other.start == clause.items[run[-1]].start):
            continue
        if other.kind is Kind.UNCERTAIN and at and clause.items[at - 1].start == other.start:
            continue
        gap = clause.text[other.end : start]
        # "Normal size and mediastinal contours": of the heart, which a subject before it would be.
        size = gap == " size and " and not any(i.kind is Kind.SUBJECT for i in clause.items[:at])
        joined = size or _ATTRIBUTE_GAP.match(gap) or (run and _STATES_JOINED.match(gap))
        if other.kind is not Kind.STATE or not joined:
            break
        run.append(at)
        start = other.start
    return run


def _implied(clause: Clause, subject: Item, states: list[int]) -> list[Statement]:
    name = subject.names[0]
    findings = {
        "heart": (vocabulary.CM,),
        "mediastinum": (vocabulary.EC,),
        "both": (vocabulary.EC, vocabulary.CM),
        "lungs": (vocabulary.LO,),
        "pleura": (vocabulary.PE,),
    }.get(name, ())
    statements = []
    for at in states:
        state = clause.items[at]
        word = state.names[0]
        start, end = min(subject.start, state.start), max(subject.end, state.end)
        cue = (state.start, state.end)
        if name in ("lungs", "pleura"):
            if word == "clear" or (word == "normal" and name == "pleura"):
                statements.append(Statement(findings[0], Certainty.NEGATIVE, start, end, cue))
            continue
        for finding in findings:
            if word == "normal" or (word == "clear" and name != "heart"):
                statements.append(Statement(finding, Certainty.NEGATIVE, start, end, cue))
            elif word == "borderline":
                statements.append(Statement(finding, Certainty.UNCERTAIN, start, end, cue))
            elif word == "large" and not (name == "both" and finding == vocabulary.CM):
                verdict = clause.judge(at)
                if verdict is not None:
                    statements.append(statement(finding, start, end, verdict))
    return statements
