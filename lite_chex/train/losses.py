"""Pure tensor functions: every loss of the paper and every piece of PPO, to be read in one sitting.

Shapes: N answers, T decisions, C = 4 candidates, V vocabulary, M tokens. ``free`` is bool ``[N, T]``: a
forced decision is no action and takes part in nothing. Equation numbers are the paper's (CheX-LLM).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


def answer_loss(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Eq. 1: token cross-entropy of the answer given the prompt, weighted per token.

    logits ``[M, V]``, targets int64 ``[M]``, weights ``[M]`` -> scalar, the weighted mean.
    """
    losses = F.cross_entropy(logits.float(), targets, reduction="none")
    return (losses * weights).sum() / weights.sum()


def preference_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Eq. 2 (Bradley-Terry): ``-log sigmoid(R(x, chosen) - R(x, rejected))``, mean over pairs ``[P]``."""
    return -F.logsigmoid(chosen - rejected).mean()


def cell_preference_loss(log_p: Tensor, gold: Tensor, free: Tensor) -> Tensor:
    """Eq. 2 at each cell of a gold answer, in its form for one winner among four (Plackett-Luce): ``-log p(gold)``.

    log_p ``[G, T, C]``: the softmax of the candidates' rewards; gold int64 ``[G, T]`` -> mean over free cells.
    """
    return masked_mean(-log_p.gather(-1, gold.unsqueeze(-1)).squeeze(-1), free)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the True places; 0 where there is none."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def categorical_kl(log_p: Tensor, log_q: Tensor, free: Tensor) -> Tensor:
    """KL(p || q) at each decision, exact over its candidates: ``[N, T, C] -> [N, T]``, 0 where forced.

    An excluded candidate holds a large negative log-probability in both, so its term is 0.
    """
    kl = (log_p.exp() * (log_p - log_q)).sum(-1)
    return kl * free


def entropy(log_p: Tensor, free: Tensor) -> Tensor:
    """Entropy of each decision in nats: ``[N, T, C] -> [N, T]``, 0 where forced."""
    return -(log_p.exp() * log_p).sum(-1) * free


def step_rewards(score: Tensor, kl: Tensor, kl_coef: float, free: Tensor, *, exact: bool = True) -> Tensor:
    """Rewards of the decisions, ``[N, T]`` (eq. 3): the score ``[N]`` at the last free one, and the KL terms.

    exact: ``kl`` is the exact KL at each state and its gradient comes from a loss term, so the return of
    action t may only hold the *later* states' KL: state t+1's is paid at t. (Paid at its own step it would
    be the same for every action and teach nothing.)
    not exact: ``kl`` is the sampled log-ratio log pi(a_t) - log pi_ref(a_t), paid at its own step.
    """
    rewards = torch.zeros_like(kl)
    if exact:
        rewards[:, :-1] = -kl_coef * kl[:, 1:]
    else:
        rewards = -kl_coef * kl * free
    steps = torch.arange(free.shape[1], device=free.device)
    last = torch.where(free, steps, -1).max(dim=1).values
    rewards[torch.arange(len(last), device=free.device), last.clamp(min=0)] += score
    return rewards


def gae(rewards: Tensor, values: Tensor, free: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al. 2016): ``[N, T]`` advantages and returns.

    delta_t = r_t + gamma V_{t+1} - V_t, A_t = delta_t + gamma lam A_{t+1}; a forced decision is skipped,
    and its reward (a later KL) belongs to the free decision before it.
    """
    advantages = torch.zeros_like(rewards)
    next_value = torch.zeros_like(rewards[:, 0])
    next_advantage = torch.zeros_like(next_value)
    carried = torch.zeros_like(next_value)
    for t in reversed(range(rewards.shape[1])):
        is_free = free[:, t]
        reward = rewards[:, t] + carried
        delta = reward + gamma * next_value - values[:, t]
        advantage = delta + gamma * lam * next_advantage
        advantages[:, t] = torch.where(is_free, advantage, 0.0)
        next_value = torch.where(is_free, values[:, t], next_value)
        next_advantage = torch.where(is_free, advantage, next_advantage)
        carried = torch.where(is_free, 0.0, reward)
    return advantages, (advantages + values) * free


def deviation(values: Tensor, mask: Tensor) -> Tensor:
    """Standard deviation over the True places, never 0.

    Dividing advantages by it alone would change what beta weighs: divide the KL term by it too.
    """
    return (masked_mean((values - masked_mean(values, mask)) ** 2, mask) + 1e-8).sqrt()


def expected_policy_loss(
    log_p: Tensor, old_log_p: Tensor, advantages: Tensor, free: Tensor, cliprange: float
) -> Tensor:
    """The clipped surrogate of every candidate, expected under the policy that sampled: ``[N, T, C]`` each.

    Where an advantage is known for all candidates, their expectation replaces the one that was sampled: the same
    gradient on average, without the noise of sampling (Rao-Blackwell; "all-action" policy gradients).
    """
    ratio = (log_p - old_log_p).exp()
    surrogate = torch.max(-advantages * ratio, -advantages * ratio.clamp(1 - cliprange, 1 + cliprange))
    return masked_mean((old_log_p.exp() * surrogate).sum(-1), free)


def leave_one_out(values: Tensor, free: Tensor, k: int) -> Tensor:
    """Minus the mean over the same report's other answers (RLOO), ``[G x K, T]``; over all where there are none.

    The others were drawn independently, so the gradient stays the same on average; what all answers to a report
    share, and no value estimate foresees, drops out.
    """
    if k == 1:
        return (values - masked_mean(values, free)) * free
    grouped = (values * free).unflatten(0, (-1, k))
    counted = free.unflatten(0, (-1, k)).to(values.dtype)
    others = counted.sum(1, keepdim=True) - counted
    mean = (grouped.sum(1, keepdim=True) - grouped) / others.clamp(min=1)
    return ((grouped - mean) * counted).flatten(0, 1)


class PolicyLoss(NamedTuple):
    loss: Tensor
    approxkl: Tensor
    clipfrac: Tensor


def policy_loss(logp: Tensor, old_logp: Tensor, advantages: Tensor, free: Tensor, cliprange: float) -> PolicyLoss:
    """PPO's clipped surrogate (Schulman et al. 2017) over free decisions, ``[N, T]`` each."""
    log_ratio = (logp - old_logp) * free
    ratio = log_ratio.exp()
    surrogate = torch.max(-advantages * ratio, -advantages * ratio.clamp(1 - cliprange, 1 + cliprange))
    with torch.no_grad():
        approxkl = masked_mean(ratio - 1 - log_ratio, free)
        clipfrac = masked_mean(((ratio - 1).abs() > cliprange).float(), free)
    return PolicyLoss(masked_mean(surrogate, free), approxkl, clipfrac)


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, free: Tensor, cliprange_value: float) -> Tensor:
    """Eq. 4: squared error of V against the return, clipped around the old values, ``[N, T]`` each."""
    clipped = old_values + (values - old_values).clamp(-cliprange_value, cliprange_value)
    worst = torch.max((values - returns) ** 2, (clipped - returns) ** 2)
    return 0.5 * masked_mean(worst, free)
