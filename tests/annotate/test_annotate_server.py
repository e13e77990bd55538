"""Who gets in, what each answer's headers say, and that nothing leaves this machine."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from annotation_samples import NO_NETWORK, Files, Server, write_files

from lite_chex.annotate.server import access_token
from lite_chex.annotate.store import Store
from lite_chex.errors import UserError

Start = Callable[..., Server]


def arguments(files: Files, *more: str) -> list[str]:
    chosen = [argument for spec in files.predictions for argument in ("--pred", spec)]
    store = str(files.folder / "j.sqlite")
    return ["compare", "--reports", str(files.reports), *chosen, "--store", store, "--port", "0", *more]


def test_a_token_is_needed_anywhere_but_here() -> None:
    assert access_token("127.0.0.1", None) is None
    assert access_token("localhost", "a-long-enough-token") == "a-long-enough-token"
    made = access_token("0.0.0.0", None)
    assert made is not None
    assert len(made) >= 20
    assert made != access_token("0.0.0.0", None)
    with pytest.raises(UserError, match="at least 12 characters"):
        access_token("0.0.0.0", "short")


def test_without_gradio_the_way_out_is_named(files: Files) -> None:
    blocked = "import sys; sys.modules['gradio'] = None\n" + NO_NETWORK
    command = [sys.executable, "-c", blocked, "annotate", *arguments(files)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "pip install 'lite-chex[annotate]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Files, Server]]:
    pytest.importorskip("gradio", reason="the server needs Gradio: pip install 'lite-chex[annotate]'")
    files = write_files(tmp_path_factory.mktemp("local"))
    server = Server(arguments(files)).start()
    yield files, server
    server.kill()


def test_local_pages_come_from_here_alone(local: tuple[Files, Server]) -> None:
    server = local[1]
    assert server.url.startswith("http://127.0.0.1:")
    status, page, headers = server.get("/")
    assert status == 200
    assert "http" not in page.replace("http-equiv", "")
    assert headers["content-security-policy"].startswith("default-src 'self'")
    assert headers["cache-control"] == "no-store"
    for name in ("app.js", "compare.js", "review.js", "label.js", "dom.js", "style.css"):
        status, text, _ = server.get(f"/static/{name}")
        assert status == 200
        assert "://" not in text
        assert "innerHTML" not in text
    for path in ("/docs", "/openapi.json", "/gradio_api/info", "/config", "/static/../session.py", "/upload"):
        assert server.get(path)[0] == 404


def test_other_names_and_other_pages_are_refused(local: tuple[Files, Server]) -> None:
    files, server = local
    assert server.get("/api/config", {"Host": "evil.example"})[0] == 421
    body = {"annotator": "Ann", "request": "0123456789"}
    assert server.post("/api/undo", body, {"Origin": "http://evil.example"})[0] == 403
    assert server.post("/api/undo", body, {"Origin": server.url.rstrip("/")})[0] == 200
    assert server.post("/api/judge", body, {"Content-Type": "text/plain"})[0] == 415
    assert server.post("/api/judge", ["no object"])[0] == 400
    assert server.post("/api/judge", {**body, "comment": "x" * 70_000})[0] == 415
    status, text, _ = server.post("/api/judge", {**body, "item": "c0"})
    assert status == 400
    assert "not part of the session" in json.loads(text)["error"]
    assert Store(files.folder / "j.sqlite").history() == 0


def test_what_is_answered_is_committed(local: tuple[Files, Server]) -> None:
    files, server = local
    item = json.loads(server.get("/api/next?annotator=Ann")[1])["item"]
    body = {"annotator": "Ann", "request": "one-request", "item": item["key"], "verdict": "left"}
    for _ in range(2):
        assert server.post("/api/judge", body)[0] == 200
    with Store(files.folder / "j.sqlite") as store:
        (row,) = store.judgements()
    assert set(row.versions) == {"lite_chex", "reports", "predictions"}
    assert set(row.versions["predictions"]) == {"sft", "ppo"}


def test_any_other_address_asks_for_the_token(files: Files, serve: Start) -> None:
    pytest.importorskip("gradio", reason="the server needs Gradio: pip install 'lite-chex[annotate]'")
    server = serve(*arguments(files, "--host", "0.0.0.0"))
    address, token = server.url.split("?token=")
    server.url = f"http://127.0.0.1:{address.rstrip('/').rsplit(':', 1)[1]}/"
    assert server.get("/")[0] == 401
    for path in ("/api/config", "/api/next?annotator=Ann", "/static/app.js"):
        assert server.get(path)[0] == 401
    assert server.get("/?token=wrong-token-here")[0] == 401
    assert server.get(f"/api/config?token={token}")[0] == 401  # only the page's own address takes it
    status, _, headers = server.get(f"/?token={token}")
    assert status == 303
    assert "HttpOnly" in headers["set-cookie"]
    cookie = headers["set-cookie"].split(";")[0]
    assert server.get("/api/config", {"Cookie": cookie})[0] == 200
    server.process.send_signal(signal.SIGINT)
    assert server.process.stdout is not None
    said = server.process.stdout.read()
    assert server.process.wait() == 130
    assert "holds 0 compare judgements" in said
    assert "Traceback" not in said


def test_a_short_token_leaves_no_store(files: Files) -> None:
    code = [sys.executable, "-c", NO_NETWORK, "annotate", *arguments(files, "--token", "short")]
    done = subprocess.run(code, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "--token must have at least 12 characters" in done.stderr
    assert not (files.folder / "j.sqlite").exists()


def test_a_taken_port_is_named(files: Files, serve: Start, tmp_path: Path) -> None:
    pytest.importorskip("gradio", reason="the server needs Gradio: pip install 'lite-chex[annotate]'")
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [*arguments(files)[:-1], port]
        code = [sys.executable, "-c", NO_NETWORK, "annotate", *command]
        done = subprocess.run(code, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert f"--port {port}: cannot listen there" in done.stderr
