"""The reader study: Table 2 by hand, kappas against published and independent figures."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from sklearn.metrics import cohen_kappa_score

from lite_chex.errors import UserError
from lite_chex.evaluate.bootstrap import holm
from lite_chex.evaluate.output import Outputs, write_reader_study
from lite_chex.evaluate.reader_study import cohen, evaluate_reader_study, fleiss, read_reader_study
from lite_chex.evaluate.reader_tables import reader_tables
from lite_chex.evaluate.tables import MINUS

STUDY = """reader,study_id,system,missed,hallucinated,wrong_certainty,format
A,1,sft,1,0,0,
A,2,sft,0,1,1,
A,1,ppo,0,0,0,
A,2,ppo,0,0,1,
B,1,sft,2,0,0,
B,2,sft,0,0,0,
B,1,ppo,0,0,0,
B,2,ppo,0,0,0,
"""


def test_table_2_by_hand(tmp_path):
    path = tmp_path / "study.csv"
    path.write_text(STUDY)
    study = evaluate_reader_study(read_reader_study(path), bootstrap=200)
    pooled, single, differences, agreement = reader_tables(study)
    rows = {row[0].text: row for row in pooled.rows}
    # sft: (1 + 2 + 2 + 0) / 4 errors, one of four readings perfect; ppo: 1 / 4 and three of four.
    assert [cell.text for cell in rows["sft"][1:4]] == ["4", "1.250", "25.0%"]
    assert [cell.text for cell in rows["ppo"][1:4]] == ["4", ".250", "75.0%"]
    assert [cell.text for cell in rows["sft"][4:]] == [".750", ".250", ".250", ".000"]
    by_reader = {(row[0].text, row[1].text): row[3].text for row in single.rows}
    assert by_reader == {("sft", "A"): "1.500", ("sft", "B"): "1.000", ("ppo", "A"): ".500", ("ppo", "B"): ".000"}
    # Both readers read both reports of both systems; two reports are too few to tell.
    assert [cell.text for cell in differences.rows[0][:3]] == [f"ppo {MINUS} sft", "4", "-1.000"]
    assert (differences.rows[0][4].text, differences.rows[0][-1].text) == (".500", "not resolved")
    # Perfect or not, A: n n y n, B: n y y y: agree 2 of 4, chance (3/4)(1/4) + (1/4)(3/4) = 3/8 -> 1/5.
    assert [cell.text for cell in agreement.rows[0][:4]] == ["A and B", "4", "Cohen", ".200"]
    # Numbers of errors, A: 1 2 0 1, B: 2 0 0 0: agree 1 of 4, chance (1/4)(3/4) + (1/4)(1/4) = 1/4 -> 0.
    assert agreement.rows[0][4].text == ".000"


def _study(tmp_path, rows):
    path = tmp_path / "study.csv"
    path.write_text("reader,study_id,system,missed,hallucinated,wrong_certainty,format\n" + "\n".join(rows) + "\n")
    return evaluate_reader_study(read_reader_study(path), bootstrap=200)


def test_only_reports_that_a_reader_read_of_both_are_compared(tmp_path):
    """The worse half of sft's reports was read of it alone: on what both were read on they are equal."""
    both = [f"A,{i},{system},{i % 3},0,0,0" for i in range(20) for system in ("sft", "ppo")]
    hard = [f"A,h{i},sft,5,0,0,0" for i in range(20)]
    comparison = _study(tmp_path, both + hard).comparisons[0]
    assert (comparison.n, comparison.errors.delta, comparison.errors.resolved) == (20, 0.0, False)
    others = [f"B,{i},ppo,0,0,0,0" for i in range(20)]  # another reader's eyes are no pair
    comparison = _study(tmp_path, hard + others).comparisons[0]
    assert (comparison.n, comparison.errors.delta) == (0, None)
    assert reader_tables(_study(tmp_path, hard + others))[2].rows[0][-1].text == "no report in common"


def test_reader_comparisons_are_corrected_for_their_number(tmp_path):
    rows = [f"A,{i},s{k},{(i + k) % (k + 2)},0,0,0" for i in range(40) for k in range(4)]
    compared = _study(tmp_path, rows).comparisons
    assert [c.errors.p_holm for c in compared] == pytest.approx(holm([c.errors.p for c in compared]))


def test_fleiss_of_the_worked_example_in_the_literature():
    """Fleiss (1971) as it is usually worked: 10 items, 14 raters, 5 classes, kappa .210."""
    votes = [
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ]  # fmt: skip
    ratings = np.array([np.repeat(np.arange(5), row) for row in votes])
    assert fleiss(ratings) == pytest.approx(0.20993, abs=1e-5)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=40))
def test_cohen_agrees_with_scikit_learn(pairs):
    a, b = np.array(pairs).T
    ours = cohen(a, b)
    if len(np.union1d(a, b)) == 1:
        assert np.isnan(ours)
    else:
        assert ours == pytest.approx(cohen_kappa_score(a, b), abs=1e-9)


def test_fleiss_of_two_perfect_raters_is_one_and_of_one_class_undefined():
    assert fleiss(np.array([[0, 0], [1, 1], [2, 2]])) == pytest.approx(1.0)
    assert np.isnan(fleiss(np.zeros((4, 3), dtype=np.int64)))


def test_it_prints_within_eighty_columns_and_is_written(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    path = tmp_path / "study.csv"
    path.write_text(STUDY + "C,1,sft,1,0,0,\nC,1,ppo,0,0,0,\n")
    target = tmp_path / "study.json"
    study = evaluate_reader_study(read_reader_study(path), bootstrap=50)
    write_reader_study(study, Outputs(json=target, markdown=tmp_path / "study.md"), Console())
    figures = json.loads(target.read_text())["reader_study"]
    assert figures["systems"]["sft"]["readers"]["A"]["errors_per_report"]["value"] == 1.5
    assert figures["agreement"][-1]["kappa"] == "Fleiss"
    assert "Table 2" in (tmp_path / "study.md").read_text()
    out = capsys.readouterr().out
    assert "Fleiss" in out
    assert max(len(line) for line in out.splitlines() if not line.startswith("Written")) <= 80


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (STUDY.replace("reader,", "who,"), '"reader"'),
        (STUDY.replace("A,1,sft,1", "A,1,sft,-1"), "row 0.*missed"),
        (STUDY.replace("A,1,sft,1", "A,1,sft,some"), "row 0.*missed"),
        (STUDY.replace("A,1,sft,1", "A,1,sft,nan"), "row 0.*missed"),
        (STUDY.replace("A,1,sft,1", "A,1,sft,inf"), "row 0.*missed"),
        (STUDY + "C,3,sft,,,,\n", "row 8.*no count"),
        (STUDY + "A,1,sft,0,0,0,\n", "twice"),
        (STUDY.splitlines()[0] + "\n", "no readings"),
        ("reader,study_id,system\nA,1,sft\n", "no column missed, hallucinated"),
        (STUDY.replace("wrong_certainty", "wrong certainty"), "no column wrong_certainty;"),
    ],
)
def test_wrong_input_is_named(tmp_path, text, named):
    path = tmp_path / "study.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=named):
        read_reader_study(path)
