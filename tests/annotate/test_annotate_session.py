"""What comes first, who sees what on which side, and which judgements are refused."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotation_samples import HOSTILE, REPORTS, RIGHT, WRONG, Files, words, write_version
from hypothesis import given
from hypothesis import strategies as st

from lite_chex.annotate.build import Inputs, build_items, open_session, other_reports
from lite_chex.annotate.evidence import Evidence
from lite_chex.annotate.items import entropy
from lite_chex.annotate.session import Refused, Session
from lite_chex.annotate.store import Store
from lite_chex.errors import UserError
from lite_chex.findings import PAPER13

requests = (f"request-{n}" for n in count())


def inputs(files: Files, **more: Any) -> Inputs:
    return Inputs(files.reports, more.pop("predictions", files.predictions), PAPER13, **more)


def start(files: Files, task: str = "compare", overlap: float = 1.0, **more: Any) -> Session:
    chosen = inputs(files, **more)
    return open_session(task, chosen, build_items(task, chosen), Store(files.folder / "j.sqlite"), overlap)


def judge(session: Session, annotator: str, item: dict[str, Any], verdict: str = "left", **more: Any) -> dict[str, Any]:
    body = {"annotator": annotator, "item": item["key"], "verdict": verdict, "request": next(requests)}
    return session.judge({**body, "shown": item.get("shown"), **more})


def test_equal_answers_are_no_pair_and_a_pair_stands_once(files: Files) -> None:
    again = f"again={files.ppo}"  # a third version with the second's answers makes no further pairs
    assert len(build_items("compare", inputs(files)).drafts) == 9
    drafts = build_items("compare", inputs(files, predictions=(*files.predictions, again))).drafts
    assert len(drafts) == 9
    assert {a.systems for d in drafts for a in d.item.answers} == {("sft",), ("ppo", "again")}


def test_most_informative_first_by_differing_cells(files: Files) -> None:
    sure = [f"{n}={write_version(files.folder / f'{n}.csv', w)}" for n, w in (("a", WRONG), ("b", RIGHT))]
    drafts = build_items("compare", inputs(files, predictions=tuple(sure))).drafts
    # Without probabilities two one-hot answers mix to log 2, which is half of log 4, in each differing cell.
    cells = [sum(x != y for x, y in zip(words(WRONG[d.item.study_id]), words(RIGHT[d.item.study_id]))) for d in drafts]
    assert [d.informativeness for d in drafts] == pytest.approx([n / 2 for n in cells])
    assert cells == sorted(cells, reverse=True)
    assert cells[0] > cells[-1]


def test_an_unsure_version_makes_a_pair_more_informative(files: Files) -> None:
    one = {"s1": {"Edema": "positive"}, "s2": {"Edema": "positive"}}
    other = write_version(files.folder / "other.csv", {"s1": {}, "s2": {}})
    unsure = write_version(files.folder / "unsure.csv", one, confidence=0.4)
    lines = unsure.read_text().splitlines()
    sure = write_version(files.folder / "sure.csv", one, confidence=0.99)
    unsure.write_text("\n".join([*lines[:2], sure.read_text().splitlines()[2]]) + "\n")  # s1 unsure, s2 sure
    drafts = build_items("compare", inputs(files, predictions=(f"m={unsure}", f"o={other}"))).drafts
    assert [d.item.study_id for d in drafts] == ["s1", "s2"]


def test_a_reward_model_in_doubt_raises_a_pair(files: Files) -> None:
    def rewarded(name: str, rewards: dict[str, float]) -> str:
        path = files.folder / f"{name}.csv"
        given = {study: {"Edema": "positive"} if name == "a" else {} for study in rewards}
        rows = write_version(path, given).read_text().splitlines()
        path.write_text("\n".join(f"{row},{r}" for row, r in zip(rows, ["reward", *rewards.values()])) + "\n")
        return f"{name}={path}"

    predictions = (rewarded("a", {"s1": 4.0, "s2": 0.1}), rewarded("b", {"s1": -4.0, "s2": 0.0}))
    drafts = build_items("compare", inputs(files, predictions=predictions)).drafts
    assert [d.item.study_id for d in drafts] == ["s2", "s1"]
    # A draw doubles the 0.5 of one differing cell; a sure win leaves it.
    assert [d.informativeness for d in drafts] == pytest.approx([1.0, 0.5], abs=0.01)


def test_entropy_by_hand() -> None:
    assert entropy(np.array([[0.25] * 4, [1, 0, 0, 0], [0.5, 0.5, 0, 0]])) == pytest.approx([1, 0, 0.5], abs=1e-9)


def test_order_and_sides_come_from_seed_and_person(files: Files) -> None:
    def walk(name: str, seed: int) -> list[tuple[str, list[str]]]:
        session = start(files, seed=seed)
        session.store.close()
        session.store = Store(files.folder / f"{name}-{seed}-{next(requests)}.sqlite")
        seen, answer = [], session.next(name)
        while answer["item"]:
            seen.append((answer["item"]["study_id"], answer["item"]["left"]))
            answer = judge(session, name, answer["item"], "tie")
        return seen

    assert walk("Ann", 1) == walk("Ann", 1)
    assert [s for s, _ in walk("Ann", 1)] == [s for s, _ in walk("Bob", 1)]
    assert walk("Ann", 1) != walk("Bob", 1)
    assert walk("Ann", 1) != walk("Ann", 2)


def test_sides_do_not_depend_on_the_order_of_the_versions(files: Files) -> None:
    drafts = [build_items("compare", inputs(files, predictions=files.predictions[::n])).drafts for n in (1, -1)]
    assert drafts[0] == drafts[1]


def test_a_verdict_on_sides_that_are_drawn_anew_is_refused(files: Files) -> None:
    """The page shows what one server sent, and another one with another seed answers."""
    shown = start(files).next("Ann")["item"]
    other = next(s for s in (start(files, seed=n) for n in range(1, 50)) if sides(s, "Ann", shown) != sides_of(shown))
    with pytest.raises(Refused, match="shown otherwise now; reload the page"):
        judge(other, "Ann", shown)
    with pytest.raises(Refused, match="shown otherwise now"):
        judge(start(files), other_name(start(files), shown), shown)
    same = next(s for s in (start(files, seed=n) for n in range(1, 50)) if sides(s, "Ann", shown) == sides_of(shown))
    judge(same, "Ann", shown)
    (row,) = same.store.judgements()
    assert words(json.loads(row.detail["left"]["answer"])) == shown["left"]


def sides(session: Session, annotator: str, item: dict[str, Any]) -> tuple[list[str], list[str]]:
    view = session._view(session._drafts[item["key"]], annotator, None)
    return view["left"], view["right"]


def sides_of(item: dict[str, Any]) -> tuple[list[str], list[str]]:
    return item["left"], item["right"]


def other_name(session: Session, item: dict[str, Any]) -> str:
    """Somebody who sees the two answers the other way round."""
    return next(n for n in (f"Bob {n}" for n in range(50)) if sides(session, n, item) != sides_of(item))


def test_one_name_has_one_spelling(files: Files) -> None:
    session = start(files)
    judge(session, "Ju\u0308rgen", session.next("Ju\u0308rgen")["item"])
    assert session.next("J\u00fcrgen")["progress"]["done"] == 1


def test_other_reports_in_the_store_are_counted(files: Files) -> None:
    session = start(files, limit=1)
    judge(session, "Ann", session.next("Ann")["item"])
    judged = session.store.judgements()[0].item
    study = session.store.items()[judged].study_id
    assert other_reports(session.store, build_items("compare", inputs(files, limit=1, seed=5))) == 0
    files.reports.write_text(files.reports.read_text().replace(f"{study},", f"{study},Another text. ", 1))
    assert other_reports(session.store, build_items("compare", inputs(files))) == 1


def test_each_reader_has_an_own_order_of_the_same_answers(files: Files) -> None:
    session = start(files, "review", limit=3, seed=5)
    orders = {}
    for reader in ("Ann", "Bob"):
        answer, seen = session.next(reader), []
        while answer["item"]:
            assert set(answer["item"]) == {"key", "study_id", "report", "previous", "answer"}
            seen.append(answer["item"]["key"])
            answer = judge(session, reader, answer["item"], "done", marks=[""] * 13, format=False)
        orders[reader] = seen
    assert len(orders["Ann"]) == 6
    assert orders["Ann"] != orders["Bob"]
    assert set(orders["Ann"]) == set(orders["Bob"])


def test_nothing_the_page_gets_names_a_version(files: Files) -> None:
    for task in ("compare", "review"):
        session = start(files, task)
        first = session.next("Ann")
        mark = {"marks": [""] * 13} if task == "review" else {}
        judge(session, "Ann", first["item"], "skip", **mark)
        undone = session.undo({"annotator": "Ann", "request": next(requests)})
        assert undone["item"]["key"] == first["item"]["key"]
        for sent in (session.config(), first, undone):
            assert "ppo" not in json.dumps(sent)
            assert "sft" not in json.dumps(sent)


def test_undo_puts_back_what_was_filled_in(files: Files) -> None:
    session = start(files)
    item = session.next("Ann")["item"]
    judge(session, "Ann", item, "left", corrections={"Edema": "uncertain"}, agreed_right=True, comment="look")
    undone = session.undo({"annotator": "Ann", "request": next(requests)})
    assert undone["item"]["previous"] == {
        "corrections": {"Edema": "uncertain"},
        "agreed_right": True,
        "comment": "look",
    }
    assert undone["progress"]["done"] == 0
    assert session.undo({"annotator": "Ann", "request": next(requests)})["message"] == "There is nothing to take back."


def test_pace_is_the_median_of_the_last_twenty(files: Files) -> None:
    session = start(files)
    answer = session.next("Ann")
    assert answer["progress"] == {"done": 0, "total": 9, "pace": None}
    for seconds in (2.0, 90.0, 4.0):
        answer = judge(session, "Ann", answer["item"], seconds=seconds)
    assert answer["progress"] == {"done": 3, "total": 9, "pace": 4.0}


def test_no_time_and_no_comment_can_end_a_session(files: Files) -> None:
    """JSON's Infinity would make every later answer unwritable, half a character the row itself."""
    session = start(files)
    answer = judge(session, "Ann", session.next("Ann")["item"], seconds=float("inf"), comment="odd \ud83d")
    assert answer["progress"] == {"done": 1, "total": 9, "pace": None}
    assert session.store.judgements()[0].comment == "odd ?"
    for number in (10**30, 10**400):  # more than SQLite's integers, more than a float
        answer = judge(session, "Ann", answer["item"], seconds=number)
    assert [j.seconds for j in session.store.judgements()] == [None, 1e30, None]
    with pytest.raises(Refused, match="request id"):
        judge(session, "Ann", answer["item"], request="request \ud83d")


def test_without_overlap_two_annotators_share_the_work(files: Files) -> None:
    session = start(files, overlap=0.0)
    people = {name: session.next(name) for name in ("Ann", "Bob")}
    done: dict[str, list[str]] = {"Ann": [], "Bob": []}
    while any(answer["item"] for answer in people.values()):
        for name, answer in people.items():
            if answer["item"]:
                done[name].append(answer["item"]["key"])
                people[name] = judge(session, name, answer["item"])
    assert len(done["Ann"]) + len(done["Bob"]) == 9
    assert not set(done["Ann"]) & set(done["Bob"])
    assert min(len(keys) for keys in done.values()) == 4


def test_answers_that_could_not_be_read(files: Files) -> None:
    (files.folder / "sft.csv.errors.csv").write_text("row,study_id,reason\n1,s1,no readable answer\n")
    assert "s1" not in {d.item.study_id for d in build_items("compare", inputs(files)).drafts}
    session = start(files, "review")
    by_study = {d.item.study_id: d.item for d in session._drafts.values() if d.item.answers[0].systems == ("sft",)}
    body = {"key": by_study["s1"].key}
    judge(session, "Ann", body, "done", marks=[""] * 13, format=False)
    assert session.store.judgements()[0].detail["format"] is True


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"verdict": "best"}, "verdict must be one of"),
        ({"shown": None}, "shown otherwise now; reload the page"),
        ({"item": "c123"}, "not part of the session"),
        ({"annotator": " "}, "Give your name"),
        ({"annotator": "x" * 61}, "Give your name"),
        ({"request": ""}, "no request id"),
        ({"corrections": {"Edma": "positive"}}, "not in the set"),
        ({"corrections": {"No Finding": "negative"}}, "No Finding cannot have this label"),
    ],
)
def test_refused_comparisons_leave_no_row(files: Files, body: dict[str, Any], message: str) -> None:
    session = start(files)
    item = session.next("Ann")["item"]
    good = {"annotator": "Ann", "item": item["key"], "verdict": "left", "shown": item["shown"]}
    good["request"] = next(requests)
    with pytest.raises(Refused, match=message):
        session.judge({**good, **body})
    assert session.store.history() == 0


def test_marks_must_fit_the_answer(files: Files) -> None:
    session = start(files, "review")
    item = session.next("Ann")["item"]
    absent = item["answer"].index("absent")
    mentioned = next(i for i, word in enumerate(item["answer"]) if word != "absent")
    for cell, mark in ((absent, "hallucinated"), (mentioned, "missed"), (mentioned, "wrong")):
        marks = [""] * 13
        marks[cell] = mark
        with pytest.raises(Refused, match="its mark can only be"):
            judge(session, "Ann", item, "done", marks=marks)
    with pytest.raises(Refused, match="one mark"):
        judge(session, "Ann", item, "done", marks=[""])


def test_labels_must_be_whole_and_free_of_contradiction(files: Files) -> None:
    session = start(files, "label", predictions=())
    item = session.next("Ann")["item"]
    assert item["draft"] is None
    for labels, message in (
        (["absent"], "one label for each"),
        (["absent"] * 12 + ["negative"], "No Finding cannot have"),
        (["positive"] + ["absent"] * 11 + ["positive"], "No Finding cannot be positive beside"),
        ([None] * 13, "cannot have this label"),
    ):
        with pytest.raises(Refused, match=message):
            judge(session, "Ann", item, "done", labels=labels)
    judge(session, "Ann", item, "done", labels=["negative"] + ["absent"] * 10 + ["x", "positive"])
    assert session.store.history() == 1


def test_drafts_show_probabilities_and_doubtful_reports_come_first(files: Files) -> None:
    session = start(files, "label", predictions=(f"ppo={files.ppo}",))
    item = session.next("Ann")["item"]
    assert item["draft"] == words(RIGHT[item["study_id"]])
    assert max(item["probabilities"][0]) == pytest.approx(0.97)
    entropies = [d.informativeness for d in session._drafts.values()]
    assert entropies == sorted(entropies, reverse=True)


@pytest.mark.parametrize("report", [HOSTILE, *list(REPORTS.values())[1:]])
def test_marked_sentences_join_to_the_report(report: str) -> None:
    segments = Evidence(PAPER13).segments(report)
    assert "".join(s.text for s in segments) == report
    assert any(s.findings for s in segments)


@given(st.text(max_size=200))
def test_any_text_joins_to_itself(report: str) -> None:
    assert "".join(s.text for s in _EVIDENCE.segments(report)) == report


_EVIDENCE = Evidence(PAPER13)


def test_sentences_are_marked_with_what_they_support() -> None:
    segments = _EVIDENCE.segments(REPORTS["s1"])
    found = {name: s.text for s in segments for name in (PAPER13.names[i] for i in s.findings)}
    assert "small left pleural effusion" in found["Pleural Effusion"]
    assert "mildly enlarged" in found["Cardiomegaly"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"predictions": ("ppo",)}, "needs 2 or more"),
        ({"predictions": ("ppo", "sft")}, "NAME=FILE"),
        ({"predictions": ("a=none.csv", "b=none.csv")}, r"none\.csv: no such file"),
        ({"id_column": "uid"}, "uid"),
    ],
)
def test_inputs_that_cannot_be_used(files: Files, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_items("compare", inputs(files, **change))


def test_versions_need_names_and_ids_of_these_reports(files: Files) -> None:
    with pytest.raises(UserError, match='two versions are called "ppo"'):
        build_items("compare", inputs(files, predictions=(f"ppo={files.ppo}", f"ppo={files.sft}")))
    strange = write_version(files.folder / "strange.csv", {"z1": {}})
    with pytest.raises(UserError, match=r"strange\.csv: no id in common with the reports"):
        build_items("compare", inputs(files, predictions=(f"ppo={files.ppo}", f"z={strange}")))
    with pytest.raises(UserError, match="nothing to compare"):
        build_items("compare", inputs(files, predictions=(f"a={files.ppo}", f"b={files.ppo}")))


def test_versions_are_matched_by_the_named_id_column(files: Files) -> None:
    before = build_items("compare", inputs(files)).drafts
    for path in (files.reports, files.ppo, files.sft):
        path.write_text(path.read_text().replace("study_id", "Accession", 1))
    assert build_items("compare", inputs(files, id_column="Accession")).drafts == before


def test_reports_with_one_id_are_refused(files: Files) -> None:
    with files.reports.open("a") as file:
        file.write("s1,another\n")
    with pytest.raises(UserError, match=r"rows 1 and 10 \(the first is 0\) have one id"):
        build_items("compare", inputs(files))


def test_empty_reports_are_counted_not_shown(files: Files) -> None:
    with files.reports.open("a") as file:
        file.write("s10,\n")
    assert build_items("label", inputs(files, predictions=())).left_out == 1


def test_a_store_outlives_its_session(files: Files) -> None:
    session = start(files)
    item = session.next("Ann")["item"]
    judge(session, "Ann", item)
    again = start(files)
    assert again.next("Ann")["progress"]["done"] == 1
    assert again.next("Ann")["item"]["key"] != item["key"]
    assert again.next("Bob")["item"]["key"] == item["key"]


def test_store_path_may_be_new_folder(tmp_path: Path) -> None:
    Store(tmp_path / "a" / "b.sqlite").close()
    assert (tmp_path / "a" / "b.sqlite").exists()


def test_a_reader_study_takes_the_reports_that_a_version_has(files: Files) -> None:
    few = write_version(files.folder / "few.csv", {"s1": {}, "s2": {}})
    one = write_version(files.folder / "one.csv", {"s1": {}})
    drafts = build_items("review", inputs(files, predictions=(f"few={few}", f"one={one}"))).drafts
    given = {(d.item.study_id, d.item.answers[0].systems[0]): d.item.answers[0].text for d in drafts}
    assert set(given) == {("s1", "few"), ("s1", "one"), ("s2", "few"), ("s2", "one")}
    assert [key for key, text in given.items() if not text] == [("s2", "one")]
