"""Which reports SFT sees together and how often: batches of like length, rare labels drawn more often."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch.utils.data import Sampler

from lite_chex.findings import SKIP, Certainty, LabelArray

if TYPE_CHECKING:
    from transformers import TrainingArguments


def balanced_rows(labels: LabelArray, balance: float, seed: int, epoch: int = 0) -> list[int]:
    """Row numbers of an epoch, as many as there are rows, rare labels drawn more often: ``[n, F] -> n``.

    Macro F1 weighs a cell (finding x certainty) of 10 reports like one of 1,000. A row counts as its rarest
    mentioned cell: it is drawn in proportion to ``count ** -balance`` (0: every row once; 1: every cell about
    equally often). Rows that mention nothing count as the most frequent cell. Each epoch draws anew: a row whose share
    is a half comes in every other one.
    """
    if balance == 0:
        return list(range(len(labels)))
    counts = np.ones((labels.shape[1], 4))
    for certainty in range(4):
        counts[:, certainty] = (labels == certainty).sum(0)
    known = (labels != SKIP) & (labels != Certainty.ABSENT)
    of_cell = np.take_along_axis(counts.T, np.where(known, labels, 0), axis=0)
    most = counts[:, :3].max()
    rarest = np.where(known, of_cell, most).min(1)
    wanted = rarest**-balance
    wanted *= len(labels) / wanted.sum()
    # Systematic sampling in a random order: each row floor or ceil of its share, n in all.
    order = np.random.default_rng([seed, 77, epoch]).permutation(len(labels))
    upto = np.round(np.cumsum(wanted[order])).astype(int)
    times = np.zeros(len(labels), dtype=int)
    times[order] = np.diff(upto, prepend=0)
    return np.repeat(np.arange(len(labels)), times).tolist()


class LengthGrouped(Sampler[int]):
    """Random batches whose rows are of like length; the order follows from seed and epoch alone.

    drawn: the rows of an epoch, as many as there are lengths (default: each once).

    transformers has such a sampler, but it draws from the global generator: a resumed run would see another
    order than an uninterrupted one.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        arguments: TrainingArguments,
        seed: int,
        drawn: Callable[[int], Sequence[int]] | None = None,
    ) -> None:
        self.lengths = np.asarray(lengths)
        self.drawn = drawn or (lambda _: range(len(lengths)))
        self.batch_size = arguments.train_batch_size * arguments.gradient_accumulation_steps
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the data loader at the start of each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(np.asarray(self.drawn(self.epoch)))
        pool = self.batch_size * 50
        batches = []
        for start in range(0, len(order), pool):
            rows = order[start : start + pool]
            rows = rows[np.argsort(self.lengths[rows], kind="stable")]
            batches += [rows[i : i + self.batch_size] for i in range(0, len(rows), self.batch_size)]
        # A short last batch stays last: the data loader cuts batches by counting.
        full = [b for b in batches if len(b) == self.batch_size]
        short = [b for b in batches if len(b) < self.batch_size]
        rng.shuffle(full)
        for batch in [*full, *short]:
            yield from batch.tolist()
