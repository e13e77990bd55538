"""PPO's four roles on one 4-bit base: policy, ref (the frozen SFT adapter), reward and value.

One base with several adapters is the idea of Hydra-RLHF (arXiv 2309.00754) and of TRL's former
multi-adapter PPO; here each role is a LoRA, switched in one context manager, and nothing is merged: with
the adapter disabled a 4-bit base is the raw base, which would be the wrong reference.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lite_chex.decode import packed
from lite_chex.model.adapters import load_adapter, read_score, role, role_parameters
from lite_chex.model.backbone import load_base
from lite_chex.train.reward import reading, trained_pooling
from lite_chex.train.run import FINISHED
from lite_chex.train.setup import Setup

if TYPE_CHECKING:
    import torch
    from torch import nn

    from lite_chex.recipe import Recipe


class Rewards(NamedTuple):
    """score: ``[N]``. known: ``[N, T]``, what the decisions before earned, and what the policy expects of this one.
    candidates: ``[N, T, 4]``, how much more than that expectation each candidate earns at once (0 where the
    pooling does not tell). features: ``[N, T, hidden]``, the reward's, where each decision is predicted."""

    score: torch.Tensor
    known: torch.Tensor
    candidates: torch.Tensor
    features: torch.Tensor


@dataclass
class Roles:
    """The shared base with its adapters and heads.

    score: fp32 ``[1, hidden]`` head of the reward adapter. value_head: trainable, hidden -> 1, what is
    still to come beyond what is known (:meth:`rewards`). centre, scale: each
    decision's mean ``[T]`` and the deviation of scores within a report, both fixed on held-out pairs;
    scores are shifted and divided by them so that kl_coef means the same for every reward model. pooling: the
    reward model's own.
    """

    setup: Setup
    score: torch.Tensor
    value_head: nn.Linear
    centre: torch.Tensor
    scale: float
    value_adapter: bool
    pooling: str

    @classmethod
    def load(cls, recipe: Recipe, sft: Path, reward: Path) -> Roles:
        """Load the base once and every role's adapter onto it."""
        import torch

        backbone = load_base(recipe.model, packed=True)
        load_adapter(backbone, sft, "policy", trainable=True)
        load_adapter(backbone, sft, "ref", trainable=False)
        load_adapter(backbone, reward, "reward", trainable=False)
        value_adapter = recipe.ppo.value_model == "adapter"
        if value_adapter:
            load_adapter(backbone, reward, "value", trainable=True)
        score = read_score(reward).to(backbone.device)
        head = torch.nn.Linear(score.shape[1], 1, device=backbone.device)
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
        summary = json.loads((reward / FINISHED).read_text(encoding="utf-8"))
        # Dropout off in every role: the same answer must have the same log-probability in two passes.
        backbone.model.eval()
        if recipe.ppo.gradient_checkpointing:  # which transformers does only in training mode
            for module in backbone.model.modules():
                if isinstance(module, torch.nn.Dropout):
                    module.p = 0.0
            backbone.causal.gradient_checkpointing_enable({"use_reentrant": False})
            backbone.causal.train()
        return cls(
            Setup(recipe, backbone),
            score,
            head,
            torch.tensor([summary[f"score_mean_{t}"] for t in range(len(recipe.findings))], device=backbone.device),
            max(float(summary["score_deviation"]), 1e-6),
            value_adapter,
            trained_pooling(reward, recipe),
        )

    @property
    def model(self) -> nn.Module:
        return self.setup.backbone.model

    def policy_parameters(self) -> list[nn.Parameter]:
        return list(role_parameters(self.model, "policy"))

    def value_parameters(self) -> list[nn.Parameter]:
        adapter = list(role_parameters(self.model, "value")) if self.value_adapter else []
        return [*adapter, *self.value_head.parameters()]

    def logits(self, name: str, batch: packed.PackedBatch) -> torch.Tensor:
        """Candidate logits fp32 ``[N, T, 4]`` of ``policy`` or ``ref``; gradients only for the policy."""
        with role(self.model, name, trainable=name == "policy"):
            hidden = packed.hidden_states(self.setup.backbone.trunk, batch)
        return packed.decision_logits(hidden, batch, self.setup.decoder.weight)

    def rewards(self, batch: packed.PackedBatch, log_p: torch.Tensor) -> Rewards:
        """Scaled scores and what is known of them at each decision, for the policy's log_p ``[N, T, 4]``.

        With ``pooling: candidates`` the reward of every candidate is known before the choice, so the policy's
        expectation is too: a choice's advantage then is against the other choices at the same place, and the
        differences between reports, many times larger, do not enter.
        """
        import torch

        with role(self.model, "reward"), torch.no_grad():
            hidden = packed.hidden_states(self.setup.backbone.trunk, batch)
            findings, weight = self.setup.recipe.findings, self.setup.decoder.weight
            read = reading(hidden, batch, lambda h: h @ self.score.T, findings, self.pooling, weight)
            per_decision = (read.scores - self.centre) / self.scale
            known = per_decision.cumsum(-1) - per_decision
            candidates = torch.zeros_like(log_p)
            if self.pooling == "candidates":
                each = (read.log_p - self.centre[:, None]) / self.scale
                expected = (log_p.exp() * each).sum(-1)
                known = known + expected
                candidates = torch.where(log_p.exp() > 0, each - expected[..., None], 0.0)
        features = packed.at(hidden, batch, batch.predict)
        return Rewards(per_decision.sum(-1), known, candidates, features)

    def values(self, batch: packed.PackedBatch, known: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """V(s_t), fp32 ``[N, T]``: what is known plus the head's estimate of the rest."""
        if self.value_adapter:
            with role(self.model, "value", trainable=True):
                hidden = packed.hidden_states(self.setup.backbone.trunk, batch)
            features = packed.at(hidden, batch, batch.predict)
        return known + self.value_head(features).squeeze(-1)
