"""A tiny real model for the tests: random weights, a real tokenizer with a chat template, no network."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lite_chex.recipe import ModelSection, Recipe, load_recipe

LOCAL = ("127.0.0.1", "localhost", "::1", "0.0.0.0", "", None)
_asked: list[str] = []


def pytest_configure(config: pytest.Config) -> None:
    """The tests run on the CPU, wherever they run, but for ``-m gpu``. Workers side by side (``-n 2``) take one core
    each, and so do the commands that they start."""
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def _sockets_blocked() -> Iterator[None]:
    """Nothing may be sent anywhere: every connection and look-up that leaves this machine is refused."""
    connect, lookup = socket.socket.connect, socket.getaddrinfo

    def guarded_connect(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in LOCAL:
            _asked.append(str(address))
            raise OSError(f"tests may not connect to {address}")
        connect(self, address)

    def guarded_lookup(host: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name not in LOCAL and name != socket.gethostname():
            _asked.append(str(name))
            raise socket.gaierror(f"tests may not look up {name}")
        return lookup(host, *args, **kwargs)

    socket.socket.connect, socket.getaddrinfo = guarded_connect, guarded_lookup  # type: ignore[method-assign,assignment]
    yield
    socket.socket.connect, socket.getaddrinfo = connect, lookup  # type: ignore[method-assign]


@pytest.fixture(autouse=True)
def _nothing_was_sent() -> Iterator[None]:
    """Libraries swallow refused connections: a test fails if one was tried at all."""
    _asked.clear()
    yield
    assert not _asked, f"tried to reach {_asked}"


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 0.2M-parameter Llama with random weights and the demo's tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from lite_chex.model.backbone import load_tokenizer
    from lite_chex.recipe import shipped

    tokenizer = load_tokenizer(str(shipped("data_samples") / "tiny_base"))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=1024,
        initializer_range=0.3,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
    )
    folder = tmp_path_factory.mktemp("base")
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def model_section(base: Path, **changes: object) -> ModelSection:
    options: dict[str, object] = {"dtype": "float32", "load_in_4bit": False, "lora_r": 4, "lora_alpha": 8}
    return ModelSection(model_name_or_path=str(base), **(options | changes))  # type: ignore[arg-type]


@pytest.fixture
def tiny_recipe(tiny_base: Path, tmp_path: Path) -> Recipe:
    """A recipe whose every stage takes seconds; 4-bit base, LoRA, real trainers."""
    return make_recipe(tiny_base, tmp_path / "runs")


def make_recipe(base: Path, output_dir: Path, *changes: str) -> Recipe:
    small = [
        f"model.model_name_or_path={base}",
        "name=test",
        "model.lora_r=4",
        "data.train.0.limit=30",  # 27 to train on: 4 steps an epoch, so that a resumed run crosses into the next
        "data.validation.0.limit=24",
        "data.preference.0.limit=24",
        "data.test.0.limit=24",
        "sft.max_steps=6",
        "sft.eval_steps=3",
        "sft.save_steps=2",
        "sft.per_device_train_batch_size=8",
        "reward.max_steps=4",
        "reward.eval_steps=2",
        "reward.save_steps=2",
        "ppo.total_iterations=4",
        "ppo.value_model=adapter",
        "ppo.reports_per_iteration=4",
        "ppo.num_samples=2",
        "ppo.num_ppo_epochs=2",
        "ppo.num_mini_batches=2",
        "ppo.eval_steps=2",
        "ppo.save_steps=2",
        "dpo.max_steps=4",
        "dpo.eval_steps=2",
        "dpo.save_steps=2",
        "eval.bootstrap=50",
    ]
    recipe = load_recipe("tiny-cpu", [*small, *changes], str(output_dir))
    # One file each is enough for a test.
    recipe.data.train, recipe.data.preference = recipe.data.train[:1], recipe.data.preference[:1]
    return recipe


def train_all(recipe: Recipe) -> None:
    """SFT, preferences, reward model, PPO and DPO."""
    from rich.console import Console

    from lite_chex.train.dpo import train_dpo
    from lite_chex.train.ppo_loop import train_ppo
    from lite_chex.train.preferences import make_preferences
    from lite_chex.train.reward import train_rm
    from lite_chex.train.run import FINISHED, Stage
    from lite_chex.train.sft import train_sft

    quiet = Console(quiet=True)
    train_sft(recipe, quiet)
    make_preferences(recipe, quiet)
    train_rm(recipe, quiet)
    # The reward model of a random base may be at chance; the chain is what is tested here.
    path = Stage(recipe, "reward").dir / FINISHED
    path.write_text(json.dumps(json.loads(path.read_text()) | {"accuracy": 0.9}))
    train_ppo(recipe, quiet)
    train_dpo(recipe, quiet)


def random_labels(rng: np.random.Generator, n: int, findings: int = 13) -> np.ndarray:
    return rng.integers(0, 4, (n, findings)).astype(np.int8)
