"""The sample files, servers that end with the test, and a small run for the loop."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from annotation_samples import Files, Server, write_files
from rich.console import Console

from lite_chex.annotate.store import Store
from lite_chex.recipe import Recipe
from tests.conftest import make_recipe


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return write_files(tmp_path)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "j.sqlite")


@pytest.fixture
def serve() -> Iterator[object]:
    """Starts servers, and ends them after the test."""
    started: list[Server] = []

    def start(*arguments: str, group: tuple[str, ...] = ("annotate",)) -> Server:
        server = Server([*arguments], group)
        started.append(server)
        return server.start()

    yield start
    for server in started:
        server.kill()


@pytest.fixture(scope="session")
def sft_run(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A run that has SFT alone."""
    from lite_chex.train.sft import train_sft

    small = ("preferences.num_edits=1", "preferences.num_samples=2", "data.test.0.limit=12")
    recipe = make_recipe(tiny_base, tmp_path_factory.mktemp("runs"), *small)
    train_sft(recipe, Console(quiet=True))
    return recipe


@pytest.fixture
def run(sft_run: Recipe, tmp_path: Path) -> Recipe:
    """A copy of it, to work on."""
    copy = sft_run.model_copy(deep=True)
    copy.output_dir = str(tmp_path / "runs")
    shutil.copytree(sft_run.run_dir, copy.run_dir)
    return copy
