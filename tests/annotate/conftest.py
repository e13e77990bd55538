"""The sample files, and servers that end with the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from annotation_samples import Files, Server, write_files


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return write_files(tmp_path)


@pytest.fixture
def serve() -> Iterator[object]:
    """Starts servers, and ends them after the test."""
    started: list[Server] = []

    def start(*arguments: str) -> Server:
        server = Server([*arguments])
        started.append(server)
        return server.start()

    yield start
    for server in started:
        server.kill()
