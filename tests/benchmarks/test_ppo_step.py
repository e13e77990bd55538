"""The PPO benchmark: our process runs the trainer's own loop, TRL's gets the same work."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import ppo_step
import pytest
from peer_env import HERE, run_json

SMALL = [
    "model.dtype=float32", "model.load_in_4bit=false", "model.lora_r=4",
    "data.train.0.limit=12", "data.train.1.limit=4",
    "data.validation.0.limit=4", "data.preference.0.limit=4", "data.preference.1.limit=4",
    "ppo.reports_per_iteration=4", "ppo.num_samples=2", "ppo.per_device_train_batch_size=2",
]  # fmt: skip


@pytest.fixture
def options(tiny_base: Path) -> argparse.Namespace:
    own = [*SMALL, f"model.model_name_or_path={tiny_base}"]
    return argparse.Namespace(recipe="tiny-cpu", run=None, set=own, iterations=2, threads=1)


@pytest.mark.slow
def test_our_process(options: argparse.Namespace, tmp_path: Path) -> None:
    recipe = ppo_step.make_recipe(options, tmp_path)
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe.to_yaml(), encoding="utf-8")
    command = [sys.executable, str(HERE / "ppo_step.py"), "--ours"]
    found = run_json(command, tmp_path / "job", {"recipe": str(file), "iterations": 2, "threads": 1})
    step = ppo_step.Step("ours", **found)
    assert len(step.seconds) == 2
    assert step.median == step.seconds[1]
    assert step.passes is not None
    assert step.passes >= 1
    assert step.peak_mb == pytest.approx(step.base_mb + step.above_mb)
    assert 1 < step.above_mb < 1000


def test_trl_gets_the_same_work(options: argparse.Namespace, tmp_path: Path) -> None:
    recipe = ppo_step.make_recipe(options, tmp_path)
    job = ppo_step.trl_job(recipe, options)
    assert job["rollouts"] == 8  # 4 reports x 2 answers
    assert job["rows_per_pass"] == 4  # 2 reports x 2 answers
    assert len(job["prompts"]) == 2 * 8
    assert job["prompts"][0] == job["prompts"][1] != job["prompts"][2]
    assert job["lora_r"] == recipe.model.lora_r == 4
    json.dumps(job)


def test_summary_leaves_the_warm_up_out() -> None:
    # Medians of (3, 5) = 4 and of (7,) = 7, then of 4 and 7 = 5.5.
    steps = [
        ppo_step.Step("a", [9.0, 3.0, 5.0], 100, 140, 40),
        ppo_step.Step("a", [9.0, 7.0], 100, 160, 60),
        ppo_step.Step("b", [4.0], 100, 200, 100),
    ]
    found = ppo_step.summary(steps)
    assert found["a"] == {"seconds": 5.5, "base_mb": 100, "above_mb": 50}
    assert found["b"]["seconds"] == 4.0
    assert ppo_step.table_of(steps).row_count == 2
