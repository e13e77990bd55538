"""PPO over decisions (eq. 3, 4): sample answers, score them once, update policy and value at the decisions.

What differs from the textbook: the action space is the 13 decisions of an answer, so the KL to the SFT
policy is exact at each decision (over its allowed candidates after renormalising; sampled over prefixes),
there are no full-vocabulary logits, and no answer can be unreadable. The exact KL is a loss term and the
returns hold only the later KL (see :func:`lite_chex.train.losses.step_rewards`). The reward model tells what all
four candidates of a decision earn, so that part of the advantage is exact too; what follows is sampled, against the
other answers to the same report (:func:`lite_chex.train.losses.expected_policy_loss`, ``leave_one_out``).

Steps of one iteration, as numbered in the code: 1 sample answers with the decision decoder, 2 score them
with all roles, 3 rewards and advantages, 4 update for some epochs, 5 log, validate, checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from lite_chex.decode import decisions, packed
from lite_chex.findings import LabelArray
from lite_chex.model.adapters import role
from lite_chex.train import losses
from lite_chex.train.roles import Roles
from lite_chex.train.setup import gumbel

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lite_chex.recipe import PPOSection


@dataclass
class Rollout:
    """``G`` reports with ``K`` answers each; N = G x K rows in report order. Tensors on the CPU.

    answers: int8 ``[G, K, T]``. log_p, ref_log_p: ``[N, T, 4]``. score: ``[N]``. values, known: ``[N, T]``.
    features: ``[N, T, hidden]`` of the reward adapter, kept only for a value head. The advantage of a choice is
    candidates ``[N, T, 4]``, what is known of every candidate's, plus rest ``[N, T]``, what followed the sampled
    one. returns, free: ``[N, T]``. deviation: what the advantages were divided by.
    """

    prompts: Sequence[list[int]]
    answers: LabelArray
    log_p: torch.Tensor
    ref_log_p: torch.Tensor
    score: torch.Tensor
    values: torch.Tensor
    known: torch.Tensor
    features: torch.Tensor | None
    free: torch.Tensor
    rest: torch.Tensor
    candidates: torch.Tensor
    returns: torch.Tensor
    deviation: torch.Tensor
    passes: float

    def rows(self, reports: Sequence[int]) -> torch.Tensor:
        k = self.answers.shape[1]
        return torch.tensor([g * k + i for g in reports for i in range(k)])


def chosen(log_p: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
    return decisions.chosen_log_probs(log_p, answers)


def sample(roles: Roles, bodies: Sequence[list[int]], drafts: LabelArray, section: PPOSection, seed: tuple[int, ...]):  # type: ignore[no-untyped-def]
    """Step 1: K answers per report, ``[G, K, T]``, and the mean number of forward passes they took."""
    decoder, k = roles.setup.decoder, section.num_samples
    repeated = [b for b in bodies for _ in range(k)]
    noise = gumbel((len(repeated), len(decoder.findings), 4), *seed)
    with role(roles.model, "policy"):
        decoder.refresh()
        found = decoder.decode(repeated, drafts.repeat(k, axis=0), noise=noise, temperature=section.temperature)
        decoder.refresh()
    return found.values.reshape(len(bodies), k, -1), found.passes


def batches(order: Sequence[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(order), size):
        yield list(order[start : start + size])


def score(
    roles: Roles, prompts: Sequence[list[int]], answers: LabelArray, section: PPOSection, kl_coef: float, passes: float
) -> Rollout:
    """Steps 2 and 3: every role reads the packed answers once; rewards, advantages and returns follow."""
    findings, template = roles.setup.recipe.findings, roles.setup.template
    parts: dict[str, list[torch.Tensor]] = {}
    for reports in batches(range(len(prompts)), section.per_device_train_batch_size):
        batch = _pack(roles, prompts, answers, reports)
        with torch.no_grad():
            log_p, free = decisions.log_probs(
                roles.logits("policy", batch), batch.values, findings, section.temperature
            )
            ref_log_p, _ = decisions.log_probs(roles.logits("ref", batch), batch.values, findings, section.temperature)
            rewards = roles.rewards(batch, log_p)
            values = roles.values(batch, rewards.known, rewards.features)
        found = {"log_p": log_p, "ref_log_p": ref_log_p, "free": free, "values": values, **rewards._asdict()}
        if roles.value_adapter:
            del found["features"]
        for key, tensor in found.items():
            parts.setdefault(key, []).append(tensor.cpu())
    all_ = {key: torch.cat(tensors) for key, tensors in parts.items()}
    actions = torch.from_numpy(answers.reshape(-1, len(template.tails))).long()
    if section.kl_estimator == "exact":
        kl = losses.categorical_kl(all_["log_p"], all_["ref_log_p"], all_["free"])
    else:
        kl = (chosen(all_["log_p"], actions) - chosen(all_["ref_log_p"], actions)) * all_["free"]
    paid = losses.step_rewards(all_["score"], kl, kl_coef, all_["free"], exact=section.kl_estimator == "exact")
    values = all_["values"] * all_["free"]
    advantages, returns = losses.gae(paid, values, all_["free"], section.gamma, section.lam)
    # What each candidate earns at once is known of all four: only the rest hangs on the one that was sampled.
    # How hard the cells to come are is the report's doing: its other answers are met by the same.
    rest = losses.leave_one_out(advantages - chosen(all_["candidates"], actions), all_["free"], answers.shape[1])
    deviation = losses.deviation(chosen(all_["candidates"], actions) + rest, all_["free"])
    return Rollout(
        prompts,
        answers,
        all_["log_p"],
        all_["ref_log_p"],
        all_["score"],
        values,
        all_["known"],
        all_.get("features"),
        all_["free"],
        rest / deviation,
        all_["candidates"] / deviation,
        returns,
        deviation,
        passes,
    )


def _pack(
    roles: Roles, prompts: Sequence[list[int]], answers: LabelArray, reports: Sequence[int]
) -> packed.PackedBatch:
    backbone = roles.setup.backbone
    return packed.pack(
        [prompts[g] for g in reports],
        [answers[g] for g in reports],
        roles.setup.template,
        backbone.tokenizer.pad_token_id,
        backbone.device,
    )


def scaler_for(roles: Roles) -> torch.amp.GradScaler:
    """Scales the loss where the base computes in fp16 on a card: the adapters are fp32, but the gradients that
    reach them pass through fp16 activations and would underflow. Does nothing anywhere else."""
    backbone = roles.setup.backbone
    on_fp16 = backbone.device.type == "cuda" and backbone.causal.dtype == torch.float16
    return torch.amp.GradScaler(backbone.device.type, enabled=on_fp16)


def update(
    roles: Roles,
    rollout: Rollout,
    optimizer: torch.optim.Optimizer,
    section: PPOSection,
    kl_coef: float,
    rng: np.random.Generator,
    scaler: torch.amp.GradScaler,
) -> dict[str, float]:
    """Step 4: some epochs of minibatches over the rollout; returns the mean of each logged figure.

    A step whose scaled gradients overflow is skipped, and the scale halved.
    """
    logged: dict[str, list[float]] = {}
    order = np.arange(len(rollout.prompts))
    size = -(-len(order) // section.num_mini_batches)
    for _ in range(section.num_ppo_epochs):
        rng.shuffle(order)
        for minibatch in batches(order.tolist(), size):
            actions = int(rollout.free[rollout.rows(minibatch)].sum())
            for reports in batches(minibatch, section.per_device_train_batch_size):
                share = int(rollout.free[rollout.rows(reports)].sum()) / max(actions, 1)
                found = _backward(roles, rollout, reports, section, kl_coef, share, scaler)
                for key, value in found.items():
                    logged.setdefault(key, []).append(value)
            scaler.unscale_(optimizer)
            # Clipped apart: a value loss that is still large must not shrink the policy's step.
            for name, group in zip(("policy", "value"), optimizer.param_groups):
                norm = torch.nn.utils.clip_grad_norm_(group["params"], section.max_grad_norm)
                if norm.isfinite() or not scaler.is_enabled():  # else the scaler skips this step
                    logged.setdefault(f"grad_norm/{name}", []).append(float(norm))
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
    return {key: float(np.mean(values)) for key, values in logged.items()}


def _backward(
    roles: Roles,
    rollout: Rollout,
    reports: list[int],
    section: PPOSection,
    kl_coef: float,
    share: float,
    scaler: torch.amp.GradScaler,
) -> dict[str, float]:
    """One packed forward and backward pass of policy and value over some reports, weighted by their share."""
    batch = _pack(roles, rollout.prompts, rollout.answers, reports)
    device, rows = batch.row.device, rollout.rows(reports)

    def of(tensor: torch.Tensor) -> torch.Tensor:
        return tensor[rows].to(device)

    free, old_log_p, ref_log_p = of(rollout.free), of(rollout.log_p), of(rollout.ref_log_p)
    log_p, _ = decisions.log_probs(
        roles.logits("policy", batch), batch.values, roles.setup.recipe.findings, section.temperature
    )
    policy = losses.policy_loss(
        chosen(log_p, batch.values), chosen(old_log_p, batch.values), of(rollout.rest), free, section.cliprange
    )
    known = losses.expected_policy_loss(log_p, old_log_p, of(rollout.candidates), free, section.cliprange)
    kl = losses.categorical_kl(log_p, ref_log_p, free)
    entropy = losses.entropy(log_p, free)
    penalty = kl_coef * losses.masked_mean(kl, free) if section.kl_estimator == "exact" else 0.0
    penalty = penalty - section.entropy_coef * losses.masked_mean(entropy, free)
    # The advantages were divided by their deviation: so is the penalty, and both coefficients are in units of score.
    loss = policy.loss + known + penalty / float(rollout.deviation)
    # The policy's graph is spent before the value adapter takes its place.
    scaler.scale(loss * share).backward()

    features = None if rollout.features is None else of(rollout.features)
    earned = of(rollout.known)
    values = roles.values(batch, earned, features if features is not None else earned)
    value = losses.value_loss(values, of(rollout.values), of(rollout.returns), free, section.cliprange_value)
    scaler.scale(section.vf_coef * value * share).backward()
    with torch.no_grad():
        returns = of(rollout.returns)[free]
        unexplained = (returns - values[free]).var() / returns.var().clamp(min=1e-8)
    return {
        "loss/policy": (policy.loss + known).item(),
        "loss/value": value.item(),
        "approxkl": policy.approxkl.item(),
        "clipfrac": policy.clipfrac.item(),
        "entropy": losses.masked_mean(entropy, free).item(),
        "value/explained_variance": 1 - unexplained.item(),
    }
