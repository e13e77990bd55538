"""A report as sentences, each with its place in the text: headers, line wraps, list numbers, missing spaces."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

# Lower-casing and masks (`___` reads like `XXXX`), one character for one: every span stays a span of the report.
_FOLD = str.maketrans({chr(c): chr(c + 32) for c in range(ord("A"), ord("Z") + 1)} | {"_": "x", "\u2019": "'"})

_SILENT = (
    r"(?:clinical |brief |pertinent |patient )?(?:indications?|history|information|hx)(?: of present illness)?"
    r"|(?:clinical )?(?:indication|history) and (?:indication|history)|"
    r"reasons?(?: for (?:the )?(?:exam(?:ination)?|study|test))?"
    r"|recommendations?|notifications?|attestation|signed by|dictated by|diagnosis|admitting diagnosis"
)
# Silent as well, but one sentence long: what stands behind it is the report.
_BRIEF = (
    r"exam(?:ination)?(?: type| date)?|stud(?:y|ies)(?: type)?|procedures?|techniques?|views?|"
    r"comparisons?(?: studies| made)?|compared? (?:to|with)"
)
_SPOKEN = r"findings?|impressions?|conclusions?|opinion|report|final report|wet read|addendum|chest|summary"
_HEADER = re.compile(
    rf"(?:^|(?<=[.;:]))[ \t]*(?:(?P<silent>{_SILENT})|(?P<brief>{_BRIEF})|(?P<spoken>{_SPOKEN})|"
    rf"(?P<named>[A-Za-z][A-Za-z /&()]{{2,30}}))[ \t]*:",
    re.I | re.M,
)
_INLINE = re.compile(rf"(?<=[ \t])(?:(?P<silent>{_SILENT})|(?P<brief>{_BRIEF})|(?P<spoken>{_SPOKEN}))[ \t]*:", re.I)
_FIRST_SENTENCE = re.compile(r"(?<!\bdr)(?<!\bvs)[.!?](?=\s+[A-Z_])|\n(?=[ \t]*[A-Z])")
_FINDINGS = re.compile(r"\s*findings?\b", re.I)
_BLANK_LINE = re.compile(r"\S[ \t]*\n[ \t]*\n")

# Where a sentence ends: a full stop that is no decimal point, abbreviation or list number; behind a question mark
# (a cue of the sentence); a semicolon; a list item.
_STOP = re.compile(
    r"(?<![\d])[.!]+(?=\s|$|[A-Za-z(])|(?<=[a-zA-Z)]\?)(?=\s|$)|(?<=\d)[.!?]+(?=\s*$|\s+[A-Z(]|[A-Z])|;|\n[ \t]*\n|"
    r"\n(?=[ \t]*(?:\d{1,2}[.)]|[-*\u2022]))"
    r"|(?<=\s)(?=\d{1,2}[.)]\s+[A-Z])"
)
_ABBREVIATION = re.compile(
    r"(?:\b(?:dr|mr|mrs|ms|vs|approx|no|st|e\.g|i\.e|a\.m|p\.m|etc|fig|prob|poss|b\.i|h\.o)|\b[a-z])$"
)
_LIST_NUMBER = re.compile(r"^\s*(?:\d{1,2}\s*[.)]\s*|[-*\u2022]+\s*)+")
_LONGEST = 800


@dataclass(frozen=True)
class Sentence:
    """A sentence of a report: its folded text, and where it stands in the report."""

    text: str
    start: int
    end: int


def sentences(report: str) -> list[Sentence]:
    """The sentences that state findings, in order; those under INDICATION, COMPARISON and the like are left out."""
    found: list[Sentence] = []
    for start, end in _spoken(report):
        found.extend(_split(report, start, end))
    return found


def _spoken(report: str) -> Iterable[tuple[int, int]]:
    """Spans of the report under headers that are part of its statement, or under none."""
    if ":" not in report:
        yield 0, len(report)
        return
    cuts: list[tuple[int, int, str]] = []
    for match in _HEADER.finditer(report):
        at_line = match.start() == 0 or report[match.start() - 1] == "\n"
        capitals = match.group().isupper()
        if match.group("named"):  # part of the sentence ("HEART: normal"), but the end of a silent section
            if at_line and capitals:
                cuts.append((match.start(), match.start(), "spoken"))
        elif at_line or match.group().lstrip()[:1].isupper():
            cuts.append((match.start(), match.end(), str(match.lastgroup)))
    for match in _INLINE.finditer(report):
        if match.group().isupper() or (match.group("spoken") and match.group()[:1].isupper()):
            cuts.append((match.start(), match.end(), str(match.lastgroup)))
    position, kind, said = 0, "spoken", False
    for start, end, following in [*sorted(cuts), (len(report), len(report), "spoken")]:
        if start < position:
            continue
        if kind != "spoken":
            # A paragraph without a header is the report's own text again. So is, where no FINDINGS follow, all behind
            # the first sentence of COMPARISON and the like, and of INDICATION in a report that says nothing else.
            if kind == "brief":
                findings = any(_FINDINGS.match(report, at) for at, _, _ in cuts if at >= start)
                own = (_BLANK_LINE if findings else _FIRST_SENTENCE).search(report, position, start)
            else:
                own = _BLANK_LINE.search(report, position, start)
                if own is None and start == len(report) and not said:
                    own = _FIRST_SENTENCE.search(report, position, start)
            position = own.end() if own else start
        if position < start:
            yield position, start
            said = said or bool(report[position:start].strip(" \t\n.:;-"))
        position, kind = end, following


def _split(report: str, start: int, end: int) -> Iterable[Sentence]:
    begin = start
    ends = [(m.start(), m.end()) for m in _STOP.finditer(report, start, end)]
    ends += [(m, m + 1) for m in _line_ends(report, start, end)]
    for stop, after in [*sorted(ends), (end, end)]:
        if stop < begin:
            continue
        if stop < end and report[stop:after] == "." and _abbreviated(report, begin, stop, after):
            continue
        while stop - begin > _LONGEST:  # no sentence of a report is; scopes are searched in quadratic time
            cut = report.rfind(" ", begin + 1, begin + _LONGEST) + 1 or begin + _LONGEST
            yield from _sentence(report, begin, cut)
            begin = cut
        yield from _sentence(report, begin, stop)
        begin = after


def _abbreviated(report: str, begin: int, stop: int, after: int) -> bool:
    """True where the full stop belongs to an abbreviation within a sentence ("vs. effusion", "Dr. ___")."""
    if not _ABBREVIATION.search(report[max(begin, stop - 6) : stop].lower()):
        return False
    goes_on = not report[after : after + 2].lstrip()[:1].isupper()
    return goes_on or report[stop - 2 : stop].lower() in ("vs", "dr")


def _line_ends(report: str, start: int, end: int) -> Iterable[int]:
    """Line ends that end a sentence without a full stop: a short (unwrapped) or very long line before a capital."""
    line = start
    while (at := report.find("\n", line, end)) >= 0:
        following = report[at + 1 : at + 3].strip()
        wrapped = 55 <= at - line <= 90
        if following[:1].isupper() and not wrapped:
            yield at
        line = at + 1


def _sentence(report: str, start: int, end: int) -> Iterable[Sentence]:
    """The one sentence there, without its list number; none where nothing is left."""
    raw = report[start:end]
    number = _LIST_NUMBER.match(raw)
    start += number.end() if number else len(raw) - len(raw.lstrip())
    raw = report[start:end].rstrip()
    if raw:
        yield Sentence(raw.translate(_FOLD).replace("\n", " "), start, start + len(raw))
