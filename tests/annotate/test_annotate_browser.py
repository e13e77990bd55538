"""The pages in a real browser (Debian's chromium, driven by Playwright), by keyboard alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from annotation_samples import HOSTILE, Files, Server, write_files
from page_checks import WIDE, look

from lite_chex.annotate.export import gold_labels, preferences, review_rows
from lite_chex.annotate.loop import open_round
from lite_chex.annotate.sampling import first_is_left
from lite_chex.annotate.store import Store
from lite_chex.findings import PAPER13, Certainty
from lite_chex.recipe import Recipe, shipped
from lite_chex.train.run import Stage

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytest.importorskip("gradio", reason="the pages need Gradio: pip install 'lite-chex[annotate]'")
sync_api = pytest.importorskip("playwright.sync_api", reason="browser tests need the Python package playwright")
if CHROMIUM is None:
    pytest.skip("browser tests need chromium: apt-get install chromium", allow_module_level=True)

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
Start = Callable[..., Server]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


class Person:
    """An annotator with a browser profile of their own, who only ever presses keys."""

    def __init__(self, browser: Any, url: str, name: str, **options: Any) -> None:
        self.context = browser.new_context(**{"viewport": WIDE, "reduced_motion": "reduce", **options})
        self.page = self.context.new_page()
        self.problems: list[str] = []
        self.requests: list[str] = []
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.set_default_timeout(30_000)
        self.page.goto(url)
        self.page.wait_for_selector("#who-dialog[open]")
        self.page.keyboard.type(name)
        self.page.keyboard.press("Enter")
        self.page.wait_for_selector("#report-title")

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def judge(self, *keys: str) -> None:
        """Press keys, the last of which saves, and wait until the server has answered."""
        self.press(*keys[:-1])
        with self.page.expect_response(lambda r: r.url.endswith(("/api/judge", "/api/undo")) and r.ok):
            self.press(keys[-1])
        self.page.wait_for_selector("body:not(.busy)")

    def text(self, selector: str) -> str:
        return str(self.page.inner_text(selector))


@pytest.fixture
def person(browser: Any) -> Iterator[Callable[..., Person]]:
    people: list[Person] = []

    def open_page(url: str, name: str = "Ann", **options: Any) -> Person:
        people.append(Person(browser, url, name, **options))
        return people[-1]

    yield open_page
    for one in people:
        one.context.close()
        assert one.problems == []


def compare_arguments(files: Files, *more: str) -> list[str]:
    chosen = [argument for spec in files.predictions for argument in ("--pred", spec)]
    store = str(files.folder / "j.sqlite")
    return ["compare", "--reports", str(files.reports), *chosen, "--store", store, "--port", "0", *more]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Files, Server]]:
    """One running comparison, behind a token, for the tests that do not end it; each uses names of its own."""
    files = write_files(tmp_path_factory.mktemp("shared"))
    server = Server(compare_arguments(files, "--token", "a-long-enough-token")).start()
    yield files, server
    server.kill()


def verdicts(files: Files, task: str = "compare") -> list[tuple[str, str]]:
    with Store(files.folder / "j.sqlite") as store:
        return [(j.annotator, j.verdict) for j in store.judgements(task)]


def test_five_pairs_by_keyboard_survive_a_killed_server(files: Files, serve: Start, person: Any) -> None:
    server = serve(*compare_arguments(files))
    ann = person(server.url)
    assert "0 of 9" in ann.text("#pace")
    seen = [ann.text(".id")]
    for key in ("ArrowLeft", "ArrowRight", "t", "b"):
        ann.judge(key)
        seen.append(ann.text(".id"))
    assert len(set(seen)) == 5
    ann.judge("u")  # takes "both wrong" back and shows that pair again
    assert ann.text(".id") == seen[3]
    ann.judge("b")
    assert "4 of 9" in ann.text("#pace")
    assert "each" in ann.text("#pace")

    port = server.url.rstrip("/").rsplit(":", 1)[1]
    server.kill()
    assert verdicts(files) == [("Ann", v) for v in ("left", "right", "tie", "both_wrong")]
    ann.press("ArrowRight")  # while the server is down: kept in the browser
    ann.page.wait_for_selector("#status.problem")
    again = compare_arguments(files)
    again[again.index("--port") + 1] = port
    server = serve(*again)
    ann.page.wait_for_selector("#pace:has-text('5 of 9')")
    ann.page.wait_for_selector("body:not(.busy)")
    server.kill()
    ann.press("ArrowRight")  # and again, with the page reloaded before the server is back
    ann.page.wait_for_selector("#status.problem")
    serve(*again)
    ann.page.reload()
    ann.page.wait_for_selector("#pace:has-text('6 of 9')")
    ann.page.wait_for_selector("body:not(.busy)")
    for _ in range(3):
        ann.judge("ArrowLeft")
    assert "All done" in ann.text("main")
    assert len(verdicts(files)) == 9
    with Store(files.folder / "j.sqlite") as store:
        assert len(preferences(store)) == 7  # tie and both wrong give none
        assert store.history() == 11  # 9, one taken back, and the row that took it back


def test_two_annotators_at_once(shared: tuple[Files, Server], person: Any) -> None:
    files, server = shared
    assert server.url.endswith("?token=a-long-enough-token")
    ann, bob = person(server.url, "Ann"), person(server.url, "Bob")
    assert "token" not in ann.page.url
    for _ in range(9):
        for one in (ann, bob):
            left, right = (one.page.locator(f"tr.differs td:nth-child({n}) .chip").first.inner_text() for n in (2, 3))
            # Both prefer the same answer, wherever it stands: sides are drawn per person.
            one.judge("ArrowLeft" if left > right else "ArrowRight")
    assert "All done" in ann.text("main")
    assert "All done" in bob.text("main")
    with Store(files.folder / "j.sqlite") as store:
        rows = [r for r in preferences(store) if r.annotator in ("Ann", "Bob")]
        sides = {j.detail["left"]["systems"][0] for j in store.judgements(annotator="Ann")}
    by_person = [{(r.study_id, r.chosen) for r in rows if r.annotator == name} for name in ("Ann", "Bob")]
    assert len(rows) == 18
    assert by_person[0] == by_person[1]
    assert sides == {"sft", "ppo"}


def test_hostile_report_shows_as_written(shared: tuple[Files, Server], person: Any) -> None:
    cas = person(shared[1].url, "Cas")
    for _ in range(9):
        if cas.text(".id") == "s0":
            break
        cas.judge("s")
    shown = cas.page.evaluate("document.querySelector('.report-text').textContent")
    assert shown == HOSTILE
    assert cas.page.title() == "LiteChex: compare"
    assert cas.page.locator(".report-text img, .report-text script, .report-text b").count() == 0
    assert all(url.startswith(shared[1].url.split("?")[0]) for url in cas.requests)
    assert "sft" not in cas.page.content()
    assert "ppo" not in cas.page.content()


def test_corrections_become_gold_and_preferences(shared: tuple[Files, Server], person: Any) -> None:
    dan = person(shared[1].url, "Dan")
    for _ in range(9):
        if dan.text(".id") == "s1":
            break
        dan.judge("s")
    dan.press("e")  # the first differing finding's list has the focus
    assert dan.page.evaluate("document.activeElement.getAttribute('aria-label')") == "Correct label of Pneumothorax"
    dan.press("u")  # in a list a letter chooses; it does not undo
    assert dan.page.evaluate("document.activeElement.value") == "uncertain"
    dan.press("Escape", "c")
    dan.page.keyboard.type("blunted angle")
    dan.judge("Escape", "b")
    with Store(shared[0].folder / "j.sqlite") as store:
        judgement = store.judgements(annotator="Dan")[-1]
        rows = [r for r in preferences(store) if r.annotator == "Dan"]
        gold = gold_labels(store, PAPER13)
    assert judgement.comment == "blunted angle"
    assert judgement.detail["corrections"] == {"Pneumothorax": "uncertain"}
    assert {json.loads(r.chosen)["Pneumothorax"] for r in rows} == {"uncertain"}
    assert {json.loads(r.rejected)["Pneumothorax"] for r in rows} == {"absent", "negative"}
    assert gold.ids == ["s1"]
    assert gold.values[0, PAPER13.index("Pneumothorax")] == Certainty.UNCERTAIN
    assert (gold.values[0] == -1).sum() == 12


def test_the_compare_page_can_be_read(shared: tuple[Files, Server], person: Any) -> None:
    look(shared[1].url, "compare", ["e", "Escape"], person, then=["d", "e"])


def test_reader_study_by_keyboard(files: Files, serve: Start, person: Any) -> None:
    arguments = ["review", *compare_arguments(files)[1:], "--limit", "2"]
    server = serve(*arguments)
    ann = person(server.url)
    assert "0 of 4" in ann.text("#pace")
    ann.press("ArrowDown", "ArrowDown")  # Cardiomegaly
    mentioned = "absent" not in ann.text("tr:focus td")
    ann.press("m" if mentioned else "h")  # does not fit, and is refused with a reason
    assert "Cardiomegaly is" in ann.text("#status")
    ann.judge("w" if mentioned else "m", "Enter")
    ann.judge("f", "Enter")
    ann.judge("Enter")
    ann.judge("Enter")
    assert "All done" in ann.text("main")
    with Store(files.folder / "j.sqlite") as store:
        rows = review_rows(store)
    expected = {"wrong_certainty" if mentioned else "missed": 1, "format": 13}
    for name in ("missed", "hallucinated", "wrong_certainty", "format"):
        assert sum(int(row[name]) for row in rows) == expected.get(name, 0)
    assert {row["system"] for row in rows} == {"sft", "ppo"}
    look(server.url, "review", ["ArrowDown", "ArrowDown", " "], person)


def test_two_label_and_a_third_adjudicates(files: Files, serve: Start, person: Any) -> None:
    store = str(files.folder / "j.sqlite")
    common = ["label", "--store", store, "--port", "0"]
    server = serve(*common, "--reports", str(files.reports), "--pred", f"ppo={files.ppo}", "--limit", "2")
    ann, bob = person(server.url, "Ann"), person(server.url, "Bob")
    assert "97%" in ann.text("table")
    assert "Cardiomediastinum" in ann.text(".guide")
    ann.judge("Enter")  # accepts the draft
    ann.judge("Enter")
    bob.judge("ArrowDown", "u", "Enter")  # the second finding, Cardiomegaly
    bob.judge("Enter")
    look(server.url, "label", ["ArrowDown"], person)
    server.kill()
    with Store(files.folder / "j.sqlite") as opened:
        assert (gold_labels(opened, PAPER13).values == -1).sum() >= 1
    server = serve(*common, "--adjudicate")
    look(server.url, "adjudicate", [], person)
    eve = person(server.url, "Eve")
    assert "0 of 1" in eve.text("#pace")
    eve.press("Enter")
    assert "Still open: Cardiomegaly, No Finding" in eve.text("#status")
    eve.press("n", "Enter")
    assert "Still open: No Finding" in eve.text("#status")
    eve.judge("p", "Enter")
    with Store(files.folder / "j.sqlite") as opened:
        gold = gold_labels(opened, PAPER13)
    assert len(gold) == 2
    assert (gold.values != -1).all()


def test_a_judgement_that_lacks_the_token_is_kept(files: Files, serve: Start, person: Any) -> None:
    server = serve(*compare_arguments(files, "--token", "a-long-enough-token"))
    ann = person(server.url)
    ann.context.clear_cookies()
    ann.press("ArrowLeft")
    ann.page.wait_for_selector("#status.problem:has-text('kept in this browser')")
    assert verdicts(files) == []
    ann.page.goto(server.url)
    ann.page.wait_for_selector("#pace:has-text('1 of 9')")
    assert verdicts(files) == [("Ann", "left")]


def test_a_kept_verdict_on_sides_that_have_changed_is_refused_aloud(files: Files, serve: Start, person: Any) -> None:
    server = serve(*compare_arguments(files))
    ann = person(server.url)
    key = json.loads(server.get("/api/next?annotator=Ann")[1])["item"]["key"]
    server.kill()
    ann.press("ArrowRight")
    ann.page.wait_for_selector("#status.problem")
    ann.page.goto("about:blank")
    seed = next(n for n in range(1, 50) if first_is_left(n, "Ann", key) != first_is_left(0, "Ann", key))
    again = compare_arguments(files, "--seed", str(seed))
    again[again.index("--port") + 1] = server.url.rstrip("/").rsplit(":", 1)[1]
    ann.page.goto(serve(*again).url)
    ann.page.wait_for_selector("#report-title")
    ann.page.wait_for_selector("#status.problem:has-text('from before was refused'):has-text('shown otherwise now')")
    assert verdicts(files) == []
    ann.judge("ArrowRight")
    assert verdicts(files) == [("Ann", "right")]


def test_the_name_changes_by_enter_alone_and_between_judgements(files: Files, serve: Start, person: Any) -> None:
    ann = person(serve(*compare_arguments(files, "--limit", "1")).url)
    ann.page.focus("#who")
    ann.press("Enter", "Control+a", "B", "o", "b", "Escape")
    assert ann.text("#who") == "You: Ann"
    held: list[Any] = []
    ann.page.route("**/api/judge", lambda route: held.append(route))
    with ann.page.expect_request("**/api/judge"):
        ann.press("ArrowLeft")
    ann.page.focus("#who")
    ann.press("Enter")
    assert "Wait until the server has answered" in ann.text("#status")
    assert ann.page.locator("dialog[open]").count() == 0
    held[0].continue_()
    ann.page.wait_for_selector("main:has-text('All done')")
    ann.judge("z")  # takes it back, as on every page
    assert "0 of 1" in ann.text("#pace")
    ann.page.focus("#who")
    ann.press("Enter", "Control+a", "B", "o", "b", "Enter")
    ann.page.wait_for_selector("#who:has-text('You: Bob')")


def test_the_report_scrolls_by_keyboard(files: Files, serve: Start, person: Any) -> None:
    low = {"width": 1280, "height": 300}
    ann = person(serve("review", *compare_arguments(files)[1:]).url, viewport=low)
    report = ann.page.get_by_role("region", name="Report").locator("visible=true")
    ann.press("ArrowDown", "ArrowDown")
    row = ann.text("tr:focus th")
    report.evaluate("node => { node.append('\\n'.repeat(50)); node.scrollTop = 0; node.focus(); }")
    ann.press("ArrowDown")
    for _ in range(100):  # scrolling takes a moment
        if report.evaluate("node => node === document.activeElement && node.scrollTop"):
            break
        ann.page.wait_for_timeout(20)
    else:
        raise AssertionError("the report did not scroll")
    ann.page.focus(f"tr:has-text('{row}')")
    ann.press("ArrowDown")
    assert ann.text("tr:focus th") != row


@pytest.mark.slow
def test_a_round_of_the_loop_by_keyboard(run: Recipe, serve: Start, person: Any, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(run.to_yaml())
    reports = shipped("data_samples") / "reports_mixed.csv"
    command = ["loop", str(recipe), "--reports", str(reports), "--count", "3", "--pool", "16", "--port", "0"]
    server = serve(*command, group=())
    ann = person(server.url)
    ann.judge("ArrowLeft")
    ann.judge("t")
    printed = server.interrupt()
    assert "2 of 3 pairs judged; the same command goes on" in printed
    assert server.process.returncode == 130
    server = serve(*command, group=())
    ann = person(server.url)
    assert "2 of 3" in ann.text("#pace")
    ann.judge("ArrowRight")
    assert "All done" in ann.text("main")
    printed = server.interrupt()
    round_ = open_round(run)
    with Store(round_.store) as store:
        first, _, last = store.judgements("compare")
    pairs = [json.loads(line) for line in (round_.dir / "preferences.jsonl").read_text().splitlines()]
    people = [(p["chosen"], p["rejected"]) for p in pairs if p["source"] == "human"]
    assert people == [
        (judgement.detail[better]["answer"], judgement.detail[worse]["answer"])
        for judgement, better, worse in ((first, "left", "right"), (last, "right", "left"))
    ]
    assert Stage(round_.recipe, "reward").finished  # they fed train-rm
    refused = "at chance" in printed  # a random base's reward model may be, which PPO then says
    assert ("PPO, round 1" in printed, server.process.returncode) == (not refused, int(refused))
