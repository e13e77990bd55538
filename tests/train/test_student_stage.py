"""``litechex distill RECIPE``: the run's student, from recipe to a row of the run's tables."""

from __future__ import annotations

import json
import sys
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import lite_chex.cli  # noqa: F401  (registers the commands)
from lite_chex.cli.app import main
from lite_chex.data.labels import read_labels
from lite_chex.errors import UserError
from lite_chex.labelers.rules import RuleLabeler
from lite_chex.recipe import Recipe, load_recipe, shipped
from lite_chex.train.examples import load_split
from lite_chex.train.sft import train_sft
from lite_chex.train.stages import evaluate_run
from lite_chex.train.student import train_student

SAMPLES = shipped("data_samples")
QUIET = Console(quiet=True)
SMALL = [
    "distill.model_name_or_path=new",
    "distill.teacher=rules",
    "distill.reports=[]",
    "distill.num_train_epochs=0.2",
    "distill.validation_fraction=0.2",
    f"data.train=[{{reports: {SAMPLES / 'reports_train.csv'}, labels: rules, limit: 40}}]",
    "data.test.0.limit=16",
    "data.custom_findings={Scoliosis: [scoliosis]}",
    "eval.bootstrap=20",
]


def small(runs: Path, *changes: str) -> Recipe:
    return load_recipe("tiny-cpu", [*SMALL, *changes], str(runs))


def test_the_student_may_learn_from_every_split_but_the_tests(tmp_path: Path) -> None:
    """The demo's recipe names the preference reports for it; what the test has itself is left out."""
    files = [SAMPLES / f"reports_{split}.csv" for split in ("preference", "test")]
    named = ", ".join(f"{{reports: {path}}}" for path in files)
    recipe = small(tmp_path, f"distill.reports=[{named}]", "data.shared=leave_out", "data.test.0.limit=10")
    train_student(recipe, QUIET)
    lines = [
        len(path.read_text().splitlines()) for path in (recipe.run_dir / "predictions" / "teacher").glob("*.jsonl")
    ]
    assert sorted(lines) == [400, 585]  # five of the other test reports have the text of one of the ten


def test_a_student_of_an_earlier_adapter_is_left_out_of_the_tables(tmp_path: Path) -> None:
    recipe = small(tmp_path, "sft.max_steps=3", "distill.teacher=run")
    train_sft(recipe, QUIET)
    train_student(recipe, QUIET)
    assert "student" in evaluate_run(recipe, QUIET)[0].systems
    recipe.sft.learning_rate /= 2
    train_sft(recipe, QUIET)
    (bundle,) = evaluate_run(recipe, QUIET)
    assert "student" not in bundle.systems
    assert any("student was made from an earlier SFT; run litechex distill" in note for note in bundle.notes)


def litechex(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["litechex", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_the_student_is_a_row_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = small(tmp_path)
    changes = [word for change in SMALL for word in ("--set", change)]
    assert litechex(monkeypatch, "distill", "tiny-cpu", "--output-dir", tmp_path, *changes) == 0
    student = recipe.run_dir / "student"
    assert {"student.json", "model.safetensors", "README.md", "recipe.yaml", "metrics.jsonl"} <= {
        p.name for p in student.iterdir()
    }
    assert json.loads((student / "student.json").read_text())["findings"] == list(recipe.findings.names)
    assert "| teacher | rules |" in (student / "README.md").read_text()
    (labels,) = (recipe.run_dir / "predictions" / "teacher").glob("*.csv")
    taught = read_labels(labels, recipe.findings)
    assert len(taught) == 40  # the limit of the source holds for the teacher too

    # Another system's file stands beside the run's rows; without an SFT stage there are only rules and student.
    gold = SAMPLES / "gold_test.csv"
    compare = ("eval", "tiny-cpu", "--output-dir", tmp_path, *changes, "--set", "data.test.0.limit=600")
    figures = tmp_path / "figures.json"
    assert litechex(monkeypatch, *compare, "--pred", f"perfect={gold}", "--json", figures, "--published") == 0
    systems = json.loads(figures.read_text())["systems"]
    assert list(systems) == ["rules", "student", "perfect"]
    assert systems["perfect"]["macro_f1"]["value"] == 1.0
    assert systems["student"]["errors"]["format"] == 0
    kept = read_labels(recipe.run_dir / "predictions" / "0" / "student.csv", recipe.findings)
    assert len(kept) == 600
    assert litechex(monkeypatch, *compare, "--pred", f"rules={gold}") == 1
    assert "--pred rules=…: the run has a row of that name" in capsys.readouterr().err


def test_the_teachers_labels_are_made_once(tmp_path: Path) -> None:
    train_student(small(tmp_path), QUIET)
    said = StringIO()
    train_student(small(tmp_path, "distill.learning_rate=1e-4"), Console(file=said, width=200))
    assert "40 rows are done, complete already" in said.getvalue()


def test_reports_of_the_tests_file_teach_where_they_are_beyond_its_limit(tmp_path: Path) -> None:
    reports = f"distill.reports=[{{reports: {SAMPLES / 'reports_test.csv'}}}]"
    recipe = small(tmp_path, "data.shared=leave_out", "distill.num_train_epochs=0.02", reports)
    train_student(recipe, QUIET)
    (labels,) = (recipe.run_dir / "predictions" / "teacher").glob("*.csv")
    taught = set(read_labels(labels, recipe.findings).ids)
    assert len(taught) > 500
    assert taught.isdisjoint(r.study_id for part in load_split(recipe, "test") for r in part.reports)


def test_a_label_file_teaches_what_it_says(tmp_path: Path) -> None:
    recipe = small(tmp_path)
    file = tmp_path / "teacher.csv"
    names = recipe.findings.names
    from lite_chex.data.readers import iter_reports

    ids = [r.study_id for r in iter_reports(Path(recipe.data.train[0].reports))]
    everywhere = ",".join("" if n == "No Finding" else "1.0" for n in names)
    file.write_text(f"study_id,{','.join(names)}\n" + "".join(f"{i},{everywhere}\n" for i in ids))
    changes = [f"distill.teacher={file}", "distill.num_train_epochs=8", "distill.learning_rate=0.01"]
    summary = train_student(small(tmp_path, *changes), QUIET)
    assert summary.agreement == 1.0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["distill.teacher=run"], r"no finished ppo, dpo, sft stage; run litechex train-sft first"),
        (["distill.teacher=nobody.csv"], r'"nobody.csv" is none of run, rules'),
        (["distill.model_name_or_path=/nowhere"], r"distill.model_name_or_path .*no encoder with safetensors"),
        (
            ["distill.reports=[{reports: data_samples/reports_test.csv}]"],
            r"600 of its reports share a patient or a text",
        ),
        (["distill.reports=[{reports: none.csv}]"], r"distill.reports: there is no file none.csv"),
    ],
)
def test_what_cannot_teach_is_refused_and_an_earlier_student_stays(
    changes: list[str], words: str, tmp_path: Path
) -> None:
    student = tmp_path / "tiny-cpu" / "student"
    student.mkdir(parents=True)
    (student / "student.json").write_text("{}")
    with pytest.raises(UserError, match=words):
        train_student(small(tmp_path, *changes), QUIET)
    assert (student / "student.json").exists()


def test_flags_go_with_or_without_a_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reports, labels = SAMPLES / "reports_validation.csv", SAMPLES / "gold_validation.csv"
    files = ("--reports", reports, "--labels", labels, "--base", "new", "--epochs", "0.1")
    assert litechex(monkeypatch, "distill", *files) == 1
    assert "--output is missing: without RECIPE" in capsys.readouterr().err
    assert litechex(monkeypatch, "distill", "tiny-cpu", "--output", tmp_path / "s") == 1
    assert "--output: RECIPE says it" in capsys.readouterr().err
    assert litechex(monkeypatch, "distill", *files, "--output", tmp_path / "s", "--max-length", "2") == 1
    assert "distill.max_length" in capsys.readouterr().err
    assert litechex(monkeypatch, "distill", *files, "--output", tmp_path / "s") == 0
    assert litechex(monkeypatch, "distill", "tiny-cpu", "--output-dir", tmp_path, *files) == 0
    ours = json.loads((tmp_path / "s" / "student.json").read_text())
    assert ours == json.loads((tmp_path / "tiny-cpu" / "student" / "student.json").read_text())


def test_rules_of_the_recipe_teach_a_custom_finding(tmp_path: Path) -> None:
    recipe = small(tmp_path)
    column = recipe.findings.index("Scoliosis")
    assert RuleLabeler(recipe.findings).label(["Marked scoliosis."]).values[0, column] == 0
    assert np.flatnonzero(recipe.findings.vetoing)[-1] == column
