"""A real, tiny labeler for the runner's tests: one word per finding, "no <word>" is negative.

What it buys: it is deterministic, has probabilities that depend on the batch it is given (so that other
chunk boundaries after a resume would show), and can be slow, picky about length or fail on purpose.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lite_chex.findings import Certainty, FindingSet
from lite_chex.labelers.base import TOO_LONG, LabelBatch

WORDS = FindingSet("words", ("Edema", "Fracture", "No Finding"))


@dataclass
class WordLabeler:
    name: str = "words"
    findings: FindingSet = WORDS
    delay: float = 0.0
    max_words: int = 1000
    version: str = "1"

    def label(self, reports: Sequence[str]) -> LabelBatch:
        time.sleep(self.delay * len(reports))
        values = np.full((len(reports), len(self.findings)), Certainty.ABSENT, dtype=np.int8)
        for i, report in enumerate(reports):
            if "explode" in report:
                raise ValueError("this labeler fails on this report")
            for j, name in enumerate(self.findings.names[:2]):
                if name.lower() in report:
                    values[i, j] = Certainty.NEGATIVE if f"no {name.lower()}" in report else Certainty.POSITIVE
        longest = max(len(r) for r in reports)
        sure = np.array([0.5 + 0.5 * len(r) / (longest + 1) for r in reports], dtype=np.float32)
        probabilities = np.repeat(((1 - sure) / 3)[:, None, None], 3, axis=1).repeat(4, axis=2)
        np.put_along_axis(probabilities, values[..., None].astype(int), sure[:, None, None], axis=2)
        errors = tuple(
            f"{TOO_LONG}: {len(r.split())} words, at most {self.max_words}" if len(r.split()) > self.max_words else None
            for r in reports
        )
        return LabelBatch(values, probabilities.astype(np.float32), errors if any(errors) else None)

    def fingerprint(self) -> str:
        return f"words {self.version}"
