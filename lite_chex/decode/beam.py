"""Beam search over the decisions (the paper's Section 3.3): the best joint answer rather than the best next label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lite_chex.decode import decisions
from lite_chex.decode.batch_cache import BatchCache
from lite_chex.decode.decoder import DecisionDecoder, Decoded
from lite_chex.findings import Certainty

if TYPE_CHECKING:
    import torch


def beam_search(
    decoder: DecisionDecoder, bodies: Sequence[Sequence[int]], beams: int, batch_size: int | None = None
) -> Decoded:
    """The most likely of the answers that ``beams`` prefixes per report lead to.

    One forward pass per decision, all beams of a batch together. The logits returned are those made under
    the winning answer's prefixes. batch_size: rows of a pass, beams counted; unset: the decoder's budget of tokens.

    Raises:
        ValueError: if ``beams`` is below 1.
    """

    if beams < 1:
        raise ValueError("beams must be at least 1")
    n, findings = len(bodies), decoder.findings
    values = np.empty((n, len(findings)), dtype=np.int8)
    logits = np.empty((n, len(findings), 4), dtype=np.float32)
    # A beam is a row with an answer of its own; ``batches`` adds one answer per report.
    answer = decoder.template.max_answer_length
    widths = [(len(b) + answer) * beams - answer for b in bodies]
    for rows in decoder.batches(widths, max(batch_size // beams, 1) if batch_size else None):
        with decoder.inference():
            v, x = _search(decoder, [bodies[i] for i in rows], beams)
        values[rows], logits[rows] = v, x
    return Decoded(values, logits, float(len(findings)))


def _search(decoder: DecisionDecoder, bodies: Sequence[Sequence[int]], beams: int) -> tuple[np.ndarray, np.ndarray]:
    import torch

    findings, template = decoder.findings, decoder.template
    count, steps = len(bodies), len(findings)
    rows = count * beams
    state = BatchCache(decoder, rows)
    chunks = [[*bodies[r // beams], *template.head] for r in range(rows)]
    chosen = torch.zeros((rows, steps), dtype=torch.long)
    seen = torch.zeros((rows, steps, 4))
    total = torch.full((count, beams), -torch.inf)
    total[:, 0] = 0.0  # the beams of a report start equal: let one of them speak
    for t in range(steps):
        hidden = state.append(chunks)
        seen[:, t] = torch.einsum("bh,ch->bc", hidden, decoder.weight[t]).cpu()
        step = _log_probs(seen, chosen, t, decoder)
        candidates = (total.reshape(rows, 1) + step).reshape(count, beams * 4)
        # A stable sort keeps Certainty's order at ties, as the greedy decoder does.
        best = candidates.argsort(dim=1, descending=True, stable=True)[:, :beams]
        total = candidates.gather(1, best)
        parent = (best // 4 + torch.arange(count)[:, None] * beams).reshape(rows)
        value = (best % 4).reshape(rows)
        chosen, seen = chosen[parent], seen[parent]
        chosen[:, t] = value
        state.reorder(parent)
        chunks = [list(template.tails[t][v]) for v in value.tolist()]
    winner = torch.arange(count) * beams  # sorted: the first beam of a report is its best
    return chosen[winner].numpy().astype(np.int8), seen[winner].numpy()


def _log_probs(seen: torch.Tensor, chosen: torch.Tensor, t: int, decoder: DecisionDecoder) -> torch.Tensor:
    """Log-probabilities of decision t, ``[rows, 4]``; a forced decision leaves one candidate."""
    prefix = chosen.clone()
    prefix[:, t:] = Certainty.ABSENT
    log_p, _ = decisions.log_probs(seen, prefix, decoder.findings)
    return log_p[:, t]
