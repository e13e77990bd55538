"""Balanced epochs and batches of like length."""

import numpy as np
from transformers import TrainingArguments

from lite_chex.decode.packed import padded
from lite_chex.train import dpo, sft
from lite_chex.train.batches import LengthGrouped, balanced_rows


def test_balance_draws_rare_labels_more_often() -> None:
    # 90 rows say negative (1), 9 uncertain (2), 1 positive (0); one finding.
    labels = np.array([[1]] * 90 + [[2]] * 9 + [[0]], dtype=np.int8)
    assert balanced_rows(labels, 0, 1) == list(range(100))
    rows = labels[balanced_rows(labels, 1.0, 1), 0]
    assert len(rows) == 100
    # Weights 1/90, 1/9, 1: a third of the epoch each.
    assert all(abs((rows == c).sum() - 33.3) <= 4 for c in (0, 1, 2))
    half = labels[balanced_rows(labels, 0.5, 1), 0]
    # 90 ** .5 : 9 ** .5 : 1 ** .5 = 9.49 : 3 : 1 of 13.49
    assert abs((half == 1).sum() - 70.3) <= 4
    assert abs((half == 0).sum() - 7.4) <= 1


def test_every_row_comes_within_a_few_epochs() -> None:
    labels = np.array([[1]] * 90 + [[2]] * 9 + [[0]], dtype=np.int8)
    epochs = [balanced_rows(labels, 0.5, 1, epoch) for epoch in range(6)]
    assert len(set(epochs[0])) < 100  # a frequent row has a share of .78
    assert epochs[0] != epochs[1]
    assert set().union(*epochs) == set(range(100))
    one = TrainingArguments(per_device_train_batch_size=1, use_cpu=True, report_to=[])
    sampler = LengthGrouped([1] * 100, one, 3, lambda epoch: epochs[epoch])
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        assert sorted(sampler) == epochs[epoch]


def test_rows_that_mention_nothing_or_are_unknown_count_as_the_most_frequent_cell() -> None:
    labels = np.array([[3, -1]] * 50 + [[0, 3]] * 2 + [[1, 3]] * 48, dtype=np.int8)
    rows = balanced_rows(labels, 1.0, 1)
    drawn = np.bincount(rows, minlength=100)
    assert drawn[50:52].min() > 10 * drawn[:50].mean()


def test_each_row_once_an_epoch_in_batches_of_like_length_and_from_seed_and_epoch_alone() -> None:
    lengths = np.random.default_rng(0).integers(50, 300, 203).tolist()
    eight = TrainingArguments(per_device_train_batch_size=4, gradient_accumulation_steps=2, use_cpu=True, report_to=[])
    sampler = LengthGrouped(lengths, eight, seed=3)
    first = list(sampler)
    assert sorted(first) == list(range(203))
    assert list(sampler) == first
    sampler.set_epoch(1)
    second = list(sampler)
    assert second != first
    again = LengthGrouped(lengths, eight, seed=3)
    again.set_epoch(1)
    assert list(again) == second

    def padded(order: list[int]) -> int:
        return sum(max(lengths[j] for j in order[i : i + 8]) * 8 for i in range(0, 200, 8))

    assert padded(first) < 1.06 * sum(lengths)
    assert padded(list(range(203))) > 1.3 * sum(lengths)


def test_batches_have_few_widths() -> None:
    """oneDNN keeps the kernels of every shape that it has seen."""
    assert [padded(n) for n in (1, 32, 33)] == [32, 32, 64]
    one = sft._Collator(9)([{"input_ids": [1] * n, "weights": [1.0] * n} for n in (33, 20)])
    pair = {"prompt_ids": [1] * 3, "chosen_ids": [1] * 30, "rejected_ids": [1] * 17}
    other = dpo._Collator(9)([pair | {"chosen_mask": [1] * 30, "rejected_mask": [1] * 17}])
    for batch in (one, other):
        assert {tuple(tensor.shape) for tensor in batch.values()} == {(2, 64)}
        assert (batch["input_ids"] == 9).sum(1).tolist() == [31, 44]
