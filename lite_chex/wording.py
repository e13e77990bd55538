"""Counts and times as every room words them."""

from __future__ import annotations


def plural(n: int, one: str, many: str | None = None) -> str:
    """``1 cell``, ``1,000 cells``."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def duration(seconds: float) -> str:
    """``95`` -> ``1 min 35 s``."""
    whole = int(seconds + 0.5)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
