"""Peers run in environments of their own: made here, from one pinned requirements file each."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

HERE = Path(__file__).resolve().parent
STAMP = "installed.sha256"


class PeerError(Exception):
    """A peer that cannot be installed or run; the message says why, and the benchmark goes on without it."""


def ensure_env(folder: Path, requirements: str) -> Path:
    """The Python of ``folder``'s environment, made and filled where it is missing or from another file.

    Raises:
        PeerError: with pip's last line.
    """
    file = HERE / "requirements" / requirements
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = folder / STAMP
    if python.is_file() and stamp.is_file() and stamp.read_text(encoding="utf-8") == digest:
        return python
    for command in (
        [sys.executable, "-m", "venv", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(file)],
    ):
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        if found.returncode:
            raise PeerError(f"{file.name} does not install: {last_line(found.stderr or found.stdout)}")
    stamp.write_text(digest, encoding="utf-8")
    return python


def last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip()[:200] if lines else "no output"


def run_json(command: list[str], work: Path, job: Mapping[str, Any]) -> dict[str, Any]:
    """Run a script once: ``job`` goes in as its last argument (a file), the JSON it writes beside it comes back.

    Raises:
        PeerError: with the last line of what it printed.
    """
    work.mkdir(parents=True, exist_ok=True)
    file, out = work / "job.json", work / "result.json"
    out.unlink(missing_ok=True)
    file.write_text(json.dumps({**job, "result": str(out)}), encoding="utf-8")
    found = subprocess.run([*command, str(file)], capture_output=True, text=True, check=False)
    if found.returncode or not out.is_file():
        raise PeerError(last_line(found.stderr or found.stdout))
    return json.loads(out.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


class Worker:
    """A script that stays loaded in another environment and answers one JSON line per JSON line.

    It idles between questions, so that its timings can stand between those of this process.
    """

    def __init__(self, command: list[str], log: Path) -> None:
        self.log = log
        self._errors: IO[str] = log.open("w", encoding="utf-8")
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Raises PeerError with the last line of the worker's log if it has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it ended: the empty answer below says so
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        # Libraries print too: only a JSON object is an answer.
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)  # type: ignore[no-any-return]
        self._process.wait()
        raise PeerError(last_line(self.log.read_text(encoding="utf-8")))

    def close(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._errors.close()


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(url: str, seconds: float, process: subprocess.Popen[bytes] | None = None) -> bool:
    """Wait until a server answers ``url`` with 200; False when its ``process`` ended or ``seconds`` are over."""
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up and (process is None or process.poll() is None):
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as reply:  # not up yet
            if reply.status == 200:
                return True
        time.sleep(0.2)
    return False


def serve(answer: Any) -> None:
    """A worker's loop: each line of stdin is a question."""
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
