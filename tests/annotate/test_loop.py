"""A round of the loop on a small run: study, judgements, retraining, tables; stopped and gone on with in between."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

import lite_chex.cli  # noqa: F401  (registers the commands)
from lite_chex.annotate.build import build_items, open_session
from lite_chex.annotate.loop import PEOPLE_FILE, Round, before_and_after, build_study, open_round, progress, retrain
from lite_chex.annotate.store import Store
from lite_chex.cli.app import app
from lite_chex.data.labels import read_labels
from lite_chex.errors import UserError
from lite_chex.findings import PAPER13, LabelArray
from lite_chex.recipe import Recipe, shipped
from lite_chex.train.run import FINISHED, PAIRS_FILE, Stage

QUIET = Console(quiet=True)
SAMPLES = shipped("data_samples")
NEW = SAMPLES / "reports_mixed.csv"
COUNT = 4


def gold() -> dict[str, LabelArray]:
    table = read_labels(SAMPLES / "gold_mixed.csv", PAPER13)
    return dict(zip(table.ids, table.values))


def judge(round_: Round, verdict: str | None = None, limit: int = COUNT) -> None:
    """An expert who knows the generator's gold prefers the answer with fewer wrong cells, left in a draw."""
    known = gold()
    with Store(round_.store) as store:
        session = open_session("compare", round_.inputs(), build_items("compare", round_.inputs()), store)
        item = session.next("Ann")["item"]
        for _ in range(limit):
            right = [["positive", "negative", "uncertain", "absent"][v] for v in known[item["study_id"]]]
            wrong = {side: sum(a != b for a, b in zip(item[side], right)) for side in ("left", "right")}
            better = "left" if wrong["left"] <= wrong["right"] else "right"
            body = {"annotator": "Ann", "item": item["key"], "verdict": verdict or better, "shown": item["shown"]}
            item = session.judge({**body, "request": item["key"]})["item"]


def study(round_: Round, reports: Path = NEW) -> None:
    build_study(round_, reports, QUIET, count=COUNT, pool=16)


def train(round_: Round) -> None:
    try:
        retrain(round_, QUIET)
    except UserError as error:  # the reward model of a random base may be at chance; the loop is what is tested here
        if "at chance" not in str(error):
            raise
        path = Stage(round_.recipe, "reward").dir / FINISHED
        path.write_text(json.dumps(json.loads(path.read_text()) | {"accuracy": 0.95}))
        retrain(round_, QUIET, resume=True)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_two_rounds_from_new_reports_to_tables(run: Recipe) -> None:
    first = open_round(run)
    assert (first.number, first.dir) == (1, run.run_dir / "loop-1")
    before = contents(run.run_dir)
    study(first)
    policy, alternative = (rows(path) for path in first.answers.values())
    assert [r["study_id"] for r in policy] == [r["study_id"] for r in alternative]
    assert all(any(a[name] != b[name] for name in PAPER13.names) for a, b in zip(policy, alternative))
    assert float(policy[0]["p_Edema_positive"]) >= 0
    assert "reward" not in policy[0]  # the run has no reward model yet

    assert progress(first, first.inputs()) == (0, COUNT)
    judge(first, limit=1)
    assert progress(open_round(run), first.inputs()) == (1, COUNT)  # another process sees the same
    judge(first, limit=COUNT - 1)
    assert progress(first, first.inputs()) == (COUNT, COUNT)
    train(first)
    assert first.finished
    assert {k: v for k, v in contents(run.run_dir).items() if k in before} == before
    assert contents(first.dir / "sft") == {k[4:]: v for k, v in before.items() if k.startswith("sft/")}
    pairs = [json.loads(line) for line in (first.dir / PAIRS_FILE).read_text().splitlines()]
    people = [p for p in pairs if p["source"] == "human"]
    made = (run.run_dir / PAIRS_FILE).read_text().splitlines()
    assert len(people) == COUNT
    assert len(pairs) == COUNT + len(made)
    known = gold()
    for pair in people:
        answers = (np.asarray(PAPER13.from_json(pair[side])) for side in ("chosen", "rejected"))
        costs = [np.count_nonzero(answer != known[pair["study_id"]]) for answer in answers]
        assert costs[0] <= costs[1]

    (bundle,) = before_and_after(first, QUIET)
    assert list(bundle.systems) == ["rules", "SFT", "best of K, round 1", "PPO, round 1"]
    assert bundle.baseline == "SFT"
    assert any(c.a == "SFT" or c.b == "SFT" for c in bundle.evaluate(10).comparisons)

    assert open_round(run).finished  # the same command again only shows the tables
    second = open_round(run, following=True)
    assert (second.number, second.before.run_dir) == (2, first.dir)
    judged = {p["study_id"] for p in people}
    some = [r for r in rows(NEW) if r["study_id"] in judged] + rows(NEW)[:8]
    few = run.run_dir.parent / "few.csv"
    with few.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(some[0]))
        writer.writeheader()
        writer.writerows({r["study_id"]: r for r in some}.values())
    study(second, few)
    chosen = rows(second.answers["policy"])
    assert judged.isdisjoint(r["study_id"] for r in chosen)
    assert all(np.isfinite(float(r["reward"])) for r in chosen)  # of the first round's reward model
    assert second.recipe.data.preference_pairs == [str(r.dir / PEOPLE_FILE) for r in (first, second)]
    with pytest.raises(UserError, match="not finished; leave --next out"):
        open_round(run, following=True)


def test_what_a_round_refuses(run: Recipe, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no finished sft stage"):
        open_round(run.model_copy(update={"name": "none"}))
    round_ = open_round(run)
    with pytest.raises(UserError, match="no report is new"):
        build_study(round_, SAMPLES / "reports_test.csv", QUIET)
    assert round_.study is None
    study(round_)
    with pytest.raises(UserError, match="not the reports that round 1 was started with"):
        round_.inputs(SAMPLES / "reports_test.csv")
    judge(round_, "tie")
    with pytest.raises(UserError, match="4 judgements, but no preference"):
        retrain(round_, QUIET)
    assert not (round_.dir / "reward").exists()


def test_the_command_without_serving(run: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(run.to_yaml())
    ask: Callable[..., str] = lambda *more: call(["loop", str(recipe), "--no-serve", *more])  # noqa: E731
    assert "give the new reports with --reports FILE" in ask()
    first = ask("--reports", str(NEW), "--count", "3", "--pool", "16")
    assert "0 of 3 pairs judged; 3 are waited for" in first
    (command,) = [line for line in first.splitlines() if line.startswith("litechex annotate compare")]
    store = run.run_dir / "loop-1" / "judgements.sqlite"
    assert f"--store {store} --limit 3 --seed 7" in command
    assert "--overlap 1.0 --host 127.0.0.1 --port 7860" in command
    token = "a-long-enough-token"
    elsewhere = ask("--overlap", "0.25", "--host", "0.0.0.0", "--port", "8001", "--token", token)
    assert "--overlap 0.25 --host 0.0.0.0 --port 8001" in elsewhere
    assert token not in elsewhere
    again = ask()  # goes on with the same study
    assert command in again
    assert "have two answers" not in again
    judge(open_round(run), "tie", limit=3)  # gives no pair: the page is offered again
    tied = ask()
    assert "3 of 3 pairs judged; no preference among them" in tied
    assert command in tied


def call(arguments: list[str]) -> str:
    result = CliRunner().invoke(app, arguments)
    return result.output + (str(result.exception) if isinstance(result.exception, UserError) else "")
