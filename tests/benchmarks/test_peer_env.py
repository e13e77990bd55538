"""Peers in environments of their own: what they answer, and what is said of one that does not work."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import peer_env
import pytest

ECHO = """
import sys
sys.path.insert(0, sys.argv[1])
from peer_env import serve

def answer(question):
    print("a library's chatter")
    if question["n"] < 0:
        raise SystemExit("the model is too large")
    return {"twice": 2 * question["n"]}

serve(answer)
"""


@pytest.fixture
def worker(tmp_path: Path) -> peer_env.Worker:
    script = tmp_path / "echo.py"
    script.write_text(ECHO, encoding="utf-8")
    return peer_env.Worker([sys.executable, str(script), str(peer_env.HERE)], tmp_path / "log")


def test_worker_answers_and_says_why_it_ended(worker: peer_env.Worker) -> None:
    assert worker.ask({"n": 4}) == {"twice": 8}
    assert worker.ask({"n": 5}) == {"twice": 10}
    with pytest.raises(peer_env.PeerError, match="the model is too large"):
        worker.ask({"n": -1})
    with pytest.raises(peer_env.PeerError, match="the model is too large"):
        worker.ask({"n": 1})
    worker.close()


def test_run_json_hands_over_and_back(tmp_path: Path) -> None:
    code = "import json,sys;j=json.load(open(sys.argv[1]));json.dump({'sum':j['a']+j['b']},open(j['result'],'w'))"
    assert peer_env.run_json([sys.executable, "-c", code], tmp_path, {"a": 2, "b": 3}) == {"sum": 5}
    with pytest.raises(peer_env.PeerError, match="KeyError: 'a'"):
        peer_env.run_json([sys.executable, "-c", code], tmp_path, {})


def test_filled_environment_is_used_again(tmp_path: Path) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.touch()
    pinned = peer_env.HERE / "requirements" / "trl-1.12.txt"
    (tmp_path / peer_env.STAMP).write_text(hashlib.sha256(pinned.read_bytes()).hexdigest(), encoding="utf-8")
    assert peer_env.ensure_env(tmp_path, pinned.name) == python
    assert python.read_bytes() == b""  # neither made nor filled anew


def test_every_requirement_is_pinned() -> None:
    files = sorted((peer_env.HERE / "requirements").glob("*.txt"))
    assert files
    for file in files:
        lines = [x for x in file.read_text(encoding="utf-8").splitlines() if x and not x.startswith("#")]
        assert lines
        assert all(line.count("==") == 1 for line in lines), file.name
