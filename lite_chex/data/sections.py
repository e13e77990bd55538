"""Sections of a report by the rules of MIMIC-CXR's own section files, written anew.

A header is the start of a line in capitals ended by a colon. Names are normalised: "CONCLUSION" is an
impression, the name of a view ("PORTABLE CHEST") heads findings. Without any header the report is one
section, "full report"; with neither findings nor impression, what follows the first paragraph of the
last section is the "last paragraph"; of several sections of a kind the last one counts.

What differs: an addendum or wet read above an underscore line never counts as the report's findings or
impression; and where these rules miss findings or impression, FINDINGS:/IMPRESSION: in the middle of a line
(a report flattened to one line) or "Findings:" at the start of one are taken as headers too. MIMIC's rules by
hand for 54 single studies are not here. Of other hospitals: a SUMMARY or OPINION is the impression where there is
no other (Stanford's SUMMARY: is a code for the whole report).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

FULL_REPORT = "full report"
LAST_PARAGRAPH = "last paragraph"
PREAMBLE = "preamble"
ADDENDUM = "addendum"

_TYPOS = (
    "imp", "impressions", "impresion", "impresson", "impressoin", "imprssion", "imprression", "imoression",
    "imression", "ipression", "mpression", "impession", "impressin", "impressino", "imperssion",
)  # fmt: skip
_FINDINGS_TYPOS = ("findins", "findindgs", "findgings", "findngs", "findnings", "finidngs")
_NAMES = {
    **dict.fromkeys(_TYPOS, "impression"),
    **dict.fromkeys(_FINDINGS_TYPOS, "findings"),
    "impression": "impression",
    "conclusion": "impression",
    "conclusions": "impression",
    "end of impression": "end of impression",
    "findings": "findings",
    "finding": "findings",
    "chest, two views": "findings",
    "comparison": "comparison",
    "comparisons": "comparison",
    "comparison exam": "comparison",
    "comparison film": "comparison",
    "comparision": "comparison",
    "comparsion": "comparison",
    "comparrison": "comparison",
    "comparisions": "comparison",
    "reference exam": "comparison",
    "indication": "indication",
    "idication": "indication",
    "clinical indication": "indication",
    "reason for exam": "indication",
    "reason for examination": "indication",
    "history": "history",
    "clinical history": "history",
    "clinical information": "history",
    "patient history": "history",
    "examination": "examination",
    "exam": "examination",
    "type of examination": "examination",
    "study": "examination",
    "technique": "technique",
    "procedure": "technique",
    "notification": "notification",
    "recommendation": "recommendations",
    "recommendations": "recommendations",
    "recommendation(s)": "recommendations",
    "wet read": "wet read",
    "wetread": "wet read",
    "addendum": ADDENDUM,
    "comment": "comment",
    "date": "date",
    "final report": PREAMBLE,
    "pfi": "history",
}
_NO_FINDINGS = ("indication", "history", "examination", "technique", "comparison", "notification", "date")
_IN_ITS_PLACE = ("summary", "opinion")
"""An impression where the report has none by another name."""
_SAYS = re.compile(r"\b(?:is|are|was|were|has|have|there|no)\b", re.I)
_CONTAINED = ("impression", "findings", "history", "comparison", "addendum")
_VIEWS = re.compile(
    r"chest|portable|\bribs\b|bone window|(?:pa|ap|lateral|frontal|one|two) views?|frontal (?:and|upright|semi-upright)"
    r"|pa and lat|ap and lat|lateral and (?:pa|ap)"
)

_LINE_HEADER = re.compile(r"(?:\A|(?<=\n))[ \t]*([A-Z][A-Z ()/,-]+):(?=\s|\Z)")
_LOOSE_HEADER = re.compile(
    r"(?:\A|(?<=\n)|(?<=\s))[ \t]*"
    r"(FINDINGS?|IMPRESSIONS?|CONCLUSIONS?|INDICATION|COMPARISON|TECHNIQUE|HISTORY|EXAMINATION|RECOMMENDATIONS?)\s*:"
)
_TITLE_HEADER = re.compile(
    r"(?:\A|(?<=\n))[ \t]*\**((?i:findings?|impressions?|conclusions?|indication|clinical (?:history|indication)"
    r"|comparison|technique|history|examination|exam|recommendations?))\**[ \t]*:\**"
)
_RULE_LINE = re.compile(r"(?:\A|(?<=\n))[ \t]*_{10,}[ \t]*(?:\r?\n|\Z)")
_TITLE_LINE = re.compile(r"\s*FINAL REPORT[ \t]*\r?\n")
_BLANK_LINE = re.compile(r"\n[ \t\r]*\n")
_MASK = re.compile(r"^x+$")

Header = tuple[int, int, str]
"""Start and end of a header in the report (colon included), and its normalised name."""


@dataclass(frozen=True)
class Section:
    """One section. name: normalised, lower case. ``report[start:start + len(text)] == text``."""

    name: str
    start: int
    text: str


def section_name(header: str) -> str:
    """The normalised name of a header (without its colon); unknown ones are lower-cased."""
    name = " ".join(header.lower().split())
    if name in _NAMES:
        return _NAMES[name]
    for part in _CONTAINED:
        if part in name:
            # "FINDINGS AND IMPRESSION" is an impression: the earlier of the list wins.
            return part
    return "findings" if _VIEWS.search(name) else name


def split_sections(text: str) -> list[Section]:
    """The sections of a report, in their order, without blank ones; ``[]`` for a blank report."""
    body = _body_start(text)
    headers = _line_headers(text, body)
    for more in (_LOOSE_HEADER, _TITLE_HEADER):
        found = [(m.start(), m.end(), section_name(m.group(1))) for m in more.finditer(text, body)]
        if {name for *_, name in found} & {"findings", "impression"} - {name for *_, name in headers}:
            headers = sorted([*headers, *(h for h in found if not any(_overlap(h, other) for other in headers))])
    sections = _by_headers(text, body, headers)
    if not any(section.name == "impression" for section in sections):
        sections = [replace(s, name="impression") if s.name in _IN_ITS_PLACE else s for s in sections]
    if not _has_main(sections) and sections:
        sections = [*sections[:-1], *_last_paragraph(sections[-1])]
    top = _trimmed(ADDENDUM, text, 0, body)
    return [*(s for s in top if _RULE_LINE.search(text, 0, body)), *sections]


def findings_and_impression(text: str) -> tuple[str | None, str | None]:
    """The text under the last FINDINGS and the last IMPRESSION header; None where there is none."""
    if ":" not in text:
        return None, None
    last = {section.name: section.text for section in split_sections(text)}
    return last.get("findings"), last.get("impression")


def text_to_label(text: str) -> str:
    """What a whole report says about the study: findings and impression joined, else the last section that can hold
    any; "" where there is none.

    Indication and history are left out: "evaluate for pneumonia" is a question, not a finding. A comparison counts
    where it is all there is and says more than which examination it was with.
    """
    sections = split_sections(text)
    last = {section.name: section.text for section in sections}
    joined = join_sections(*(unwrapped(last.get(name, "")) for name in ("findings", "impression")))
    others = [section.text for section in sections if section.name not in _NO_FINDINGS]
    compared = unwrapped(last.get("comparison", ""))
    if not others and _SAYS.search(compared.partition(". ")[2]):
        others = [compared]
    return joined or (unwrapped(others[-1]) if others else "")


def unwrapped(text: str) -> str:
    """A section as lines of its own: wrapped lines joined, paragraphs and list items kept apart."""
    paragraphs = re.split(r"\n\s*\n|\n(?=[ \t]*(?:\d{1,2}[.)]|[-*•])\s)", text)
    return "\n".join(joined for p in paragraphs if (joined := " ".join(p.split())))


def join_sections(findings: str | None, impression: str | None) -> str:
    """The text to label: findings, a newline, impression; an empty one is left out."""
    return "\n".join(part for part in ((findings or "").strip(), (impression or "").strip()) if part)


def _body_start(text: str) -> int:
    """Where the report proper begins: behind an addendum's underscore line and the line FINAL REPORT."""
    start = 0
    for rule in _RULE_LINE.finditer(text):
        above = text[start : rule.start()].upper()
        if ("ADDENDUM" in above or "WET READ" in above) and text[rule.end() :].strip():
            start = rule.end()
    title = _TITLE_LINE.match(text, start)
    return title.end() if title and text[title.end() :].strip() else start


def _line_headers(text: str, start: int) -> list[Header]:
    headers: list[Header] = []
    for match in _LINE_HEADER.finditer(text, start):
        name = section_name(match.group(1))
        # Right under an empty header stands its content, even where that looks like a header
        # ("EXAMINATION:\n CHEST (PA AND LAT):"), unless it is a header known by name.
        above = text[headers[-1][1] : match.start()] if headers else None
        if above is not None and not above.strip() and above.count("\n") <= 1 and not _known(match.group(1)):
            continue
        if not _MASK.match(name):
            headers.append((match.start(), match.end(), name))
    return headers


def _known(header: str) -> bool:
    return " ".join(header.lower().split()) in _NAMES


def _overlap(one: Header, other: Header) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def _by_headers(text: str, start: int, headers: list[Header]) -> list[Section]:
    if not headers:
        return _trimmed(FULL_REPORT, text, start, len(text))
    sections = _trimmed(PREAMBLE, text, start, headers[0][0])
    ends = [h[0] for h in headers[1:]] + [len(text)]
    for (_, begin, name), end in zip(headers, ends):
        sections += _trimmed(name, text, begin, end)
    return sections


def _has_main(sections: list[Section]) -> bool:
    return any(s.name in ("findings", "impression") for s in sections)


def _last_paragraph(section: Section) -> list[Section]:
    blank = _BLANK_LINE.search(section.text)
    if blank is None:
        return [section]
    first = _trimmed(section.name, section.text, 0, blank.start())
    rest = _trimmed(LAST_PARAGRAPH, section.text, blank.end(), len(section.text))
    return [Section(s.name, s.start + section.start, s.text) for s in (*first, *rest)]


def _trimmed(name: str, text: str, start: int, end: int) -> list[Section]:
    """The section without surrounding whitespace, or nothing where it is blank."""
    part = text[start:end]
    stripped = part.strip()
    return [Section(name, start + part.index(stripped), stripped)] if stripped else []
