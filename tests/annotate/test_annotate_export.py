"""What training and evaluation read: preferences, gold labels, the reader study, Label Studio's JSON, agreement."""

from __future__ import annotations

import csv
import json
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from annotation_samples import REPORTS, RIGHT, WRONG, Files, answer, words
from typer.testing import CliRunner

import lite_chex.cli.annotate  # noqa: F401  (registers the commands)
from lite_chex.annotate.agreement import agreements, finding_kappas, kappa
from lite_chex.annotate.build import Inputs, build_items
from lite_chex.annotate.export import gold_labels, win_rates, write_preferences, write_review
from lite_chex.annotate.items import Answer, Item, make_item
from lite_chex.annotate.label_studio import export_judgements, export_tasks, import_judgements
from lite_chex.annotate.store import Store
from lite_chex.cli.app import app
from lite_chex.data.labels import read_labels
from lite_chex.data.preferences import read_pairs
from lite_chex.errors import UserError
from lite_chex.evaluate.reader_study import read_reader_study
from lite_chex.findings import CHEXPERT14, PAPER13, Certainty
from lite_chex.prompt import user_message

numbers = count()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "j.sqlite")


def an_item(task: str, study: str, systems: tuple[str, ...] = ("sft", "ppo")) -> Item:
    given = {"sft": answer(WRONG[study]), "ppo": answer(RIGHT[study])}
    return make_item(task, PAPER13, study, REPORTS[study], tuple(Answer(given[s], (s,)) for s in systems))


def compare(store: Store, study: str, verdict: str, who: str = "Ann", left: str = "sft", **more: Any) -> None:
    item = an_item("compare", study)
    by_system = {a.systems[0]: {"answer": a.text, "systems": list(a.systems)} for a in item.answers}
    sides = {"left": by_system[left], "right": by_system["ppo" if left == "sft" else "sft"]}
    detail = {**sides, "corrections": {}, "agreed_right": False, **more}
    store.add(item=item, annotator=who, verdict=verdict, request=f"request-{next(numbers)}", detail=detail)


def put_labels(store: Store, study: str, given: list[str], who: str, task: str = "label") -> None:
    item = an_item(task, study, ())
    store.add(item=item, annotator=who, verdict="done", request=f"request-{next(numbers)}", detail={"labels": given})


def test_preferences_are_trl_rows_that_say_where_they_come_from(store: Store, tmp_path: Path) -> None:
    compare(store, "s1", "right")
    compare(store, "s2", "left", left="ppo")
    compare(store, "s3", "tie")
    compare(store, "s4", "both_wrong")
    compare(store, "s5", "skip")
    assert write_preferences(store, tmp_path / "p.jsonl") == 2
    rows = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert rows == [
        {
            "prompt": user_message(PAPER13, REPORTS[study]),
            "chosen": answer(RIGHT[study]),
            "rejected": answer(WRONG[study]),
            "study_id": study,
            "source": "human",
            "annotator": "Ann",
        }
        for study in ("s1", "s2")
    ]
    groups = read_pairs(tmp_path / "p.jsonl", PAPER13)  # as train-rm and train-dpo read them
    assert [(g.report, g.source, len(g.pairs)) for g in groups] == [(REPORTS[s], "human", 1) for s in ("s1", "s2")]


def test_a_correction_is_preferred_to_the_answer_it_mends(store: Store, tmp_path: Path) -> None:
    # s4: sft says Cardiomegaly negative, Fracture uncertain; the preferred answer of the two is still not right.
    compare(store, "s4", "left", corrections={"Cardiomegaly": "positive"})
    write_preferences(store, tmp_path / "p.jsonl")
    pair, mended = (json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines())
    assert (pair["chosen"], pair["rejected"]) == (answer(WRONG["s4"]), answer(RIGHT["s4"]))
    assert mended["rejected"] == answer(WRONG["s4"])
    assert mended["chosen"] == answer({**WRONG["s4"], "Cardiomegaly": "positive"})


def test_a_corrected_answer_never_contradicts_itself(store: Store, tmp_path: Path) -> None:
    compare(store, "s3", "both_wrong", corrections={"Edema": "positive"})
    write_preferences(store, tmp_path / "p.jsonl")
    chosen = [json.loads(json.loads(line)["chosen"]) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert len(chosen) == 2  # both answers, each mended
    assert {c["No Finding"] for c in chosen} == {"absent"}


def test_gold_agreed_cells_disagreements_and_adjudication(store: Store, tmp_path: Path) -> None:
    right = words(RIGHT["s2"])
    other = [*right]
    other[PAPER13.index("Pneumonia")] = "positive"
    put_labels(store, "s1", words(RIGHT["s1"]), "Ann")
    for study in ("s2", "s5"):
        put_labels(store, study, right, "Ann")
        put_labels(store, study, other, "Bob")
    put_labels(store, "s5", other, "Eve", "adjudicate")
    for who in ("Ann", "Bob"):
        put_labels(store, "s6", right, who)
    put_labels(store, "s6", other, "Cid")  # the third differs: gold has an x there as well
    compare(store, "s1", "left", corrections={"Edema": "uncertain"})  # labelled as a whole: that counts
    compare(store, "s4", "left", corrections={"Edema": "uncertain"}, agreed_right=True)
    compare(store, "s7", "left")
    gold = gold_labels(store, PAPER13)
    assert gold.ids == ["s1", "s2", "s4", "s5", "s6"]
    path = tmp_path / "gold.csv"
    result = CliRunner().invoke(app, ["annotate", "export", "--store", str(store.path), "--gold", str(path)])
    assert result.exit_code == 0, result.output
    assert "5 studies with gold labels" in result.output
    assert "2 reports wait for" in result.output
    assert (read_labels(path, PAPER13).values == gold.values).all()
    rows = {row["study_id"]: row for row in csv.DictReader(path.open())}
    assert rows["s1"]["Edema"] == ""
    assert rows["s2"]["Pneumonia"] == "x"
    assert rows["s2"]["Lung Opacity"] == "1.0"
    assert rows["s5"]["Pneumonia"] == "1.0"
    assert rows["s6"]["Pneumonia"] == "x"
    # s4: corrected, both agreed (positive, absent), and differing without a word on it.
    assert [rows["s4"][f] for f in ("Edema", "Pleural Effusion", "Pneumonia", "Cardiomegaly")] == [
        "-1.0",
        "1.0",
        "",
        "x",
    ]


def test_gold_from_comparisons_never_contradicts_itself(store: Store) -> None:
    normal = answer({"No Finding": "positive"})
    side = {"answer": normal, "systems": ["sft"]}
    compare(store, "s3", "tie", left="ppo", right=side, agreed_right=True, corrections={"Pneumonia": "positive"})
    compare(store, "s9", "left", "Ann", corrections={"No Finding": "positive"})
    compare(store, "s9", "left", "Bob", corrections={"Edema": "uncertain"})
    gold = gold_labels(store, PAPER13)
    assert gold.values[:, -1].tolist() == [Certainty.ABSENT] * 2
    assert gold.values[0, PAPER13.index("Pneumonia")] == Certainty.POSITIVE
    assert gold.values[1, PAPER13.index("Edema")] == Certainty.UNCERTAIN


def test_gold_of_another_finding_set_is_refused(store: Store) -> None:
    put_labels(store, "s1", words(RIGHT["s1"]), "Ann")
    with pytest.raises(UserError, match="findings paper13"):
        gold_labels(store, CHEXPERT14)


def test_the_reader_study_counts_errors(store: Store, tmp_path: Path) -> None:
    marks = ["missed", "missed", "", "hallucinated", "wrong_certainty"] + [""] * 8
    for system, given, broken in (("sft", marks, False), ("ppo", [""] * 13, True)):
        item = an_item("review", "s1", (system,))
        detail = {"answer": item.answers[0].text, "system": system, "marks": given, "format": broken}
        store.add(item=item, annotator="Ann", verdict="done", request=f"request-{next(numbers)}", detail=detail)
    write_review(store, tmp_path / "study.csv")
    assert (tmp_path / "study.csv").read_text() == (
        "reader,study_id,system,missed,hallucinated,wrong_certainty,format\nAnn,s1,sft,2,1,1,0\nAnn,s1,ppo,0,0,0,13\n"
    )
    readings = read_reader_study(tmp_path / "study.csv")  # as eval --reader-study reads them
    assert readings.errors.tolist() == [4, 13]


def test_win_rates_whatever_the_side(store: Store) -> None:
    compare(store, "s1", "right", left="sft")
    compare(store, "s2", "left", left="ppo")
    compare(store, "s3", "tie")
    compare(store, "s4", "left", left="sft")
    compare(store, "s5", "skip")
    assert win_rates(store) == {"ppo": (2.5 / 4, 4), "sft": (1.5 / 4, 4)}


def test_kappa_by_hand() -> None:
    # 2x2: 20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no. Observed .7, expected .5*.6 + .5*.4 = .5, kappa .4.
    a = ["y"] * 25 + ["n"] * 25
    b = ["y"] * 20 + ["n"] * 5 + ["y"] * 10 + ["n"] * 15
    assert kappa(a, b) == pytest.approx(0.4)
    assert kappa(["a"], ["a"]) is None
    assert kappa([], []) is None


def test_agreement_does_not_depend_on_sides(store: Store) -> None:
    for study, mine, yours in (("s1", "left", "right"), ("s2", "tie", "tie"), ("s3", "left", "left")):
        compare(store, study, mine, "Ann", left="sft")
        compare(store, study, yours, "Bob", left="ppo")
    (found,) = agreements(store.judgements("compare"))
    assert (found.first, found.second, found.n) == ("Ann", "Bob", 3)
    assert found.agreement == pytest.approx(2 / 3)  # s1: the same answer from either side; s3: not


def test_label_kappas_by_finding(store: Store) -> None:
    for study, mine, yours in (("s1", "positive", "positive"), ("s2", "absent", "absent"), ("s3", "positive", "x")):
        put_labels(store, study, [mine] + ["absent"] * 12, "Ann")
        put_labels(store, study, [yours] + ["absent"] * 12, "Bob")
    kappas = finding_kappas(store.judgements("label"), PAPER13)
    assert kappas["Enlarged Cardiomediastinum"] == (2, 1.0)
    assert kappas["Edema"] == (3, None)


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
        for _ in range(2):
            assert import_judgements(other, path, PAPER13).judgements == 4
        assert other.history() == 4
        assert write_preferences(other, tmp_path / "new.jsonl") == write_preferences(store, tmp_path / "old.jsonl")
        assert (tmp_path / "new.jsonl").read_text() == (tmp_path / "old.jsonl").read_text()
        assert [j.verdict for j in other.judgements()] == ["left", "right", "both_wrong", "skip"]


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


def test_export_shows_work_agreement_and_preference(store: Store) -> None:
    for who in ("Ann [1]", "Bob"):
        compare(store, "s1", "right", who)
        compare(store, "s2", "tie", who)
    result = CliRunner().invoke(app, ["annotate", "export", "--store", str(store.path)], env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.output
    for text in ("Ann [1]", "right 1, tie 1", "Agreement", "100.0%", "1.000", "75.0%"):
        assert text in result.output
    assert max(len(line) for line in result.output.splitlines() if str(store.path) not in line) <= 80


def test_a_comparison_that_cannot_start_leaves_no_store(files: Files, tmp_path: Path) -> None:
    store = tmp_path / "none.sqlite"
    arguments = ["annotate", "compare", "--reports", str(files.reports), "--store", str(store)]
    result = CliRunner().invoke(app, [*arguments, "--pred", f"a={files.ppo}", "--pred", f"b={files.ppo}"])
    assert "nothing to compare" in str(result.exception)
    assert not store.exists()


def test_export_needs_a_store(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["annotate", "export", "--store", str(tmp_path / "none.sqlite")])
    assert isinstance(result.exception, UserError)


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
    assert "5 comparisons read" in run("import", str(tasks))
    output = run("export", "--preferences", str(tmp_path / "p.jsonl"))
    assert "ppo" in output  # the store knows which version gave which answer
    assert "100.0%" in output
    assert "5 preferences" in output
