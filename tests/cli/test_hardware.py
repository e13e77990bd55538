"""``litechex plan`` and ``doctor``: readable at 80 columns, honest about clashes, silent on the network."""

from __future__ import annotations

import socket

import pytest
import torch
from typer.testing import CliRunner

import lite_chex.cli.hardware  # noqa: F401  (registers its commands)
from lite_chex.cli.app import app
from lite_chex.doctor import check_packages, examine, recipes_here
from lite_chex.errors import UserError
from lite_chex.model.unsloth_backend import choose_backend
from lite_chex.recipe import shipped_recipes

runner = CliRunner(env={"COLUMNS": "80"})
cpu_only = pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without a GPU")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)


def test_an_old_unsloth_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would attend both ways without a mask, and SFT would learn from answers that it sees."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 6))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object())
    for version, backend in (("2026.9.8", "transformers"), ("2026.10.1", "unsloth")):
        monkeypatch.setattr("importlib.metadata.version", lambda _, v=version: v)
        assert choose_backend("auto")[0] == backend
    monkeypatch.setattr("importlib.metadata.version", lambda _: "2026.9.8")
    with pytest.raises(UserError, match=r"unsloth 2026.9.8 is older than 2026.10"):
        choose_backend("unsloth")


def test_plan_prints_every_stage(no_network: None) -> None:
    found = runner.invoke(app, ["plan", "qwen2.5-7b-12gb", "--card", "12", "--details"])
    assert found.exit_code == 0, found.output
    assert max(map(len, found.output.splitlines())) <= 80
    assert "and 0.70 for driver" in " ".join(found.output.split())
    assert "GiB on a card of 12 GB" in found.output
    for word in ("sft", "reward", "ppo", "dpo", "label", "fits", "optimizer states of policy", "exact", "estimate"):
        assert word in found.output


def test_plan_says_what_to_change(no_network: None) -> None:
    found = runner.invoke(app, ["plan", "qwen2.5-7b-12gb", "--card", "9"])
    assert found.exit_code == 0
    assert "too big" in found.output
    assert "set dpo.per_device_train_batch_size=1 and model.max_length=" in found.output


def test_plan_refuses_a_card_of_nothing() -> None:
    found = runner.invoke(app, ["plan", "tiny-cpu", "--card", "0"])
    assert isinstance(found.exception, UserError)
    assert "--card" in str(found.exception)


def test_doctor_names_every_recipe(no_network: None) -> None:
    found = runner.invoke(app, ["doctor"])
    assert found.exit_code == 0, found.output
    assert max(map(len, found.output.splitlines())) <= 80
    for name in shipped_recipes():
        assert name in found.output
    assert "not tried" in found.output or "offline" in found.output


@cpu_only
def test_recipes_without_a_card() -> None:
    here = {row.name: row for row in recipes_here()}
    assert here["tiny-cpu"].fits
    assert "default" in here["tiny-cpu"].verdict
    assert not here["mistral-7b-24gb"].fits
    assert here["mistral-7b-24gb"].verdict == "needs a card"
    assert here["tiny-cpu"].model == "on disk"


def test_clashing_and_missing_packages_are_problems() -> None:
    lines = ["torch<1", "numpy>=1", "no-such-thing>=2", 'also-missing; extra == "gpu"', 'numpy<1; python_version < "3"']
    lines += ['rich>=1; extra == "plots"', 'rich>=1; extra == "test"', 'pytest>=8; extra == "test"']
    checks = check_packages(lines)
    found = {c.name: c for c in checks}
    assert [c.name for c in checks] == ["torch", "numpy", "no-such-thing", "rich"]
    assert found["torch"].status == "problem"
    assert 'pip install "torch<1"' in found["torch"].hint
    assert found["numpy"].status == "ok"
    assert found["no-such-thing"].value == "missing"
    assert "also-missing" not in found


def test_every_check_says_something(no_network: None) -> None:
    checks = examine()
    assert {"card", "machine", "packages", "disk", "hub"} <= {c.topic for c in checks}
    assert all(c.value for c in checks)
    assert all(c.hint for c in checks if c.status == "problem")


@cpu_only
def test_backend_without_a_card() -> None:
    assert choose_backend("auto") == ("transformers", "no CUDA device")
    assert choose_backend("transformers")[0] == "transformers"
    with pytest.raises(UserError, match=r"model\.backend"):
        choose_backend("unsloth")
