"""Short, medium and long reports: three equal-sized bins by token count, as in the paper."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

LENGTH_BINS = ("short", "medium", "long")
NO_BIN = len(LENGTH_BINS)
"""The bin of a report whose length is not known (it is in no length row)."""


def count_tokens(texts: Sequence[str]) -> npt.NDArray[np.int64]:
    """Whitespace-separated tokens of each report."""
    return np.array([len(text.split()) for text in texts], dtype=np.int64)


def length_bins(lengths: npt.NDArray[np.integer]) -> npt.NDArray[np.int8]:
    """Bin of each report, ``[n]``: a stable sort by length, cut like ``numpy.array_split``.

    A negative length means "not known" and gives :data:`NO_BIN`.
    """
    lengths = np.asarray(lengths)
    bins = np.full(len(lengths), NO_BIN, dtype=np.int8)
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] >= 0]
    for number, members in enumerate(np.array_split(order, len(LENGTH_BINS))):
        bins[members] = number
    return bins
