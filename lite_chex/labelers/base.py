"""What every labeler is: something that turns a batch of report texts into certainties."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from lite_chex.findings import FindingSet, LabelArray

TOO_LONG = "too long for the model"
"""How the error of a report beyond the model's context begins; the runner then tries its sections."""


@dataclass(frozen=True)
class LabelBatch:
    """Labels of ``n`` reports.

    values: int8 ``[n, findings]``, each a Certainty.
    probabilities: float32 ``[n, findings, 4]`` in Certainty's order, or None where the labeler has none.
    errors: per report None, or one sentence (without report text) on why it could not be labelled;
        the values of such a row mean nothing.
    """

    values: LabelArray
    probabilities: npt.NDArray[np.float32] | None = None
    errors: tuple[str | None, ...] | None = None


class Labeler(Protocol):
    """A labeler; stateless between batches, so that a run can be resumed at any row."""

    name: str
    findings: FindingSet

    def label(self, reports: Sequence[str]) -> LabelBatch:
        """Label non-empty report texts, in order."""
        ...

    def fingerprint(self) -> str:
        """Identifies model and options: a resumed run refuses to go on under another one."""
        ...
