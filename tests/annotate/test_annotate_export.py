"""What training and evaluation read: preferences, gold labels, the reader study, Label Studio's JSON, agreement."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from annotation_samples import REPORTS, RIGHT, WRONG, Files, an_item, answer, compare, put_labels, put_review, words
from typer.testing import CliRunner

import lite_chex.cli.annotate  # noqa: F401  (registers the commands)
from lite_chex.annotate.agreement import agreements, finding_kappas, kappa
from lite_chex.annotate.build import Inputs, build_items, open_session
from lite_chex.annotate.export import gold_labels, review_rows, win_rates, write_gold, write_preferences, write_review
from lite_chex.annotate.items import NO_ANSWER, Answer, make_item
from lite_chex.annotate.store import Store
from lite_chex.annotate.summary import summary
from lite_chex.cli.app import app
from lite_chex.data.labels import read_labels
from lite_chex.data.preferences import read_pairs
from lite_chex.errors import UserError
from lite_chex.evaluate.reader_study import read_reader_study
from lite_chex.findings import CHEXPERT14, PAPER13, Certainty
from lite_chex.prompt import user_message


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


def test_gold_takes_the_judged_items_of_one_finding_set(store: Store, tmp_path: Path) -> None:
    store.add_items([an_item("compare", "s8")])
    fourteen = make_item("label", CHEXPERT14, "s1", REPORTS["s1"], ())
    put_labels(store, "s1", ["absent"] * 14, "Ann", item=fourteen)
    with pytest.raises(UserError, match="holds labels of the findings chexpert14"):
        gold_labels(store, PAPER13)  # s8 is of these findings, but nobody has judged it
    put_labels(store, "s2", words(RIGHT["s2"]), "Ann")
    assert gold_labels(store, CHEXPERT14).ids == ["s1"]
    assert gold_labels(store, PAPER13).ids == ["s2"]
    arguments = ["annotate", "export", "--store", str(store.path), "--gold", str(tmp_path / "gold.csv")]
    result = CliRunner().invoke(app, arguments)
    assert "gold.csv: 1 studies with gold labels; 1 judged item of other findings left out" in result.output


def test_two_studies_under_one_id_are_not_mixed(store: Store) -> None:
    other = make_item("label", PAPER13, "s1", "Another report that has the same id.", ())
    put_labels(store, "s1", words(RIGHT["s1"]), "Ann", verdict="skip")
    put_labels(store, "s1", words({}), "Bob", item=other)
    assert gold_labels(store, PAPER13).ids == ["s1"]  # a skipped one says nothing that could be mixed
    put_labels(store, "s1", words(RIGHT["s1"]), "Cid")
    with pytest.raises(UserError, match='study "s1" has judgements on two different report texts'):
        gold_labels(store, PAPER13)
    put_review(store, "ppo", [""] * 13, False)
    assert len(review_rows(store)) == 1
    answers = (Answer(answer(RIGHT["s1"]), ("ppo",)),)
    reviewed = make_item("review", PAPER13, "s1", "Another report that has the same id.", answers)
    detail = {"answer": answers[0].text, "system": "ppo", "marks": [""] * 13, "format": False}
    store.add(item=reviewed, annotator="Bob", verdict="done", request="request-other", detail=detail)
    with pytest.raises(UserError, match='study "s1" has judgements on two different report texts'):
        review_rows(store)


def test_gold_has_the_reports_own_id_column(files: Files, tmp_path: Path) -> None:
    files.reports.write_text(files.reports.read_text().replace("study_id", "accession", 1))
    chosen = Inputs(files.reports, (), PAPER13, id_column="accession")
    with Store(tmp_path / "own.sqlite") as store:
        session = open_session("label", chosen, build_items("label", chosen), store)
        item = session.next("Ann")["item"]
        body = {"annotator": "Ann", "item": item["key"], "verdict": "done", "request": "request-label"}
        session.judge({**body, "labels": ["absent"] * 13})
        put_labels(store, "s1", words({}), "Eve", "adjudicate")  # does not know it
        write_gold(store, tmp_path / "gold.csv", PAPER13)
    assert (tmp_path / "gold.csv").read_text().startswith("accession,")


def test_a_skipped_adjudication_still_waits(store: Store) -> None:
    put_labels(store, "s1", words(RIGHT["s1"]), "Ann")
    put_labels(store, "s1", words({}), "Bob")
    put_labels(store, "s1", [], "Eve", "adjudicate", verdict="skip")
    assert "1 reports wait for" in str(summary(store)[-1])
    put_labels(store, "s1", words({}), "Eve", "adjudicate")
    assert "wait for" not in str(summary(store)[-1])


def test_the_reader_study_counts_errors(store: Store, tmp_path: Path) -> None:
    marks = ["missed", "missed", "", "hallucinated", "wrong_certainty"] + [""] * 8
    put_review(store, "sft", marks, False)
    put_review(store, "ppo", [""] * 13, True)
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


def test_reviews_agree_on_format_errors_too(store: Store) -> None:
    put_review(store, "sft", [""] * 13, True, "Ann")
    put_review(store, "sft", [""] * 13, False, "Bob")
    put_review(store, "ppo", [""] * 13, True, "Ann")
    put_review(store, "ppo", ["missed"] + [""] * 12, True, "Bob")  # unusable as a whole: its marks do not count
    nothing = make_item("review", PAPER13, "s2", REPORTS["s2"], (Answer(NO_ANSWER, ("sft",)),))
    for who in ("Ann", "Bob"):  # nobody could have decided otherwise
        detail = {"answer": NO_ANSWER, "system": "sft", "marks": [""] * 13, "format": True}
        store.add(item=nothing, annotator=who, verdict="done", request=f"request-{who}", detail=detail)
    (found,) = agreements(store.judgements("review"))
    assert (found.n, found.agreement) == (26, 0.5)


def test_label_kappas_by_finding(store: Store) -> None:
    for study, mine, yours in (("s1", "positive", "positive"), ("s2", "absent", "absent"), ("s3", "positive", "x")):
        put_labels(store, study, [mine] + ["absent"] * 12, "Ann")
        put_labels(store, study, [yours] + ["absent"] * 12, "Bob")
    kappas = finding_kappas(store.judgements("label"), PAPER13)
    assert kappas["Enlarged Cardiomediastinum"] == (2, 1.0)
    assert kappas["Edema"] == (3, None)


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
