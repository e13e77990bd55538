"""Who gets in, what each answer's headers say, and that nothing leaves this machine."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from annotation_samples import NO_NETWORK, Files, Server, write_files

from lite_chex.annotate.items import make_item
from lite_chex.annotate.server import PAGE, access_token
from lite_chex.annotate.store import Store
from lite_chex.errors import UserError
from lite_chex.findings import PAPER13

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
    deep = b"[" * 60_000 + b"]" * 60_000  # nested deeper than Python's parser goes
    for content in (deep, b"{"):
        assert server.send("/api/judge", content[:60_000])[0] == 400
    assert Store(files.folder / "j.sqlite").history() == 0


def test_what_is_answered_is_committed(local: tuple[Files, Server]) -> None:
    files, server = local
    item = json.loads(server.get("/api/next?annotator=Ann")[1])["item"]
    body = {"annotator": "Ann", "request": "one-request", "item": item["key"], "shown": item["shown"]}
    body["verdict"] = "left"
    status, text, _ = server.post("/api/judge", {**body, "shown": "0123456789abcdef"})
    assert status == 400
    assert "reload the page" in json.loads(text)["error"]
    for _ in range(2):
        assert server.post("/api/judge", body)[0] == 200
    with Store(files.folder / "j.sqlite") as store:
        (row,) = store.judgements()
    assert set(row.versions) == {"lite_chex", "reports", "id_column", "predictions"}
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
    # Browsers send a host's cookies to all its ports: two sessions must not overwrite each other's.
    assert headers["set-cookie"].startswith(f"litechex_token_{server.url.rstrip('/').rsplit(':', 1)[1]}=")
    cookie = headers["set-cookie"].split(";")[0]
    assert server.get("/api/config", {"Cookie": cookie})[0] == 200
    server.process.send_signal(signal.SIGINT)
    assert server.process.stdout is not None
    said = server.process.stdout.read()
    assert server.process.wait() == 130
    assert "holds 0 compare judgements" in said
    assert "--token or LITECHEX_TOKEN" in said
    assert "Traceback" not in said


def test_the_printed_address_takes_any_token(files: Files, serve: Start) -> None:
    pytest.importorskip("gradio", reason="the server needs Gradio: pip install 'lite-chex[annotate]'")
    server = serve(*arguments(files, "--token", "a b&c#d+e/100%é"))
    assert server.url.endswith("/?token=a%20b%26c%23d%2Be%2F100%25%C3%A9")
    status, _, headers = server.get("/" + server.url.rsplit("/", 1)[1])
    assert status == 303
    assert server.get("/", {"Cookie": headers["set-cookie"].split("; ")[0]})[0] == 200


def test_paths_are_printed_as_they_are(files: Files, serve: Start) -> None:
    pytest.importorskip("gradio", reason="the server needs Gradio: pip install 'lite-chex[annotate]'")
    store = files.folder / "study [red] one.sqlite"
    with Store(store) as opened:
        opened.add_items([make_item("label", PAPER13, "elsewhere", "another report", ())])
    chosen = arguments(files)
    chosen[chosen.index("--store") + 1] = str(store)
    said = serve(*chosen).interrupt()
    assert f"Stopped; {store} holds 0 compare judgements" in said
    chosen[-2:] = ["--label-studio", str(files.folder / "[b]tasks.json")]
    command = [sys.executable, "-c", NO_NETWORK, "annotate", *chosen]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "[b]tasks.json: 9 tasks" in done.stdout


def test_a_store_of_another_study_is_named_at_the_start(files: Files, serve: Start) -> None:
    pytest.importorskip("gradio", reason="the server needs Gradio: pip install 'lite-chex[annotate]'")
    with Store(files.folder / "j.sqlite") as opened:
        opened.add_items([make_item("label", PAPER13, "s1", "another report", ())])
    server = serve(*arguments(files))
    held = [line for line in server.seen if "also holds" in line]
    assert held == [
        f"{files.folder}/j.sqlite: also holds 1 report that {files.reports} does not; "
        "another --store keeps studies apart\n"
    ]


def test_form_controls_can_be_told_from_the_page() -> None:
    """WCAG 1.4.11: a border of 3:1, in light and in dark, also on a row that is marked as differing."""
    style = (PAGE / "style.css").read_text()
    themes = re.findall(r":root[^{]*\{([^}]*)\}", style)
    assert len(themes) == 3
    for theme in themes:
        colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]+)", theme))
        for behind in ("bg", "panel", "differs"):
            assert contrast(colours["control"], colours[behind]) >= 3
    (rule,) = re.findall(r"button, select, textarea, [^{]*\{([^}]*)\}", style)
    assert "border: 1px solid var(--control)" in rule


def contrast(a: str, b: str) -> float:
    def luminance(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


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
