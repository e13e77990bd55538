"""A finding of the user's own, from one recipe through every command: files, tables, prompt, template, pages."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest
import yaml

import lite_chex.cli  # noqa: F401  (registers the commands)
from lite_chex.cli.app import main
from lite_chex.errors import UserError
from lite_chex.findings import PAPER13
from lite_chex.recipe import load_recipe, shipped_recipes

REPORTS = {
    "a": "Mild scoliosis. No pleural effusion.",
    "b": "Spine is curved to the right. Heart size is normal.",
    "c": "No scoliosis. Small left effusion.",
    "d": "Possible curved spine.",
    "e": "Lungs are clear.",
}
SCOLIOSIS = {"a": "1.0", "b": "", "c": "0.0", "d": "-1.0", "e": ""}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """The shipped CPU recipe with one finding more, and one under another name."""
    raw = yaml.safe_load(shipped_recipes()["tiny-cpu"].read_text())
    raw["data"]["custom_findings"] = {"Scoliosis": ["scoliosis", "curved spine"]}
    raw["data"]["rename_findings"] = {"Pleural Effusion": "Effusion"}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    return path


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    path = tmp_path / "reports.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(
            [["study_id", "report", "Scoliosis"], *([i, REPORTS[i], SCOLIOSIS[i]] for i in REPORTS)]
        )
    return path


def litechex(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["litechex", *map(str, arguments)])
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_one_recipe_from_prepare_to_the_tables(
    recipe: Path, reports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared, labels, figures = tmp_path / "p.parquet", tmp_path / "rules.csv", tmp_path / "figures.json"
    prepare = ("prepare", "--source", "table", "--input", reports, "--output", prepared, "--findings", recipe)
    assert litechex(monkeypatch, *prepare) == 0
    assert "Scoliosis" in capsys.readouterr().out
    label = ("label", "--labeler", "rules", "--input", prepared, "--output", labels, "--findings", recipe)
    assert litechex(monkeypatch, *label) == 0
    with labels.open(newline="") as file:
        rows = {row["study_id"]: row for row in csv.DictReader(file)}
    assert list(rows["a"])[-3:] == ["Fracture", "Scoliosis", "No Finding"]
    assert {i: row["Scoliosis"] for i, row in rows.items()} == SCOLIOSIS
    assert {i: row["Effusion"] for i, row in rows.items()} == {"a": "0.0", "b": "", "c": "1.0", "d": "", "e": ""}
    assert rows["d"]["No Finding"] == ""  # an uncertain finding, also of the user's own, forbids it

    gold = tmp_path / "gold.csv"  # CheXpert's name of the renamed finding is still read
    gold.write_text(labels.read_text().replace("Effusion", "Pleural Effusion"))
    capsys.readouterr()
    compare = ("eval", "--gold", gold, "--pred", f"rules={labels}", "--tables", "--findings", recipe)
    assert litechex(monkeypatch, *compare, "--json", figures, "--published", "--bootstrap", "20") == 0
    shown = capsys.readouterr().out
    assert "Scoliosis" in shown
    system = json.loads(figures.read_text())["systems"]["rules"]
    assert system["per_finding"]["Scoliosis"]["value"] == 1.0
    assert system["per_finding"]["Scoliosis"]["n"] == 3
    assert system["cells"]["Effusion"]["positive"]["support"] == 1
    assert litechex(monkeypatch, "validate", gold, "--labels", "--findings", recipe) == 0


def test_findings_need_no_more_of_a_recipe_than_data(
    reports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, labels = tmp_path / "findings.yaml", tmp_path / "rules.csv"
    label = ("label", "--labeler", "rules", "--input", reports, "--output", labels, "--findings", path)
    path.write_text("data: {findings: spine, custom_findings: {Scoliosis: [scoliosis, curved spine]}}")
    assert litechex(monkeypatch, *label) == 0
    assert labels.read_text().splitlines()[0] == "study_id,Scoliosis,No Finding"
    capsys.readouterr()
    for written, said in (
        ("data: {findings: spine}", 'data.findings: "spine" is none of paper13, chexpert14'),
        ("data: {custom_finding: {}}", "unknown key data.custom_finding (did you mean custom_findings?)"),
        ("sft: {}", "data is missing"),
    ):
        path.write_text(written)
        assert litechex(monkeypatch, *label) == 1
        assert capsys.readouterr().err == f"litechex: findings.yaml: {said}\n"


def test_prompt_answers_and_schema_follow_the_recipe(recipe: Path) -> None:
    from lite_chex.decode.template import build_template
    from lite_chex.labelers.openai_compatible import question
    from lite_chex.model.backbone import load_tokenizer
    from lite_chex.prompt import PromptEncoder

    loaded = load_recipe(recipe)
    findings = loaded.findings
    tokenizer = load_tokenizer(loaded.model.model_name_or_path)
    template = build_template(PromptEncoder(tokenizer, findings))
    labels = [3] * len(findings)
    labels[findings.index("Scoliosis")], labels[findings.index("Effusion")] = 0, 2
    text = tokenizer.decode(template.answer_ids(labels), skip_special_tokens=True)
    assert findings.from_json(text).tolist() == labels
    assert "Scoliosis, No Finding" in question(findings)
    assert findings.json_schema()["required"] == list(findings.names)


def test_pages_and_their_exports_know_the_finding(recipe: Path, reports: Path, tmp_path: Path) -> None:
    from lite_chex.annotate.build import Inputs, build_items
    from lite_chex.annotate.export import gold_labels, preferences
    from lite_chex.annotate.store import Store
    from lite_chex.annotate.summary import summary

    findings = load_recipe(recipe).findings
    paths = []
    for name, code in (("one", "1.0"), ("two", "0.0")):
        path = tmp_path / f"{name}.csv"
        path.write_text("study_id,Scoliosis\n" + "".join(f"{i},{code}\n" for i in REPORTS))
        paths.append(f"{name}={path}")
    with Store(tmp_path / "store.sqlite") as store:
        built = build_items("compare", Inputs(reports, tuple(paths), findings))
        assert len(built.drafts) == len(REPORTS)
        item = built.drafts[0].item
        store.add_items([item])
        sides = {
            side: {"answer": a.text, "systems": list(a.systems)} for side, a in zip(("left", "right"), item.answers)
        }
        detail = {**sides, "corrections": {"Scoliosis": "uncertain"}, "agreed_right": False}
        store.add(item=item, annotator="Ann", verdict="left", request="request-1", detail=detail, seed=0, versions={})
        rows = preferences(store)
        assert json.loads(rows[-1].chosen)["Scoliosis"] == "uncertain"
        assert (gold_labels(store, findings).values != -1).sum() == 1
        assert summary(store, findings)
        with pytest.raises(UserError, match=r"give --findings RECIPE, the recipe of paper13\+Effusion\+Scoliosis"):
            gold_labels(store, PAPER13)


def test_adjudication_without_the_recipe_says_whose_labels_differ(recipe: Path, reports: Path, tmp_path: Path) -> None:
    from lite_chex.annotate.build import Inputs, build_items
    from lite_chex.annotate.session import adjudication
    from lite_chex.annotate.store import Store

    findings = load_recipe(recipe).findings
    with Store(tmp_path / "store.sqlite") as store:
        item = build_items("label", Inputs(reports, (), findings)).drafts[0].item
        for name, word in (("Ann", "positive"), ("Bob", "absent")):
            labels = [word, *["absent"] * (len(findings) - 1)]
            store.add(item=item, annotator=name, verdict="done", request=f"request-{name}", detail={"labels": labels})
        session = adjudication(store, findings)
        assert len(session) == 1
        shown = session.next("Eve")["item"]
        body = {"annotator": "Eve", "item": shown["key"], "verdict": "done", "request": "request-Eve-1"}
        assert session.judge({**body, "labels": labels})["item"] is None
        assert session.next("Fay")["item"] is None  # decided once: another adjudicator has nothing to do
        with pytest.raises(UserError, match=r"they do with --findings RECIPE, the recipe of paper13\+"):
            adjudication(store, PAPER13)
