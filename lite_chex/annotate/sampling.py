"""Which items, in which order, and which answer on which side.

Everything here is a hash of the seed and the item's key: the same seed gives the same order on every
machine and after every restart, and a new report does not shuffle the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from lite_chex.annotate.items import Draft
from lite_chex.data.records import Report


def unit(seed: int, *parts: str) -> float:
    """A number in [0, 1) that only depends on the seed and the parts."""
    digest = hashlib.sha256("\x1f".join((str(seed), *parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def sample_reports(reports: Sequence[Report], limit: int | None, seed: int) -> list[Report]:
    """``limit`` reports drawn by the seed, the same ones for every reader, in the file's order."""
    if limit is None or limit >= len(reports):
        return list(reports)
    drawn = sorted(reports, key=lambda r: unit(seed, "report", r.study_id))[:limit]
    return sorted(drawn, key=lambda r: r.row)


def ordered(drafts: Sequence[Draft], seed: int, reader: str | None = None) -> list[Draft]:
    """Most informative first, equals in an order drawn by the seed.

    With a ``reader`` the order is drawn for that reader alone (a reader study: no system, and no
    report, may always come first).
    """
    if reader is not None:
        return sorted(drafts, key=lambda d: unit(seed, "order", reader, d.item.key))
    return sorted(drafts, key=lambda d: (-d.informativeness, unit(seed, "order", d.item.key)))


def first_is_left(seed: int, annotator: str, key: str) -> bool:
    """Whether the item's first answer stands on the left for this annotator: a coin per item and person."""
    return unit(seed, "side", annotator, key) < 0.5


def shown_to_all(seed: int, key: str, overlap: float) -> bool:
    """Whether every annotator judges the item; the others go to whoever comes first."""
    return unit(seed, "overlap", key) < overlap
