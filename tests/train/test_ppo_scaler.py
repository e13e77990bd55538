"""PPO's gradient scaler: off on a CPU, exact where it scales by a power of two, kept by a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from lite_chex.model.adapters import copy_into_default, new_adapter, save_adapter
from lite_chex.model.backbone import load_base
from lite_chex.recipe import Recipe
from lite_chex.train import ppo_loop
from lite_chex.train.examples import validation_gold
from lite_chex.train.roles import Roles
from lite_chex.train.run import FINISHED, Stage
from lite_chex.train.setup import Validation
from tests.conftest import make_recipe

SMALL = (
    "data.train.0.limit=8",
    "data.preference.0.limit=8",
    "data.validation.0.limit=4",
    "ppo.reports_per_iteration=2",
    "ppo.num_ppo_epochs=1",
    "ppo.learning_rate=1e-3",
)


@pytest.fixture(scope="module")
def recipe(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A run with an SFT and a reward adapter that nobody trained."""
    made = make_recipe(tiny_base, tmp_path_factory.mktemp("runs"), *SMALL)
    for name, labels, kind in (("sft", None, "CAUSAL_LM"), ("reward", 1, "SEQ_CLS")):
        stage = Stage(made, name)
        stage.begin(False)
        torch.manual_seed(0)
        backbone = load_base(made.model, num_labels=labels)
        new_adapter(backbone, made.model, task_type=kind)
        if name == "reward":
            copy_into_default(backbone.model, Stage(made, "sft").dir)
        save_adapter(backbone.model, stage.dir)
        means = {f"score_mean_{t}": 0.0 for t in range(len(made.findings))}
        (stage.dir / FINISHED).write_text(json.dumps({"score_deviation": 1.0, **means}))
    return made


def new_loop(recipe: Recipe, scaler: torch.amp.GradScaler | None = None) -> ppo_loop.Loop:
    roles = Roles.load(recipe, Stage(recipe, "sft").dir, Stage(recipe, "reward").dir)
    validation = Validation(roles.setup, validation_gold(recipe, "PPO"))
    pool = ppo_loop._pool(recipe, roles)
    loop = ppo_loop.Loop(recipe, roles, Stage(recipe, "ppo"), pool, validation, Console(quiet=True))
    if scaler is not None:
        loop.scaler = scaler
    return loop


def policy_of(loop: ppo_loop.Loop) -> list[torch.Tensor]:
    return [p.detach().clone() for p in loop.roles.policy_parameters()]


def test_scaling_by_a_power_of_two_changes_nothing(recipe: Recipe) -> None:
    plain, scaled = new_loop(recipe), new_loop(recipe, torch.amp.GradScaler("cpu", init_scale=1024.0))
    assert not plain.scaler.is_enabled()  # no fp16, no card
    before = policy_of(plain)
    figures = [loop.iterate(0) for loop in (plain, scaled)]
    assert "loss_scale" not in figures[0]
    assert figures[1]["loss_scale"] == 1024
    assert figures[0]["grad_norm/policy"] == pytest.approx(figures[1]["grad_norm/policy"], rel=1e-5)
    assert any(not torch.equal(a, b) for a, b in zip(before, policy_of(plain), strict=True))
    for a, b in zip(policy_of(plain), policy_of(scaled), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_a_step_that_overflows_is_skipped_and_a_checkpoint_keeps_the_scale(recipe: Recipe) -> None:
    loop = new_loop(recipe, torch.amp.GradScaler("cpu", init_scale=2.0**127))
    before = policy_of(loop)
    loop.iterate(0)
    for a, b in zip(before, policy_of(loop), strict=True):
        assert torch.equal(a, b)
    assert loop.scaler.get_scale() < 2.0**127

    loop.stage.begin(False)
    loop.checkpoint(2)
    other = new_loop(recipe, torch.amp.GradScaler("cpu", init_scale=8.0))
    assert other.restore() == 2
    assert other.scaler.state_dict() == loop.scaler.state_dict()
    assert np.isfinite(other.scaler.get_scale())

    # Where nothing is scaled, the state says nothing, and neither does that of an earlier version.
    plain = new_loop(recipe)
    plain.stage.begin(False)
    plain.checkpoint(2)
    assert json.loads((plain.stage.checkpoints / "step-2" / ppo_loop.STATE).read_text())["scaler"] == {}
    assert new_loop(recipe).restore() == 2
