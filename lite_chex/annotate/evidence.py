"""Which sentences of a report speak of which finding: what the page marks."""

from __future__ import annotations

from dataclasses import dataclass

from lite_chex.findings import FindingSet
from lite_chex.labelers.rules import RuleLabeler


@dataclass(frozen=True)
class Segment:
    """A stretch of the report. findings: indices of the findings it speaks of; empty for the rest."""

    text: str
    findings: tuple[int, ...]


class Evidence:
    """Marks sentences by the rule labeler's mentions: no model, and the same for every version compared."""

    def __init__(self, findings: FindingSet) -> None:
        self.findings = findings
        self._labeler = RuleLabeler(findings)

    def segments(self, report: str) -> list[Segment]:
        """Cut a report into marked and unmarked stretches; joined they are the report, character for character."""
        about: dict[tuple[int, int], set[int]] = {}
        for mention in self._labeler.explain(report):
            about.setdefault(mention.sentence, set()).add(self.findings.index(mention.finding))
        found: list[Segment] = []
        at = 0
        for (start, end), indices in sorted(about.items()):
            if start < at:
                continue  # sentences do not overlap; if they ever do, the text must not be shown twice
            if start > at:
                found.append(Segment(report[at:start], ()))
            found.append(Segment(report[start:end], tuple(sorted(indices))))
            at = end
        if at < len(report):
            found.append(Segment(report[at:], ()))
        return found
