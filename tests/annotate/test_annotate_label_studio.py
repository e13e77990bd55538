"""Comparisons that go to Label Studio and come back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from annotation_samples import RIGHT, Files, answer, compare
from typer.testing import CliRunner

import lite_chex.cli.annotate  # noqa: F401  (registers the commands)
from lite_chex.annotate.build import Inputs, build_items
from lite_chex.annotate.export import write_preferences
from lite_chex.annotate.label_studio import export_judgements, export_tasks, import_judgements
from lite_chex.annotate.store import Store
from lite_chex.cli.app import app
from lite_chex.errors import UserError
from lite_chex.findings import PAPER13


def test_label_studio_and_back(store: Store, tmp_path: Path) -> None:
    compare(store, "s1", "left", "Ann", left="sft")
    compare(store, "s1", "left", "Bob", left="ppo")
    compare(store, "s2", "both_wrong", "Ann")
    compare(store, "s3", "skip", "Ann")
    path = tmp_path / "ls.json"
    assert export_judgements(store, path) == 4
    tasks = json.loads(path.read_text())
    selected = [a["result"][0]["value"]["selected"] for a in tasks[0]["annotations"]]
    assert selected == ["left", "right"]  # one task, one pair of sides
    assert tasks[0]["annotations"][0]["result"][0]["type"] == "pairwise"
    with Store(tmp_path / "new.sqlite") as other:
        assert import_judgements(other, path, PAPER13).judgements == 4
        assert import_judgements(other, path, PAPER13).judgements == 0
        assert other.history() == 4
        assert write_preferences(other, tmp_path / "new.jsonl") == write_preferences(store, tmp_path / "old.jsonl")
        assert (tmp_path / "new.jsonl").read_text() == (tmp_path / "old.jsonl").read_text()
        assert [j.verdict for j in other.judgements()] == ["left", "right", "both_wrong", "skip"]


def test_a_verdict_that_was_changed_in_label_studio_is_taken_over(store: Store, tmp_path: Path) -> None:
    compare(store, "s1", "left")
    compare(store, "s2", "left")
    path = tmp_path / "ls.json"
    export_judgements(store, path)
    with Store(tmp_path / "new.sqlite") as other:
        import_judgements(other, path, PAPER13)
        for number, verdict in enumerate(("right", "left"), start=1):  # there, and back again
            tasks = json.loads(path.read_text())
            changed = tasks[0]["annotations"][0]
            changed["result"][0]["value"]["selected"] = verdict
            changed["updated_at"] = f"2026-01-0{number}T00:00:00Z"
            path.write_text(json.dumps(tasks))
            assert import_judgements(other, path, PAPER13).judgements == 1
            stands = {other.items()[j.item].study_id: j.verdict for j in other.judgements()}
            assert stands == {"s1": verdict, "s2": "left"}


def test_open_pairs_go_to_label_studio_blinded(files: Files, tmp_path: Path) -> None:
    path = tmp_path / "tasks.json"
    drafts = build_items("compare", Inputs(files.reports, files.predictions, PAPER13)).drafts
    assert export_tasks(drafts, path, seed=0) == 9
    assert "ppo" not in path.read_text()
    tasks = json.loads(path.read_text())
    annotation = {
        "id": 17,
        "completed_by": 3,
        "was_cancelled": False,
        "lead_time": 5.5,
        "created_at": "2026-01-02T03:04:05Z",
        "result": [{"type": "pairwise", "from_name": "preference", "value": {"selected": "right"}}],
    }
    tasks[0]["annotations"] = [annotation, {"id": 18, "completed_by": {"email": "a@b.c"}, "result": []}]
    path.write_text(json.dumps(tasks))
    with Store(tmp_path / "ls.sqlite") as store:
        done = import_judgements(store, path, PAPER13)
        (row,) = store.judgements()
    assert (done.judgements, done.empty) == (1, 1)
    assert (row.annotator, row.verdict, row.seconds, row.at) == ("label-studio-3", "right", 5.5, "2026-01-02T03:04:05Z")
    assert row.detail["right"]["answer"] == tasks[0]["data"]["answer2"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "not a JSON list"),
        ('[{"data": {"text": "a"}}]', 'task 0 .* has no "item"'),
        ('[{"data": {"item": "c1", "study_id": "s", "findings": "paper13", "report": "r", "answer1": "{}", '
         '"answer2": "{}"}}]', '"answer1" is no answer'),
    ],
)  # fmt: skip
def test_other_json_is_refused(store: Store, tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "ls.json").write_text(content)
    with pytest.raises(UserError, match=message):
        import_judgements(store, tmp_path / "ls.json", PAPER13)


def test_an_edited_report_is_refused(files: Files, store: Store, tmp_path: Path) -> None:
    path = tmp_path / "tasks.json"
    export_tasks(build_items("compare", Inputs(files.reports, files.predictions, PAPER13)).drafts, path, seed=0)
    tasks = json.loads(path.read_text())
    tasks[2]["data"]["report"] += " More."
    path.write_text(json.dumps(tasks))
    with pytest.raises(UserError, match=r"task 2 .* are not those that were exported"):
        import_judgements(store, path, PAPER13)


def test_label_studio_round_trip_by_command(files: Files, tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["annotate", *arguments, "--store", str(tmp_path / "j.sqlite")])
        assert result.exit_code == 0, result.output
        return result.output

    chosen = [argument for spec in files.predictions for argument in ("--pred", spec)]
    tasks = tmp_path / "tasks.json"
    assert "5 tasks" in run(
        "compare", "--reports", str(files.reports), *chosen, "--label-studio", str(tasks), "--limit", "5"
    )
    assert "<Pairwise" in (tmp_path / "tasks.xml").read_text()
    done = json.loads(tasks.read_text())
    for number, task in enumerate(done):
        right = task["data"]["answer2"] == answer(RIGHT[task["data"]["study_id"]])
        value = {"selected": "right" if right else "left"}
        task["annotations"] = [{"id": number, "completed_by": 1, "result": [{"type": "pairwise", "value": value}]}]
    tasks.write_text(json.dumps(done))
    assert "5 new comparisons read" in run("import", str(tasks))
    output = run("export", "--preferences", str(tmp_path / "p.jsonl"))
    assert "ppo" in output  # the store knows which version gave which answer
    assert "100.0%" in output
    assert "5 preferences" in output
