"""Three equal-sized bins by token count: stable, cut like numpy.array_split."""

from __future__ import annotations

import numpy as np

from lite_chex.evaluate.lengths import NO_BIN, count_tokens, length_bins


def test_by_hand_with_ties_in_file_order():
    # Sorted: rows 2 (1), then the fives in file order 0 1 3 4 5, then row 6 (9): cut 3, 2, 2.
    assert length_bins(np.array([5, 5, 1, 5, 5, 5, 9])).tolist() == [0, 0, 0, 1, 1, 2, 2]


def test_many_ties_stay_in_file_order():
    bins = length_bins(np.full(1000, 7))
    assert bins.tolist() == sorted(bins.tolist())
    mixed = np.tile([3, 8], 600)
    expected = np.empty(1200, dtype=int)
    for number, rows in enumerate(np.array_split(np.concatenate([np.arange(0, 1200, 2), np.arange(1, 1200, 2)]), 3)):
        expected[rows] = number
    assert length_bins(mixed).tolist() == expected.tolist()


def test_unknown_lengths_are_in_no_bin():
    assert length_bins(np.array([-1, 4, 2, 6])).tolist() == [NO_BIN, 1, 0, 2]


def test_tokens_are_separated_by_white_space():
    assert count_tokens(["", "one", " two\twords\n"]).tolist() == [0, 1, 2]
