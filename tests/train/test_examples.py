"""Clinical error score, single-cell edits and corrections, by hand."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from lite_chex.data.preferences import AnswerGroup, read_pairs, write_pairs
from lite_chex.data.records import Report
from lite_chex.errors import UserError
from lite_chex.findings import SKIP, FindingSet
from lite_chex.recipe import Recipe, Source, load_recipe
from lite_chex.train import preferences
from lite_chex.train.examples import (
    Examples,
    check_splits,
    error_score,
    load_source,
    load_split,
    print_rare_normal,
    single_edits,
)
from lite_chex.train.preferences import Samples, corrected
from lite_chex.train.run import PAIRS_FILE
from tests.conftest import make_recipe

P, N, U, A = range(4)
WEIGHTS = {"missed": 1.0, "hallucinated": 2.0, "wrong_certainty": 0.5}
SMALL = FindingSet("small", ("Edema", "Fracture", "Pneumonia", "No Finding"))


def score(gold: list[int], answer: list[int], presence: bool = False) -> float:
    found = error_score(np.array(gold, np.int8), np.array([answer], np.int8), presence=presence, **WEIGHTS)
    return float(found[0])


@pytest.mark.parametrize(
    ("gold", "answer", "cost"),
    [
        ([P, A, N, A], [P, A, N, A], 0.0),
        ([P, A, N, A], [A, A, N, A], 1.0),  # missed
        ([P, A, N, A], [P, U, N, A], 2.0),  # hallucinated
        ([P, A, N, A], [U, A, P, A], 1.0),  # two wrong certainties
        ([int(SKIP), A, N, A], [P, A, N, A], 0.0),  # not scored
    ],
)
def test_error_score(gold: list[int], answer: list[int], cost: float) -> None:
    assert score(gold, answer) == cost


@pytest.mark.parametrize(
    ("gold", "answer", "cost"),
    [
        ([P, A, A, int(SKIP)], [P, N, A, A], 0.0),  # negative or absent: the same
        ([P, A, A, int(SKIP)], [N, A, A, A], 1.0),
        ([P, A, A, int(SKIP)], [A, A, A, A], 1.0),
        ([P, A, A, int(SKIP)], [U, U, A, A], 0.0),  # an answered uncertain is left out
        ([P, A, A, int(SKIP)], [P, P, A, A], 2.0),
    ],
)
def test_presence_score(gold: list[int], answer: list[int], cost: float) -> None:
    assert score(gold, answer, presence=True) == cost


def test_single_edits_change_one_finding() -> None:
    gold = np.array([A, N, A, P], np.int8)
    edits = single_edits(gold, SMALL, 40, np.random.default_rng(0))
    assert ((edits[:, :3] != gold[:3]).sum(axis=1) == 1).all()
    np.testing.assert_array_equal(edits, SMALL.consistent(edits))
    assert (edits[::2, 1] != N).all()  # every other edit is of the one finding that gold mentions


def test_half_of_the_single_edits_are_the_policys_own_mistakes() -> None:
    gold = np.array([A, N, A, P], np.int8)
    # The greedy answer errs in two cells, a sample repeats one of them and adds another.
    answers = np.array([[P, N, U, A], [P, A, A, A]], np.int8)
    edits = single_edits(gold, SMALL, 6, np.random.default_rng(0), answers)
    assert edits[:3].tolist() == [[P, N, A, A], [A, N, U, A], [A, A, A, P]]
    assert single_edits(gold, SMALL, 2, np.random.default_rng(0), answers)[0].tolist() == [P, N, A, A]
    assert len(single_edits(gold, SMALL, 6, np.random.default_rng(0), gold[None])) == 6


def test_corrections() -> None:
    answer = np.array([A, P, U, A], np.int8)
    logits = np.zeros((4, 4), np.float32)
    logits[1, N] = 1.0
    fixed = corrected(answer, logits, np.array([P, A, P, SKIP], np.int8), presence=True)
    assert fixed.tolist() == [P, N, U, A]
    fixed = corrected(answer, logits, np.array([N, SKIP, A, A], np.int8), presence=False)
    assert fixed.tolist() == [N, P, A, A]


def test_splits_that_share_a_text_are_refused(tiny_base, tmp_path) -> None:  # type: ignore[no-untyped-def]
    from lite_chex.errors import UserError

    recipe = make_recipe(tiny_base, tmp_path)
    recipe.data.test[0] = recipe.data.train[0]
    with pytest.raises(UserError, match='splits "train" and "test" share'):
        check_splits(recipe)


def _one_file(recipe: Recipe, folder: Path) -> None:
    """Train, validation and test as a release gives them: one file, split by patient, one text in all three."""
    rows = ["study_id,patient_id,report,split"]
    for i, (patient, split) in enumerate([(1, "train"), (1, "train"), (2, "validate"), (3, "test"), (3, "test")]):
        text = "Lungs are clear." if i in (0, 2, 4) else f"Effusion {'very ' * i}small."
        rows.append(f"{i},{patient},{text},{split}")
    reports, gold = folder / "reports.csv", folder / "gold.csv"
    reports.write_text("\n".join(rows) + "\n")
    gold.write_text("study_id,Edema\n" + "".join(f"{i},{'x' if i == 3 else '1.0'}\n" for i in range(5)))
    recipe.data.train = [Source(reports=str(reports), labels="rules", split="train")]
    recipe.data.preference = []
    recipe.data.validation = [Source(reports=str(reports), labels=str(gold), split="validation")]
    recipe.data.test = [Source(reports=str(reports), labels=str(gold), split="test")]


def test_a_split_of_one_file(tiny_base: Path, tmp_path: Path) -> None:
    recipe = make_recipe(tiny_base, tmp_path)
    _one_file(recipe, tmp_path)
    assert [r.study_id for part in load_split(recipe, "train") for r in part.reports] == ["0", "1"]
    # Report 3 has no cell that can be scored.
    assert [r.study_id for part in load_split(recipe, "test") for r in part.reports] == ["4"]
    recipe.data.validation[0].split = "val"
    assert [r.study_id for part in load_split(recipe, "validation") for r in part.reports] == ["2"]
    recipe.data.test[0].split = "tset"
    with pytest.raises(UserError, match=r'reports.csv has no report of the split "tset" \(it has test, train, valid'):
        load_split(recipe, "test")


def test_what_splits_share_is_refused_or_left_to_the_later_one(tiny_base: Path, tmp_path: Path) -> None:
    recipe = make_recipe(tiny_base, tmp_path)
    _one_file(recipe, tmp_path)
    with pytest.raises(UserError, match=r"share 0 patients and 1 report text; .*data.shared=leave_out"):
        check_splits(recipe)
    recipe.data.shared = "leave_out"
    check_splits(recipe)
    assert [r.study_id for part in load_split(recipe, "train") for r in part.reports] == ["1"]
    assert [r.study_id for part in load_split(recipe, "test") for r in part.reports] == ["4"]
    with pytest.raises(UserError, match=r"data: every report of .* is left to a later split"):
        load_split(recipe, "validation")
    # Gold taken from train: its patient leaves train.
    gold = tmp_path / "mine.csv"
    gold.write_text("study_id,Edema\n1,1.0\n")
    recipe.data.preference = [Source(reports=recipe.data.train[0].reports, labels=str(gold))]
    assert [r.study_id for part in load_split(recipe, "preference") for r in part.reports] == ["1"]
    with pytest.raises(UserError, match=r"data: every report of .* is left to a later split"):
        load_split(recipe, "train")


def test_only_what_is_in_the_later_split_is_left_to_it(tiny_base: Path, tmp_path: Path) -> None:
    """One file for all: what a later split leaves out itself, for its limit or for a split behind it, stays."""
    recipe = make_recipe(tiny_base, tmp_path, "data.shared=leave_out")
    rows = [f"{i},{i // 2},Effusion {'very ' * i}small." for i in range(20)]  # two reports of each patient
    reports = tmp_path / "reports.csv"
    reports.write_text("\n".join(["study_id,patient_id,report", *rows]) + "\n")
    whole = Source(reports=str(reports), labels="rules")
    recipe.data.train, recipe.data.preference = [whole], []
    recipe.data.test = [whole.model_copy(update={"limit": 3})]
    recipe.data.validation = []

    def patients(split: str) -> list[str | None]:
        return [r.patient_id for part in load_split(recipe, split) for r in part.reports]

    tested = set(patients("test"))
    everyone = [str(i // 2) for i in range(20)]
    assert patients("train") == [p for p in everyone if p not in tested]
    recipe.data.validation = [whole.model_copy(update={"limit": 4})]
    validated = patients("validation")
    assert len(validated) == 4
    assert tested.isdisjoint(validated)
    assert patients("train") == [p for p in everyone if p not in tested | set(validated)]


def test_ids_that_do_not_meet(tiny_base, tmp_path) -> None:  # type: ignore[no-untyped-def]
    recipe = make_recipe(tiny_base, tmp_path)
    source = recipe.data.test[0]
    labels = tmp_path / "gold.csv"
    labels.write_text("study_id,Edema\nnobody,1.0\n")
    source.labels = str(labels)
    with pytest.raises(UserError, match=r"ids of .* must match"):
        load_source(source, recipe)


def test_what_labels_and_reports_leave_out_is_said(tiny_base: Path, tmp_path: Path) -> None:
    """A spreadsheet took the leading zero of one id; another id stands twice; an empty report is no report."""
    recipe = make_recipe(tiny_base, tmp_path)
    (tmp_path / "r.csv").write_text("study_id,report\n01,Edema.\n02,Clear.\n02,Fracture.\n03,\n04,No edema.\n")
    (tmp_path / "l.csv").write_text("study_id,Edema,No Finding\n1,1.0,\n02,,0.0\n03,,\n04,0.0,\n")
    source = Source(reports=str(tmp_path / "r.csv"), labels=str(tmp_path / "l.csv"))
    examples = load_source(source, recipe)
    assert [r.study_id for r in examples.reports] == ["02", "04"]
    assert examples.notes[1:] == [
        "l.csv: 2 of its rows left out, no report of r.csv with text has their id",
        "r.csv: 1 of its reports left out, an earlier one has their id",
    ]
    assert "No Finding" in examples.notes[0]
    assert examples.subset([0]).notes == examples.notes
    by_rules = load_source(source.model_copy(update={"labels": "rules"}), recipe)
    assert by_rules.notes == examples.notes[2:]


def test_pairs_that_people_made_since_are_not_ignored_in_silence(tiny_base: Path, tmp_path: Path) -> None:
    recipe = make_recipe(tiny_base, tmp_path)
    console = Console(file=io.StringIO(), width=300)
    pair = {"answers": [(P,) + (A,) * 12, (N,) + (A,) * 12], "pairs": [(0, 1)]}
    old = AnswerGroup("s1", "Edema.", source="human", annotator="Ann", **pair)
    new = AnswerGroup("s2", "Fracture.", source="human", annotator="Ann", **pair)
    recipe.data.preference_pairs = [str(tmp_path / "people.jsonl")]
    write_pairs(recipe.run_dir / PAIRS_FILE, [old], recipe.findings)
    write_pairs(tmp_path / "people.jsonl", [old], recipe.findings)
    assert len(preferences.run_pairs(recipe, console)) == 1
    spaced = AnswerGroup("s1", "Edema. ", source="human", annotator="Ann", **pair)
    write_pairs(tmp_path / "people.jsonl", [spaced], recipe.findings)
    assert len(preferences.run_pairs(recipe, console)) == 1
    assert console.file.getvalue() == ""
    ours = AnswerGroup("s2", "Fracture.", **pair)  # ranked by gold, not by a person without a name
    write_pairs(recipe.run_dir / PAIRS_FILE, [old, ours], recipe.findings)
    nameless = AnswerGroup("s2", "Fracture.", source="human", **pair)
    write_pairs(tmp_path / "people.jsonl", [old, nameless], recipe.findings)
    assert len(preferences.run_pairs(recipe, console)) == 2
    assert "people.jsonl 1 reports are not in" in console.file.getvalue()
    console.file = io.StringIO()
    write_pairs(recipe.run_dir / PAIRS_FILE, [old], recipe.findings)
    write_pairs(tmp_path / "people.jsonl", [old, new], recipe.findings)
    assert len(preferences.run_pairs(recipe, console)) == 1
    assert "people.jsonl 1 reports are not in" in console.file.getvalue()
    assert "litechex preferences makes it again" in console.file.getvalue()


def test_pairs_that_people_made_are_not_of_reports_that_the_run_is_tested_on(tiny_base: Path, tmp_path: Path) -> None:
    recipe = make_recipe(tiny_base, tmp_path)
    recipe.data.preference_pairs = [str(tmp_path / "people.jsonl")]
    console = Console(file=io.StringIO(), width=300)
    pair = {"answers": [(P,) + (A,) * 12, (N,) + (A,) * 12], "pairs": [(0, 1)]}
    texts = [
        "Edema.",
        *(load_source(getattr(recipe.data, s)[0], recipe).texts[0].upper() for s in ("test", "validation")),
    ]
    given = [AnswerGroup(str(i), t, source="human", annotator="Ann", **pair) for i, t in enumerate(texts)]
    write_pairs(tmp_path / "people.jsonl", given, recipe.findings)
    said = "people.jsonl: 2 of its 3 reports are validation or test reports"
    with pytest.raises(UserError, match=f"{said}; take them out"):
        preferences.make_preferences(recipe, console)
    recipe.data.shared = "leave_out"
    recipe.data.preference = []
    made = preferences.make_preferences(recipe, console)
    assert [g.report for g in read_pairs(made, recipe.findings)] == ["Edema."]
    assert re.search(f"{said}: left out", console.file.getvalue())


def test_pairs_are_compared_with_the_splits_as_they_are_now(tiny_base: Path, tmp_path: Path) -> None:
    recipe = make_recipe(tiny_base, tmp_path)
    console = Console(file=io.StringIO(), width=300)
    pair = {"answers": [(P,) + (A,) * 12, (N,) + (A,) * 12], "pairs": [(0, 1)]}
    texts = ["Edema.", load_source(recipe.data.preference[0], recipe).texts[0]]
    write_pairs(recipe.run_dir / PAIRS_FILE, [AnswerGroup("1", t, **pair) for t in texts], recipe.findings)
    assert len(preferences.run_pairs(recipe, console)) == 2
    recipe.data.test, recipe.data.preference = recipe.data.preference, recipe.data.test
    with pytest.raises(UserError, match=r"preferences.jsonl: 1 of its 2 reports .* run litechex preferences again"):
        preferences.run_pairs(recipe, console)
    recipe.data.shared = "leave_out"
    assert [g.report for g in preferences.run_pairs(recipe, console)] == ["Edema."]


@pytest.mark.parametrize("normal", [0, 30])
def test_gold_in_which_hardly_a_report_is_normal_is_told(tiny_base: Path, tmp_path: Path, normal: int) -> None:
    recipe = make_recipe(tiny_base, tmp_path)
    reports = tmp_path / "train.csv"
    reports.write_text("report\n" + "No acute disease.\n" * 40 + "Edema.\n" * 60)
    recipe.data.train = [Source(reports=str(reports), labels="rules")]
    labels = np.full((100, 13), A, dtype=np.int8)
    labels[:normal, -1] = P
    gold = Examples([Report(i, str(i), "Edema.") for i in range(100)], labels, np.ones(13, dtype=bool), False, "gold")
    console = Console(file=io.StringIO(), width=300)
    print_rare_normal([gold], recipe, console)
    said = "No Finding stands in 0 of 100 gold reports, and in 40% of the training reports (by the rules)"
    assert (said in console.file.getvalue()) == (normal == 0)
    assert normal == 0 or not console.file.getvalue()


def test_pairs_that_people_made_fit_the_model_like_all_others(tiny_base: Path, tmp_path: Path) -> None:
    recipe = make_recipe(tiny_base, tmp_path)
    recipe.data.preference_pairs, recipe.data.preference = [str(tmp_path / "people.jsonl")], []
    pair = {"answers": [(P,) + (A,) * 12, (N,) + (A,) * 12], "pairs": [(0, 1)]}
    given = [
        AnswerGroup(str(i), t, source="human", annotator="Ann", **pair)
        for i, t in enumerate(("Edema.", "Edema. " * 900))
    ]
    write_pairs(tmp_path / "people.jsonl", given, recipe.findings)
    console = Console(file=io.StringIO(), width=300)
    made = preferences.make_preferences(recipe, console)
    assert [g.report for g in read_pairs(made, recipe.findings)] == ["Edema."]
    assert "people.jsonl: 1 reports longer than model.max_length left out" in console.file.getvalue()


def test_row_numbers_never_meet_ids(tiny_base: Path, tmp_path: Path) -> None:
    recipe = make_recipe(tiny_base, tmp_path)
    reports, labels = tmp_path / "reports.csv", tmp_path / "gold.csv"
    reports.write_text("report\nClear lungs.\nMild edema.\n")
    labels.write_text("study_id,Edema\n1,1.0\n2,0.0\n")
    recipe.data.test[0] = Source(reports=str(reports), labels=str(labels))
    with pytest.raises(UserError, match=r"gold.csv"):
        load_source(recipe.data.test[0], recipe)


def test_presence_codes_of_no_finding_alone_are_no_gold(tiny_base: Path, tmp_path: Path) -> None:
    recipe = make_recipe(tiny_base, tmp_path)
    reports, labels = tmp_path / "reports.csv", tmp_path / "gold.csv"
    reports.write_text("study_id,report\n1,Clear lungs.\n2,Mild edema.\n")
    labels.write_text("study_id,Edema,No Finding\n1,x,1\n2,1,\n")
    source = Source(reports=str(reports), labels=str(labels), presence=True)
    assert [r.study_id for r in load_source(source, recipe).reports] == ["2"]


def test_limit_is_seeded(tiny_base, tmp_path) -> None:  # type: ignore[no-untyped-def]
    recipe = make_recipe(tiny_base, tmp_path)
    ids = [[r.study_id for r in load_source(recipe.data.test[0], recipe).reports] for _ in range(2)]
    assert ids[0] == ids[1]
    assert len(ids[0]) == 24


@pytest.mark.parametrize(
    ("first_cell", "presence", "whole"), [(P, False, True), (SKIP, False, False), (P, True, False)]
)
def test_only_an_answer_that_is_gold_in_every_cell_is_marked_gold(first_cell: int, presence: bool, whole: bool) -> None:
    recipe = load_recipe("tiny-cpu")
    gold = np.full((1, 13), A, np.int8)
    gold[0, 0] = first_cell
    part = Examples([Report(0, "s1", "some report")], gold, np.ones(13, bool), presence, "gold")
    greedy = np.full((1, 13), A, np.int8)
    samples = Samples(greedy, np.repeat(greedy[:, None], 2, axis=1), np.zeros((1, 13, 4), np.float32))
    group = preferences._group(part, 0, samples, recipe, np.random.default_rng(0))
    assert group.pairs
    assert group.gold == (group.answers.index(tuple(gold[0].tolist())) if whole else None)
