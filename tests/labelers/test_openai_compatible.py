"""The OpenAI-compatible labeler, through the official client, against a server that speaks the protocol.

The server is the peer's side: it reads the request as vLLM or llama.cpp would, enforces the JSON schema it
was sent (an answer outside it cannot leave), and labels with the word labeler. What it buys: retries, refusals
and concurrency happen over a real socket.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner
from word_labeler import WORDS, WordLabeler

from lite_chex.cli import app
from lite_chex.data.records import Report
from lite_chex.errors import UserError
from lite_chex.export_files import GRAMMAR, SCHEMA, grammar
from lite_chex.findings import CERTAINTY_WORDS, Certainty
from lite_chex.labelers.registry import LabelerOptions, ServerOptions, make_labeler
from lite_chex.labelers.runner import label_file
from lite_chex.prompt import user_message
from lite_chex.recipe import shipped

openai_compatible = pytest.importorskip("lite_chex.labelers.openai_compatible")
pytest.importorskip("openai")
KEY = "the-key"
TOO_LONG = [
    {"message": "too many tokens", "type": "invalid_request_error", "code": "context_length_exceeded"},  # OpenAI
    {"message": "exceeds the available context size", "type": "exceed_context_size_error", "code": 400},  # llama.cpp
    {"message": "This model's maximum context length is 9 tokens", "type": "BadRequestError", "code": 400},  # vLLM
]


class Server(ThreadingHTTPServer):
    """busy: how often to answer 429 before anything else. busy_at: the report that always gets one. broken_after: as
    many requests are answered, 500 is all that others get. seen / at_once: what came in. interrupt_at: the request
    that brings this process a Ctrl-C.

    schemas: "enforced"; "refused" as by servers that know no response_format; or "ignored", as by transformers serve,
    whose model then talks around its answer, and gives none at first where the report says "chatty".
    """

    busy = 0
    busy_at: str | None = None
    broken_after = 1 << 60
    interrupt_at = 0
    schemas = "enforced"
    seen: Counter[str]
    requests: list[dict[str, Any]]
    at_once = running = 0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen, self.requests, self.lock = Counter(), [], threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.running += 1
            self.server.at_once = max(self.server.at_once, self.server.running)
        time.sleep(0.01)
        answer = self.respond(request)
        with self.server.lock:  # before the client has the answer, and asks again
            self.server.running -= 1
        self.answer(*answer)

    def respond(self, request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if self.path != "/v1/chat/completions":
            return 404, {"error": {"message": "no such path"}}
        if self.headers["Authorization"] not in (f"Bearer {KEY}", "Bearer local"):
            return 401, {"error": {"message": "wrong key"}}
        if request["model"] != "word-model":
            return 404, {"error": {"message": "no such model"}}
        report = next(m["content"] for m in request["messages"] if m["role"] == "user")
        with self.server.lock:
            self.server.requests.append(request)
            if self.server.busy > 0 or report == self.server.busy_at:
                self.server.busy -= 1
                return 429, {"error": {"message": "slow down"}}
            self.server.seen[report] += 1
            if self.server.seen.total() == self.server.interrupt_at:
                os.kill(os.getpid(), signal.SIGINT)
            broken = self.server.seen.total() > self.server.broken_after
        if broken:
            return 500, {"error": {"message": "out of order"}}
        if len(report) > 300:
            return 400, {"error": TOO_LONG[len(report) % 3]}
        if "poison" in report:
            return 500, {"error": {"message": f"crashed on {report}"}}
        refused = {"response_format", "grammar", "structured_outputs"} & set(request)
        if self.server.schemas == "refused" and refused:
            return 422, {"detail": f"Unexpected fields in the request: {sorted(refused)}"}
        if self.server.schemas != "enforced":
            return 200, self.completion(self.talk(report, request["messages"]))
        if "grammar" in request:
            return 200, self.completion(self.label(report, WORDS.json_schema()))
        schema = request["response_format"]["json_schema"]
        assert request["response_format"]["type"] == "json_schema"
        assert schema["strict"] is True
        return 200, self.completion("cut {" if "ramble" in report else self.label(report, schema["schema"]))

    def talk(self, report: str, messages: list[dict[str, str]]) -> str:
        told = " ".join(m["content"] for m in messages if m["role"] != "assistant")
        if ("chatty" in report and len(messages) == 2) or "mute" in report:
            return "Let me think about {this} report."
        if self.server.schemas == "refused" and messages[0]["role"] == "system":
            assert '{"Edema": "…", "Fracture": "…", "No Finding": "…"}' in told
        answer = WORDS.to_json(WordLabeler().label([report]).values[0])
        return f"<think>{{maybe}}</think>Here it is:\n```json\n{answer}\n```\nAnything else?"

    def label(self, report: str, schema: dict[str, Any]) -> str:
        values = WordLabeler().label([report]).values[0]
        if "contradict" in report:
            values[-1] = Certainty.POSITIVE
        answer = {name: CERTAINTY_WORDS[v] for name, v in zip(schema["required"], values, strict=True)}
        for name, word in answer.items():
            assert word in schema["properties"][name]["enum"]
        return json.dumps(answer)

    def completion(self, content: str) -> dict[str, Any]:
        choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
        return {"id": "x", "object": "chat.completion", "created": 0, "model": "word-model", "choices": [choice]}

    def answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if status == 429:
            self.send_header("retry-after-ms", "5")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a test's output is no place for it."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with Server() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def labeler(server: Server, model: str = "word-model", **options: Any) -> Any:
    where = ServerOptions(base_url=server.url, **{"retries": 4, **options})
    return make_labeler("openai", LabelerOptions(model=model, findings=WORDS, server=where))


def test_answers_become_labels_in_order_and_requests_run_side_by_side(server: Server) -> None:
    reports = [f"{i} " + ("no edema" if i % 2 else "fracture contradict") for i in range(40)]
    batch = labeler(server, concurrency=5).label(reports)
    assert batch.errors is None
    expected = [[3, 0, 3] if i % 2 == 0 else [1, 3, 3] for i in range(40)]  # the contradiction is mended
    assert batch.values.tolist() == expected
    assert 2 <= server.at_once <= 5


def test_our_own_export_is_asked_as_it_was_trained(server: Server) -> None:
    plain, own = labeler(server), labeler(server, grammar=grammar(WORDS))
    assert own.label(["edema"]).values.tolist() == [[0, 3, 3]]
    assert list(server.seen) == [user_message(WORDS, "edema")]  # the one user message of a training row
    asked = server.requests[-1]
    assert asked["grammar"] == asked["structured_outputs"]["grammar"] == grammar(WORDS)
    assert asked["repetition_penalty"] == 1
    assert "response_format" not in asked
    assert "max_tokens" not in asked  # report and limit may be more than its context holds
    assert plain.fingerprint() != own.fingerprint()


def test_an_own_export_is_asked_freely_where_the_server_knows_no_grammar(server: Server) -> None:
    server.schemas = "refused"
    own = labeler(server, grammar=grammar(WORDS), concurrency=1)
    assert own.label(["edema", "no fracture"]).values.tolist() == [[0, 3, 3], [3, 1, 3]]
    assert [set(r) & {"grammar", "structured_outputs"} != set() for r in server.requests] == [True, False, False]
    assert all(len(r["messages"]) == 1 for r in server.requests)


def test_own_export_must_be_one(server: Server, tmp_path: Path) -> None:
    reports = tmp_path / "r.csv"
    reports.write_text("study_id,report\n1,edema\n")
    files = ["--input", str(reports), "--output", str(tmp_path / "o.csv")]
    given = ["label", "--labeler", "openai", "--model", "word-model", "--base-url", server.url, *files]
    found = CliRunner().invoke(app, [*given, "--own-export", str(tmp_path)])
    assert isinstance(found.exception, UserError)
    assert "there is no answer.gbnf" in str(found.exception)


def test_an_own_export_brings_its_findings(server: Server, tmp_path: Path) -> None:
    reports, output, export = tmp_path / "r.csv", tmp_path / "o.csv", tmp_path / "export"
    reports.write_text("study_id,report\n1,edema\n")
    export.mkdir()
    (export / GRAMMAR).write_text(grammar(WORDS))
    (export / SCHEMA).write_text(json.dumps(WORDS.json_schema()))
    given = ["label", "--labeler", "openai", "--model", "word-model", "--base-url", server.url]
    given += ["--input", str(reports), "--output", str(output), "--own-export", str(export)]
    found = CliRunner().invoke(app, [*given, "--findings", "paper13"])
    assert isinstance(found.exception, UserError)
    assert "--findings paper13: not the findings that --own-export" in str(found.exception)
    assert CliRunner().invoke(app, given).exit_code == 0
    assert output.read_text().splitlines() == ["study_id,Edema,Fracture,No Finding", "1,1.0,,"]


def test_a_busy_server_is_asked_again(server: Server) -> None:
    server.busy = 3
    assert labeler(server, concurrency=1).label(["edema"]).values.tolist() == [[0, 3, 3]]
    server.busy = 50
    with pytest.raises(UserError, match=r"too many requests, also after 1 retries.*to go on"):
        labeler(server, retries=1).label(["edema"])


def test_bad_answers_are_error_rows_without_report_text(server: Server, tmp_path: Path) -> None:
    texts = ["edema", "ramble", "poison", "no fracture", "x" * 301, "x" * 302, "x" * 303]
    reports = tmp_path / "r.jsonl"
    reports.write_text("".join(json.dumps({"id": i, "report": t}) + "\n" for i, t in enumerate(texts)))
    output = tmp_path / "out.csv"
    log = StringIO()
    summary = label_file(labeler(server, retries=0), reports, output, console=Console(file=log))
    assert output.read_text().splitlines()[1:] == ["0,1.0,,", "1,,,", "2,,,", "3,,0.0,", "4,,,", "5,,,", "6,,,"]
    assert Path(f"{output}.errors.csv").read_text().splitlines()[1:] == [
        "1,1,the server's answer is not the JSON that was asked for",
        "2,2,the server refused this report (HTTP 500)",
        *(f"{i},{i},too long for the model" for i in (4, 5, 6)),
    ]
    assert (summary.labelled, summary.errors) == (2, 5)
    # Running it again asks for nothing more.
    seen = server.seen.total()
    label_file(labeler(server), reports, output, console=Console(file=log))
    assert server.seen.total() == seen


def long_report(impression: str) -> str:
    """Too long for the server as a whole, not on its sections."""
    return f"HISTORY: {'by bus ' * 60}\nFINDINGS: edema\nIMPRESSION: {impression}"


def test_a_report_that_is_refused_whole_and_on_its_sections_is_an_error_row(server: Server, tmp_path: Path) -> None:
    reports, output = tmp_path / "r.jsonl", tmp_path / "out.csv"
    # The last one is alone in its batch.
    texts = ["edema", "no fracture", long_report("poison"), "fracture", "poison"]
    reports.write_text("".join(json.dumps({"id": i, "report": t}) + "\n" for i, t in enumerate(texts)))
    label_file(labeler(server, retries=0), reports, output, chunk_size=4, console=Console(file=StringIO()))
    assert output.read_text().splitlines()[1:] == ["0,1.0,,", "1,,0.0,", "2,,,", "3,,1.0,", "4,,,"]
    assert Path(f"{output}.errors.csv").read_text().splitlines()[1:] == [
        "2,2,the server refused this report (HTTP 500)",
        "4,4,the server refused this report (HTTP 500)",
    ]


def test_a_server_that_breaks_at_the_sections_of_a_report_stops_the_run(server: Server, tmp_path: Path) -> None:
    reports, output = tmp_path / "r.jsonl", tmp_path / "out.csv"
    texts = ["edema", "no fracture", long_report("small"), "fracture"]
    reports.write_text("".join(json.dumps({"id": i, "report": t}) + "\n" for i, t in enumerate(texts)))
    server.broken_after = 4
    with pytest.raises(UserError, match=r"refused every request of a batch \(HTTP 500\)"):
        label_file(labeler(server, retries=0), reports, output, console=Console(file=StringIO()))
    assert output.read_text().splitlines()[1:] == ["0,1.0,,", "1,,0.0,"]


def test_ctrl_c_keeps_every_answer_that_was_asked_for(server: Server, tmp_path: Path) -> None:
    reports, output = tmp_path / "r.csv", tmp_path / "out.csv"
    reports.write_text("id,report\n" + "".join(f"{i},edema {i}\n" for i in range(90)))
    server.interrupt_at = 40
    with pytest.raises(KeyboardInterrupt, match="of 90 rows are in"):
        label_file(labeler(server), reports, output, chunk_size=60, console=Console(file=StringIO()))
    kept = output.read_text().splitlines()[1:]
    assert 40 <= len(kept) < 60
    assert server.seen.total() == len(kept)
    label_file(labeler(server), reports, output, chunk_size=60, console=Console(file=StringIO()))
    assert output.read_text().splitlines()[1:] == [f"{i},1.0,," for i in range(90)]
    assert set(server.seen.values()) == {1}


def test_a_server_that_gives_up_in_a_batch_costs_no_answer(server: Server, tmp_path: Path) -> None:
    reports, output = tmp_path / "r.csv", tmp_path / "out.csv"
    texts = [*(f"edema {i}" for i in range(30)), "too much", *(f"fracture {i}" for i in range(30))]
    reports.write_text("id,report\n" + "".join(f"{i},{text}\n" for i, text in enumerate(texts)))
    server.busy_at = "too much"
    with pytest.raises(UserError, match="too many requests"):
        label_file(labeler(server, retries=0), reports, output, chunk_size=60, console=Console(file=StringIO()))
    assert output.read_text().splitlines()[1:] == [f"{i},1.0,," for i in range(30)]


def test_a_stop_at_the_sections_of_a_long_report_costs_no_other_answer(server: Server, tmp_path: Path) -> None:
    reports, output = tmp_path / "r.jsonl", tmp_path / "out.csv"
    texts = ["edema", "no fracture", long_report("too much"), "fracture"]
    reports.write_text("".join(json.dumps({"id": i, "report": t}) + "\n" for i, t in enumerate(texts)))
    server.busy_at = "edema\ntoo much"
    with pytest.raises(UserError, match="too many requests"):
        label_file(labeler(server, retries=0), reports, output, console=Console(file=StringIO()))
    assert output.read_text().splitlines()[1:] == ["0,1.0,,", "1,,0.0,"]
    server.busy_at = None
    label_file(labeler(server, retries=0), reports, output, console=Console(file=StringIO()))
    assert output.read_text().splitlines()[1:] == ["0,1.0,,", "1,,0.0,", "2,1.0,,", "3,,1.0,"]


@pytest.mark.parametrize("schemas", ["refused", "ignored"])
def test_a_server_without_schemas_is_asked_in_words_and_asked_again(server: Server, schemas: str) -> None:
    server.schemas = schemas
    asks = labeler(server, concurrency=1)
    batch = asks.label(["edema", "no fracture chatty", "mute"])
    assert batch.values[:2].tolist() == [[0, 3, 3], [3, 1, 3]]
    assert batch.errors == (None, None, openai_compatible.UNREADABLE)
    assert server.seen["edema"] == (2 if schemas == "refused" else 1)  # the schema is tried once in all
    assert server.seen["no fracture chatty"] == 2
    assert server.seen["mute"] == 3


def test_transformers_serve_is_asked_in_words(tmp_path: Path) -> None:
    """A real server, which takes no notice of response_format; its 2M-parameter model answers in a way of its own."""
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    model = str(shipped("data_samples") / "tiny_base")
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", model, "--device", "cpu"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([*command, "--port", str(port)], stdout=log, stderr=log, env=environment)
    try:
        deadline = time.monotonic() + 240
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        where = ServerOptions(base_url=f"http://127.0.0.1:{port}/v1", concurrency=1)
        asks = make_labeler("openai", LabelerOptions(model=model, findings=WORDS, server=where))
        batch = asks.label(["No edema."])
        assert batch.errors in (None, (openai_compatible.UNREADABLE,))
    finally:
        process.kill()
        process.wait()


def test_an_answer_is_found_among_other_words() -> None:
    answer = '{"Edema":"absent","Fracture":"positive","No Finding":"absent"}'
    for text in (
        answer,
        f"Sure: {answer} {{}}",
        f"```json\n{answer}\n```",
        f"<think>{{}}{answer[:20]}</think> {answer}",
    ):
        assert openai_compatible.read_answer(text, WORDS).tolist() == [3, 0, 3]
    for text in ("", "{", answer[:-5], answer.replace("absent", "none")):
        assert openai_compatible.read_answer(text, WORDS) is None


def test_what_is_wrong_for_all_reports_stops_the_run(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match='no model "other"'):
        labeler(server, model="other").label(["edema"])
    server.broken_after = 0
    with pytest.raises(UserError, match=r"refused every request.*HTTP 500"):
        labeler(server, retries=0).label(["edema", "poison"])
    server.broken_after = 1 << 60
    monkeypatch.setenv("OPENAI_API_KEY", "wrong")
    with pytest.raises(UserError, match=r"refuses the key.*OPENAI_API_KEY"):
        labeler(server).label(["edema"])
    monkeypatch.setenv("HOSPITAL_KEY", KEY)
    assert labeler(server, api_key_env="HOSPITAL_KEY").label(["edema"]).errors is None
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError, match="does not answer"):
        labeler(server, retries=0).label(["edema"])


@pytest.mark.parametrize(
    "url",
    [
        "https://api.openai.com/v1",
        "http://localhost.example.org/v1",
        "http://10.0.0.5:8000/v1",
        "http://127.0.0.1@evil.org/v1",
        None,
    ],
)
def test_reports_leave_the_machine_only_when_the_user_says_so(url: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(UserError, match="--i-may-send-these-reports"):
        make_labeler("openai", LabelerOptions(model="m", server=ServerOptions(base_url=url)))
    assert make_labeler("openai", LabelerOptions(model="m", server=ServerOptions(base_url=url, may_send=True)))


def test_the_environment_cannot_redirect_reports(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "https://elsewhere.example.org/v1")
    with pytest.raises(UserError, match=r"elsewhere\.example\.org/v1 is not this machine"):
        make_labeler("openai", LabelerOptions(model="m"))
    monkeypatch.setenv("HTTP_PROXY", "http://192.0.2.1:9")  # would time out if it were used
    monkeypatch.setenv("http_proxy", "http://192.0.2.1:9")
    assert labeler(server, retries=0).label(["edema"]).errors is None


@pytest.mark.parametrize("local", [True, False])
def test_no_redirect_is_followed(server: Server, monkeypatch: pytest.MonkeyPatch, local: bool) -> None:
    monkeypatch.setattr(openai_compatible, "is_loopback", lambda _: local)
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    made = make_labeler("openai", LabelerOptions(model="m", server=ServerOptions(base_url=server.url, may_send=True)))
    assert isinstance(made, openai_compatible.OpenAILabeler)
    assert made._client._client.follow_redirects is False


def test_the_estimate_counts_tokens_and_cost(server: Server) -> None:
    asks = labeler(server, input_price=2.0, output_price=10.0)
    reports = [Report(i, str(i), "x" * 400) for i in range(100)] + [Report(100, "100", " ")]
    estimate = asks.estimate(reports)
    question = len(openai_compatible.question(WORDS))
    answer = len('{"Edema":"uncertain","Fracture":"uncertain","No Finding":"uncertain"}')
    assert estimate.reports == 100
    assert estimate.input_tokens == (100 * 400 + 100 * question) // 4
    assert estimate.output_tokens == 100 * answer // 4
    assert estimate.cost == pytest.approx((estimate.input_tokens * 2 + estimate.output_tokens * 10) / 1e6)
    assert "give --input-price" in str(labeler(server).estimate(reports))
