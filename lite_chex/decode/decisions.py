"""Distributions over the four candidates of a decision: what is allowed, forced, chosen, and how likely.

Shapes: N answers, T findings, 4 certainties. One definition for decoding, sampling, PPO and calibration.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lite_chex.findings import Certainty, FindingSet

if TYPE_CHECKING:
    import torch

_OUT = -1e9
"""Instead of -inf, so that p·log p of an excluded candidate is 0 and not NaN."""


def allowed_scores(logits: torch.Tensor, findings: FindingSet) -> torch.Tensor:
    """``[N, T, 4]`` with the candidates a finding may never take pushed out."""
    import torch

    allowed = torch.as_tensor(findings.allowed, device=logits.device)
    return logits.masked_fill(~allowed, _OUT)


def vetoed(values: torch.Tensor, findings: FindingSet) -> torch.Tensor:
    """``[N, T] -> bool [N]``: No Finding is forced to absent by the values before it."""
    import torch

    vetoing = torch.as_tensor(findings.vetoing, device=values.device)
    present = (values == Certainty.POSITIVE) | (values == Certainty.UNCERTAIN)
    return (present & vetoing).any(dim=-1)


def choose(scores: torch.Tensor, findings: FindingSet) -> torch.Tensor:
    """The highest allowed score at each decision, No Finding after its veto: ``[N, T, 4] -> int64 [N, T]``.

    Ties go to the first certainty in Certainty's order. Gumbel noise added to ``scores`` beforehand
    makes this exact sampling.
    """
    values = allowed_scores(scores, findings).argmax(dim=-1)
    if findings.has_no_finding:
        values[:, -1] = values[:, -1].masked_fill(vetoed(values, findings), Certainty.ABSENT)
    return values


def free_decisions(values: torch.Tensor, findings: FindingSet) -> torch.Tensor:
    """``[N, T]`` bool: False where a decision was forced (it is no action and has no KL or entropy)."""
    import torch

    free = torch.ones_like(values, dtype=torch.bool)
    if findings.has_no_finding:
        free[:, -1] = ~vetoed(values, findings)
    return free


def log_probs(
    logits: torch.Tensor, values: torch.Tensor, findings: FindingSet, temperature: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of all allowed candidates and which decisions were free.

    logits: fp32 ``[N, T, 4]``; values: ``[N, T]``, the prefix each decision was made under.
    Returns ``[N, T, 4]`` (a forced decision holds 0 at absent) and bool ``[N, T]``.
    """
    import torch

    scores = allowed_scores(logits / temperature, findings)
    free = free_decisions(values, findings)
    forced = torch.full_like(scores, _OUT)
    forced[..., Certainty.ABSENT] = 0.0
    scores = torch.where(free.unsqueeze(-1), scores, forced)
    return torch.log_softmax(scores, dim=-1), free


def chosen_log_probs(log_p: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """``[N, T, 4], [N, T] -> [N, T]``."""
    return log_p.gather(-1, values.unsqueeze(-1)).squeeze(-1)


def margins(logits: torch.Tensor, values: torch.Tensor, findings: FindingSet) -> torch.Tensor:
    """How far the best allowed candidate lies before the second best: ``[N, T, 4], [N, T] -> [N, T]`` in logits,
    infinite where the decision was forced."""
    import torch

    best = allowed_scores(logits, findings).topk(2, dim=-1).values
    return (best[..., 0] - best[..., 1]).masked_fill(~free_decisions(values, findings), torch.inf)
