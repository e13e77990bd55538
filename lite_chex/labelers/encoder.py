"""What BERT-size labelers share: token ids without silent cuts, and forward passes in buckets of like length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lite_chex.findings import Certainty, FindingSet, LabelArray
from lite_chex.labelers.base import TOO_LONG, LabelBatch

if TYPE_CHECKING:
    import torch

    Forward = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

FORBIDDEN = -1e9
"""The logit of a certainty that a finding may not take."""


def token_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text with the tokenizer's special tokens, whole: nothing is cut."""
    if not texts:
        return []
    # verbose=False: the tokenizer's own warning about long texts is answered by an error row.
    return tokenizer(list(texts), add_special_tokens=True, truncation=False, verbose=False)["input_ids"]


def length_errors(ids: Sequence[Sequence[int]], max_length: int) -> tuple[str | None, ...] | None:
    """Per report None, or why it is no input for this model; None where all fit."""
    errors = tuple(f"{TOO_LONG}: {len(i)} tokens, at most {max_length}" if len(i) > max_length else None for i in ids)
    return errors if any(errors) else None


def logits_in_buckets(
    ids: Sequence[Sequence[int]], forward: Forward, shape: tuple[int, int], *, pad_id: int, batch_size: int
) -> np.ndarray:
    """Logits ``[n, *shape]`` of ``n`` reports in order; batches hold reports of like length, so little is padding.

    Args:
        forward: ``(input_ids [b, t], attention_mask [b, t]) -> logits [b, *shape]`` on any device.
    """
    import torch

    order = sorted(range(len(ids)), key=lambda i: (len(ids[i]), i))
    logits = np.zeros((len(ids), *shape), dtype=np.float32)
    with torch.inference_mode():
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            width = max(len(ids[i]) for i in rows)
            batch = torch.full((len(rows), width), pad_id, dtype=torch.long)
            mask = torch.zeros_like(batch)
            for j, i in enumerate(rows):
                batch[j, : len(ids[i])] = torch.tensor(ids[i], dtype=torch.long)
                mask[j, : len(ids[i])] = 1
            logits[rows] = forward(batch, mask).float().cpu().numpy()
    return logits


def label_batch(
    logits: np.ndarray, findings: FindingSet, errors: tuple[str | None, ...] | None, *, constrained: bool
) -> LabelBatch:
    """Certainties and probabilities of logits ``[n, findings, 4]`` in Certainty's order.

    constrained: No Finding is set to absent, with probability 1, where another finding vetoes it.
    """
    masked = np.where(findings.allowed, logits, FORBIDDEN)
    shifted = np.exp(masked - masked.max(axis=-1, keepdims=True))
    probabilities = (shifted / shifted.sum(axis=-1, keepdims=True)).astype(np.float32)
    values: LabelArray = masked.argmax(axis=-1).astype(np.int8)
    if constrained and findings.has_no_finding:
        vetoed = findings.vetoed(values)
        values = findings.consistent(values)
        probabilities[vetoed, -1] = np.eye(len(Certainty), dtype=np.float32)[Certainty.ABSENT]
    return LabelBatch(values, probabilities, errors)


def device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
