"""Every loss worked out by hand, and the KL estimators checked by enumerating all answers."""

from __future__ import annotations

import math

import pytest
import torch

from lite_chex.train import losses

ALL = torch.ones(1, 3, dtype=torch.bool)


def test_answer_loss_is_the_weighted_mean_cross_entropy() -> None:
    # Two tokens, two words: p = (1/2, 1/2) and (3/4, 1/4); weights 1 and 3; both targets are word 0.
    logits = torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0]])
    found = losses.answer_loss(logits, torch.tensor([0, 0]), torch.tensor([1.0, 3.0]))
    assert found.item() == pytest.approx((math.log(2) + 3 * math.log(4 / 3)) / 4, abs=1e-6)


def test_preference_loss() -> None:
    # sigmoid(ln 3) = 3/4 and sigmoid(0) = 1/2
    found = losses.preference_loss(torch.tensor([math.log(3.0), 1.0]), torch.tensor([0.0, 1.0]))
    assert found.item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2, abs=1e-6)


def test_cell_preference_loss_over_free_cells() -> None:
    log_p = torch.tensor([[[0.5, 0.25, 0.125, 0.125], [0.25, 0.25, 0.25, 0.25], [1.0, 1e-30, 1e-30, 1e-30]]]).log()
    found = losses.cell_preference_loss(log_p, torch.tensor([[1, 0, 1]]), torch.tensor([[True, True, False]]))
    assert found.item() == pytest.approx(math.log(4), abs=1e-6)


def test_expected_policy_loss_clips_each_candidate() -> None:
    # The policy was even over two candidates with advantages +1 and -1 and moved to (0.75, 0.25): ratios 1.5, 0.5.
    old, new = torch.tensor([[[0.5, 0.5]]]).log(), torch.tensor([[[0.75, 0.25]]]).log()
    found = losses.expected_policy_loss(new, old, torch.tensor([[[1.0, -1.0]]]), torch.ones(1, 1), 0.2)
    # min(1.5, 1.2) * 1 and min(0.5 * -1, 0.8 * -1), each with probability 1/2
    assert found.item() == pytest.approx(-0.5 * 1.2 + 0.5 * 0.8, abs=1e-6)


def test_kl_and_entropy() -> None:
    p = torch.tensor([[[0.5, 0.5, 1e-30, 1e-30]]]).log()
    q = torch.tensor([[[0.25, 0.75, 1e-30, 1e-30]]]).log()
    free = torch.ones(1, 1, dtype=torch.bool)
    assert losses.categorical_kl(p, q, free).item() == pytest.approx(
        0.5 * math.log(2) + 0.5 * math.log(2 / 3), abs=1e-6
    )
    assert losses.entropy(p, free).item() == pytest.approx(math.log(2), abs=1e-6)
    assert losses.categorical_kl(p, q, ~free).item() == losses.entropy(p, ~free).item() == 0


def test_step_rewards_pay_only_the_later_kl() -> None:
    kl = torch.tensor([[1.0, 2.0, 3.0]])
    exact = losses.step_rewards(torch.tensor([10.0]), kl, 0.1, ALL)
    torch.testing.assert_close(exact, torch.tensor([[-0.2, -0.3, 10.0]]))
    sampled = losses.step_rewards(torch.tensor([10.0]), kl, 0.1, ALL, exact=False)
    torch.testing.assert_close(sampled, torch.tensor([[-0.1, -0.2, 9.7]]))


def test_the_score_goes_to_the_last_free_decision() -> None:
    free = torch.tensor([[True, True, False]])
    found = losses.step_rewards(torch.tensor([10.0]), torch.tensor([[1.0, 2.0, 0.0]]), 0.1, free)
    torch.testing.assert_close(found, torch.tensor([[-0.2, 10.0, 0.0]]))


def test_gae_by_hand() -> None:
    # gamma 1, lam 1/2. deltas: 0+2-1 = 1, 0+3-2 = 1, 4-3 = 1. A3 = 1, A2 = 1+1/2, A1 = 1+3/4.
    values = torch.tensor([[1.0, 2.0, 3.0]])
    advantages, returns = losses.gae(torch.tensor([[0.0, 0.0, 4.0]]), values, ALL, 1.0, 0.5)
    torch.testing.assert_close(advantages, torch.tensor([[1.75, 1.5, 1.0]]))
    torch.testing.assert_close(returns, torch.tensor([[2.75, 3.5, 4.0]]))


def test_gae_skips_forced_decisions() -> None:
    # The middle decision is forced: its reward of 2 belongs to the first, whose next value is the third's.
    free = torch.tensor([[True, False, True]])
    values = torch.tensor([[1.0, 99.0, 3.0]])
    advantages, returns = losses.gae(torch.tensor([[1.0, 2.0, 4.0]]), values, free, 1.0, 1.0)
    # A3 = 4-3 = 1; A1 = (1+2) + 3 - 1 + A3 = 6
    torch.testing.assert_close(advantages, torch.tensor([[6.0, 0.0, 1.0]]))
    torch.testing.assert_close(returns, torch.tensor([[7.0, 0.0, 4.0]]))


def test_deviation_over_free_places() -> None:
    free = torch.tensor([[True, True, False]])
    assert losses.deviation(torch.tensor([[1.0, 3.0, 50.0]]), free).item() == pytest.approx(1.0, abs=1e-6)
    assert losses.deviation(torch.ones(1, 3), free) > 0


def test_leave_one_out_by_hand() -> None:
    # Two reports with three answers each; the last answer's second decision is forced.
    values = torch.tensor([[1.0, 4.0], [2.0, 6.0], [6.0, 9.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    free = torch.ones(6, 2, dtype=torch.bool)
    free[2, 1] = False
    found = losses.leave_one_out(values, free, 3)
    torch.testing.assert_close(found[:, 0], torch.tensor([-3.0, -1.5, 4.5, 0.0, 0.0, 0.0]))
    torch.testing.assert_close(found[:3, 1], torch.tensor([-2.0, 2.0, 0.0]))
    # One answer each: minus the mean over the eleven free places, 31 - 9 (forced) = 22 over 11.
    alone = losses.leave_one_out(values, free, 1)
    torch.testing.assert_close(alone[:3], torch.tensor([[-1.0, 2.0], [0.0, 4.0], [4.0, 0.0]]))


def test_policy_loss_clips() -> None:
    # ratios 1.5 and 0.5, advantages +1 and +1, cliprange 0.2: the surrogate is min(1.5, 1.2) and min(0.5, 0.8).
    old = torch.zeros(1, 2)
    new = torch.tensor([[math.log(1.5), math.log(0.5)]])
    found = losses.policy_loss(new, old, torch.ones(1, 2), torch.ones(1, 2, dtype=torch.bool), 0.2)
    assert found.loss.item() == pytest.approx(-(1.2 + 0.5) / 2, abs=1e-6)
    assert found.clipfrac.item() == 1.0
    # mean of r - 1 - ln r
    assert found.approxkl.item() == pytest.approx((0.5 - math.log(1.5) - 0.5 - math.log(0.5)) / 2, abs=1e-6)


def test_value_loss_takes_the_worse_of_clipped_and_not() -> None:
    # V 2, old 0, clip 0.2, return 1: (2-1)^2 = 1 against (0.2-1)^2 = 0.64; half of the larger.
    one = torch.ones(1, 1, dtype=torch.bool)
    found = losses.value_loss(torch.tensor([[2.0]]), torch.zeros(1, 1), torch.ones(1, 1), one, 0.2)
    assert found.item() == pytest.approx(0.5, abs=1e-7)


BETA, C = 0.7, 4


class TwoDecisions:
    """A policy over 2 decisions x 4 choices with free logits, a reference and a score for each answer."""

    def __init__(self) -> None:
        g = torch.Generator().manual_seed(1)
        self.first = torch.randn(C, generator=g, dtype=torch.float64, requires_grad=True)
        self.second = torch.randn(C, C, generator=g, dtype=torch.float64, requires_grad=True)
        self.ref_first = torch.randn(C, generator=g, dtype=torch.float64).log_softmax(-1)
        self.ref_second = torch.randn(C, C, generator=g, dtype=torch.float64).log_softmax(-1)
        self.score = torch.randn(C, C, generator=g, dtype=torch.float64)

    def log_p(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Per answer ``[16, 2, 4]`` of the policy and of the reference."""
        first, second = self.first.log_softmax(-1), self.second.log_softmax(-1)
        ours = torch.stack([torch.stack([first, second[a]]) for a in range(C) for _ in range(C)])
        ref = torch.stack([torch.stack([self.ref_first, self.ref_second[a]]) for a in range(C) for _ in range(C)])
        return ours, ref

    def gradient(self, loss: torch.Tensor) -> torch.Tensor:
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, [self.first, self.second], retain_graph=True)])


@pytest.mark.parametrize("exact", [True, False])
def test_kl_estimators_have_the_gradient_of_equation_3(exact: bool) -> None:
    """Averaged over all 16 answers, the PPO loss at ratio 1 has exactly the gradient of E[R] - beta KL."""
    world = TwoDecisions()
    answers = torch.tensor([[a, b] for a in range(C) for b in range(C)])
    log_p, ref = world.log_p()
    chosen = log_p.gather(-1, answers[..., None]).squeeze(-1)
    weight = chosen.sum(-1).exp()
    ref_chosen = ref.gather(-1, answers[..., None]).squeeze(-1)
    objective = (weight * (world.score.flatten() - BETA * (chosen - ref_chosen).sum(-1))).sum()
    wanted = -world.gradient(objective)

    log_p, ref = world.log_p()
    free = torch.ones(16, 2, dtype=torch.bool)
    chosen = log_p.gather(-1, answers[..., None]).squeeze(-1)
    kl = losses.categorical_kl(log_p, ref, free)
    paid = kl if exact else chosen - ref.gather(-1, answers[..., None]).squeeze(-1)
    rewards = losses.step_rewards(
        world.score.flatten().float(), paid.detach().float(), BETA, free, exact=exact
    ).double()
    advantages, _ = losses.gae(rewards, torch.zeros(16, 2, dtype=torch.float64), free, 1.0, 1.0)
    old = chosen.detach()
    answer_weight = old.sum(-1).exp()[:, None]  # each answer as often as the policy samples it
    loss = -(answer_weight * advantages * (chosen - old).exp()).sum()
    if exact:
        loss = loss + BETA * (answer_weight * kl).sum()
    torch.testing.assert_close(world.gradient(loss), wanted, atol=1e-6, rtol=0)


@pytest.mark.parametrize("lam", [1.0, 0.2])
def test_known_candidates_give_the_same_gradient_with_less_noise(lam: float) -> None:
    """A score that adds up over the decisions: what each candidate earns, expected, and the rest as sampled."""
    world = TwoDecisions()
    answers = torch.tensor([[a, b] for a in range(C) for b in range(C)])
    log_p = world.log_p()[0]
    old = log_p.detach()
    chosen, old_chosen = (p.gather(-1, answers[..., None]).squeeze(-1) for p in (log_p, old))
    weight = old_chosen.sum(-1).exp()
    first = torch.randn(C, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    earns = torch.stack([torch.stack([first, world.score[a]]) for a in range(C) for _ in range(C)])
    expected = (old.exp() * earns).sum(-1)
    earned = earns.gather(-1, answers[..., None]).squeeze(-1)
    known = torch.stack([expected[:, 0], earned[:, 0] + expected[:, 1]], dim=1)
    free = torch.ones(16, 2, dtype=torch.bool)
    score = torch.stack([torch.zeros(16, dtype=torch.float64), earned.sum(1)], dim=1)
    advantages, _ = losses.gae(score, known, free, 1.0, lam)
    candidates = earns - expected[..., None]
    rest = advantages - candidates.gather(-1, answers[..., None]).squeeze(-1)

    ratio = (chosen - old_chosen).exp()
    sampled = -(advantages * ratio).sum(1)
    split = torch.stack(
        [
            2 * losses.expected_policy_loss(log_p[i : i + 1], old[i : i + 1], candidates[i : i + 1], free[:1], 9.0)
            for i in range(16)
        ]
    ) - (rest * ratio).sum(1)
    gradients = [torch.stack([world.gradient(x) for x in of_answer]) for of_answer in (sampled, split)]
    means = [(weight[:, None] * g).sum(0) for g in gradients]
    torch.testing.assert_close(means[1], means[0], atol=1e-9, rtol=0)
    noise = [(weight[:, None] * (g - m) ** 2).sum() for g, m in zip(gradients, means, strict=True)]
    assert noise[1] < 0.5 * noise[0]


def test_the_exact_kl_paid_at_its_own_step_teaches_nothing() -> None:
    """What step_rewards avoids: the same penalty for every action cancels at the last decision."""
    world = TwoDecisions()
    answers = torch.tensor([[a, b] for a in range(C) for b in range(C)])
    log_p, ref = world.log_p()
    chosen = log_p.gather(-1, answers[..., None]).squeeze(-1)
    kl = losses.categorical_kl(log_p, ref, torch.ones(16, 2, dtype=torch.bool)).detach()
    weight = chosen.detach().sum(-1).exp()[:, None]
    loss = (weight * BETA * kl[:, 1:] * (chosen - chosen.detach()).exp()[:, 1:]).sum()
    second = torch.autograd.grad(loss, world.second)[0]
    assert second.abs().max().item() < 1e-12
