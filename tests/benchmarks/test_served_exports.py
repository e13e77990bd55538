"""The benchmark of served exports: what it counts, and what it says of a server that does not come up."""

from __future__ import annotations

import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import served_exports
from peer_env import PeerError, free_port

SERVER = """
import http.server, sys
class Models(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/v1/models" else 404)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Models).serve_forever()
"""


def test_differing_cells_and_the_margin_of_the_first() -> None:
    ours = np.array([[0, 1, 3], [2, 2, 3], [3, 3, 0]], dtype=np.int8)
    theirs = np.array([[0, 1, 3], [2, 0, 1], [3, 3, 0]], dtype=np.int8)
    probabilities = np.full((3, 3, 4), 0.1)
    probabilities[1, 1] = [0.3, 0.0, 0.6, 0.1]
    probabilities[1, 2] = [0.0, 0.0, 0.0, 1.0]  # decided under another prefix: no margin of rounding
    found = served_exports.compare(served_exports.Served("s", "1", 3), ours, probabilities, theirs)
    assert (found.same_reports, found.cells, found.different_cells) == (2, 9, 2)
    assert found.worst_margin == pytest.approx(np.log(2))


def test_a_server_is_waited_for_and_ended(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-c", SERVER, str(port)]
    with (
        served_exports.running(command, port, tmp_path / "log") as url,
        urllib.request.urlopen(f"{url}/models", timeout=5) as reply,
    ):
        assert reply.status == 200
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"{url}/models", timeout=5)


def test_a_server_that_ends_says_why(tmp_path: Path) -> None:
    broken = [sys.executable, "-c", "raise SystemExit('no such model')"]
    with pytest.raises(PeerError, match="no such model"), served_exports.running(broken, 9, tmp_path / "log"):
        pass


def test_commands_are_those_of_the_exports_readme(tmp_path: Path) -> None:
    vllm = served_exports.commands("vllm", "vllm", tmp_path, 640, 4, 8123)
    assert vllm[:3] == ["vllm", "serve", str(tmp_path)]
    assert "640" in vllm
    llama = served_exports.commands("gguf", "llama-server", tmp_path, 640, 4, 8123)
    assert llama[llama.index("-c") + 1] == "2560"  # llama.cpp shares its context out among the slots
