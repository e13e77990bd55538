"""``litechex eval`` as a user runs it: real files, exit codes, one sentence per mistake."""

from __future__ import annotations

import csv
import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

import lite_chex.cli.evaluate
import lite_chex.cli.label  # noqa: F401
from lite_chex.cli import main
from lite_chex.errors import UserError
from lite_chex.evaluate.export import latex_table
from lite_chex.evaluate.inputs import EvalInput, add_predictions
from lite_chex.evaluate.tables import Cell, Table
from lite_chex.findings import CHEXPERT14, PAPER13, to_code
from lite_chex.recipe import Source, load_recipe
from lite_chex.train.examples import load_source

GOLD = [
    # Edema, Pneumothorax, No Finding (the rest absent)
    (0, 1, 3),
    (0, 3, 3),
    (2, 1, 3),
    (3, 3, 0),
    (1, 0, 3),
    (3, 1, 3),
]
NAMES = ("Edema", "Pneumothorax", "No Finding")


def labels(rows: list[tuple[int, ...]], names: tuple[str, ...] = NAMES) -> np.ndarray:
    values = np.full((len(rows), len(PAPER13)), 3, dtype=np.int8)
    for i, row in enumerate(rows):
        for name, value in zip(names, row, strict=True):
            values[i, PAPER13.index(name)] = value
    return values


def write(path: Path, values: np.ndarray, ids: list[str] | None, names: tuple[str, ...] = PAPER13.names) -> Path:
    """A label file with its columns in the order of names."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*(["study_id"] if ids else []), *names])
        for i, row in enumerate(values):
            codes = [to_code(int(row[PAPER13.index(n)])) for n in names]
            writer.writerow([*([ids[i]] if ids else []), *codes])
    return path


IDS = [f"s{i}" for i in range(len(GOLD))]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    gold = labels(GOLD)
    close = gold.copy()
    close[2, PAPER13.index("Edema")] = 0
    far = gold.copy()
    far[:, PAPER13.index("Edema")] = 3
    return {
        "gold": write(tmp_path / "gold.csv", gold, IDS),
        "close": write(tmp_path / "close.csv", close, IDS, tuple(reversed(PAPER13.names))),
        "far": write(tmp_path / "far.csv", far[::-1], IDS[::-1]),
    }


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout, stderr of ``litechex eval``."""
    old = sys.argv
    sys.argv = ["litechex", "eval", *map(str, arguments)]
    try:
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
    finally:
        sys.argv = old
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def test_json_has_the_contract_s_shape_and_the_hand_worked_figures(files, capsys, tmp_path):
    target = tmp_path / "out.json"
    code, _, err = run(
        capsys, "--gold", files["gold"], "--pred", f"close={files['close']}", "--pred", f"far={files['far']}",
        "--json", target, "--bootstrap", 50,
    )  # fmt: skip
    assert (code, err) == (0, "")
    data = json.loads(target.read_text())
    assert (data["protocol"], data["n"]) == ("macro", 6)
    close = data["systems"]["close"]
    # Edema: P tp 2, gold 2, predicted 3 -> 4/5; N 1; U tp 0 -> 0. Mean .6. The other two findings are right.
    assert close["per_finding"]["Edema"]["value"] == pytest.approx(0.6)
    assert close["per_finding"]["Edema"]["n"] == 4
    assert close["per_finding"]["Fracture"] == {"value": None, "low": None, "high": None, "n": 0}
    assert close["macro_f1"]["value"] == pytest.approx((0.6 + 1 + 1) / 3)
    assert set(close["macro_f1"]) == {"value", "low", "high"}
    assert close["macro_f1_supported"] == {"value": None, "low": None, "high": None, "cells": 0}
    assert set(close["per_certainty"]) == {"positive", "negative", "uncertain"}
    assert close["per_certainty"]["uncertain"]["value"] == 0.0
    assert close["per_length"] is None
    assert close["cells"]["Edema"]["positive"] == {
        "f1": pytest.approx(0.8), "precision": pytest.approx(2 / 3), "recall": 1.0, "support": 2,
    }  # fmt: skip
    errors = close["errors"]
    assert (errors["missed"], errors["hallucinated"], errors["wrong_certainty"], errors["format"]) == (0, 0, 1, 0)
    assert errors["per_report"] == pytest.approx(1 / 6)
    assert close["perfect_reports"] == pytest.approx(5 / 6)
    comparison = data["comparisons"][0]
    assert (comparison["a"], comparison["b"]) == ("close", "far")
    assert comparison["delta"] == pytest.approx(data["systems"]["far"]["macro_f1"]["value"] - (0.6 + 1 + 1) / 3)
    assert comparison["errors_delta"] == pytest.approx(3 / 6)
    for key in ("low", "high", "p", "detectable", "errors_low", "errors_high"):
        assert isinstance(comparison[key], float)


def test_tables_fit_eighty_columns_and_mark_without_colour(files, capsys):
    code, out, _ = run(
        capsys, "--gold", files["gold"], "--pred", f"close={files['close']}", "--pred", f"far={files['far']}",
        "--pred", f"twin={files['close']}",
        "--tables", "--bootstrap", 50, "--worst", 2, "--published",
    )  # fmt: skip
    assert code == 0
    assert max(len(line) for line in out.splitlines()) <= 80
    assert "\x1b" not in out
    for title in ("Overall", "F1 per finding", "F1 per certainty", "Finding by certainty", "Errors per report",
                  "Ablation", "Paired comparisons", "Worst reports", "Published rows, another test set"):  # fmt: skip
        assert title in out
    assert "n = 6 reports" in out
    assert "4†" in out
    assert "not resolved" in out


def test_a_gold_row_without_prediction_is_a_format_error_and_predictions_without_gold_are_counted(
    files, capsys, tmp_path
):
    some = write(tmp_path / "some.csv", labels([*GOLD[:5], (0, 0, 3), (0, 0, 3)]), [*IDS[:5], "t1", "t2"])
    target = tmp_path / "out.json"
    code, out, _ = run(capsys, "--gold", files["gold"], "--pred", f"some={some}", "--json", target, "--bootstrap", 0)
    assert code == 0
    result = json.loads(target.read_text())["systems"]["some"]
    assert result["errors"]["format"] == len(PAPER13)
    assert result["errors"]["missed"] == 0
    assert result["perfect_reports"] == pytest.approx(5 / 6)
    assert result["cells"]["Pneumothorax"]["negative"]["recall"] == pytest.approx(2 / 3)
    assert "1 gold row has no prediction" in out
    assert "2 predictions without gold ignored" in out


def run_sources(folder: Path, ids: dict[str, list[str]]) -> tuple[list[EvalInput], list[Source]]:
    """A run's bundle for each test source, with SFT right throughout."""
    gold, sources = labels(GOLD[:3]), []
    for name, names in ids.items():
        reports = folder / f"reports_{name}.csv"
        reports.write_text("study_id,report\n" + "".join(f"{i},made up {name}\n" for i in names))
        sources.append(Source(reports=str(reports), labels=str(folder / f"gold_{name}.csv")))
    bundles = [
        EvalInput(gold, {"SFT": gold}, PAPER13, ids=names, texts=[f"made up {name}"] * 3) for name, names in ids.items()
    ]
    return bundles, sources


def test_predictions_stand_beside_a_run_on_each_test_source_of_the_same_reports(tmp_path):
    """Four certainties and presence codes of one report file; the codes lack a report that the gold has."""
    reports, gold, codes = tmp_path / "reports.csv", tmp_path / "gold.csv", tmp_path / "codes.csv"
    lines = [f"{i},made up {i}\n" for i in IDS]
    write(gold, labels(GOLD[:3]), IDS[:3])
    codes.write_text("study_id,Edema\ns1,1\ns2,\n")
    recipe = load_recipe("tiny-cpu", ["data.findings=paper13"])
    recipe.data.test = [
        Source(reports=str(reports), labels=str(gold)),
        Source(reports=str(reports), labels=str(codes), presence=True),
    ]

    def found(path: Path) -> list[list[list[int]]]:
        bundles = []
        for source in recipe.data.test:
            e = load_source(source, recipe)
            ids = [report.study_id for report in e.reports]
            bundles.append(EvalInput(e.labels, {}, PAPER13, ids=ids, texts=e.texts, protocol=e.protocol))
        add_predictions(bundles, recipe.data.test, {"p": path})
        return [data.systems["p"].tolist() for data in bundles]

    reports.write_text("study_id,report\n" + "".join(lines))
    wanted = [labels(GOLD[:3]).tolist(), labels(GOLD[1:3]).tolist()]
    assert found(write(tmp_path / "p.csv", labels(GOLD[::-1]), IDS[::-1])) == wanted
    # Rows without ids are not told apart here: the third of three is s2 of the gold, and nothing of the codes.
    with pytest.raises(UserError, match=r"p\.csv has no id column, so its rows could be of any"):
        found(write(tmp_path / "p.csv", labels(GOLD[:3]), None))
    # But where the reports have none either, a row is of the report in that row.
    reports.write_text("report\n" + "".join(line.partition(",")[2] for line in lines))
    write(gold, labels(GOLD[:3]), None)
    codes.write_text("row,Edema\n1,1\n2,\n")
    assert found(write(tmp_path / "p.csv", labels(GOLD), None)) == wanted


def test_predictions_stand_beside_a_run_on_the_test_sources_whose_ids_they_have(tmp_path):
    bundles, sources = run_sources(tmp_path, {"a": ["a0", "a1", "a2"], "b": ["b0", "b1", "b2"]})
    both = write(tmp_path / "both.csv", labels([*GOLD[:3], *GOLD[:3]]), ["a0", "a1", "a2", "b0", "b1", "b2"])
    one = write(tmp_path / "one.csv", labels(GOLD[:3]), ["b0", "b1", "b2"])
    add_predictions(bundles, sources, {"both": both, "one": one})
    assert [list(data.systems) for data in bundles] == [["SFT", "both"], ["SFT", "both", "one"]]
    assert bundles[0].notes == [
        "both: 3 predictions without gold ignored.",
        "one: one.csv has none of these reports: left out.",
    ]
    stranger = write(tmp_path / "stranger.csv", labels(GOLD[:1]), ["c0"])
    with pytest.raises(UserError, match=r"stranger\.csv: none of its 1 ids"):
        add_predictions(bundles, sources, {"stranger": stranger})
    with pytest.raises(UserError, match=r"--id-column nix: no such column in .*reports_a\.csv, .*one\.csv"):
        add_predictions(bundles, sources, {"again": one}, "nix")


@pytest.mark.parametrize("problem", ["ids in common", "no id column"])
def test_rows_that_may_be_of_several_test_sources_are_refused_with_the_set_that_keeps_one(tmp_path, problem):
    ids = ["a0", "a1", "a2"]
    bundles, sources = run_sources(tmp_path, {"a": ids, "b": ids if problem == "ids in common" else ["b0", "b1", "b2"]})
    path = write(tmp_path / "p.csv", labels(GOLD[:3]), ids if problem == "ids in common" else None)
    with pytest.raises(UserError, match=problem) as error:
        add_predictions(bundles, sources, {"p": path})
    override = shlex.split(str(error.value).partition("--set ")[2])[0]
    assert load_recipe("qwen2.5-7b-24gb", [override]).data.test == sources[:1]


def test_one_test_source_without_ids_is_matched_by_the_row_numbers_of_its_reports(tmp_path):
    reports = tmp_path / "reports.csv"
    reports.write_text("report\n" + "made up\n" * 6)
    kept = [0, 2, 5]  # the run left the others out
    bundle = EvalInput(labels([GOLD[i] for i in kept]), {}, PAPER13, ids=[str(i) for i in kept])
    path = write(tmp_path / "p.csv", labels(GOLD), None)
    add_predictions([bundle], [Source(reports=str(reports))], {"p": path})
    assert (bundle.systems["p"] == bundle.gold).all()
    assert "matched by row number" in bundle.notes[0]
    write(path, labels(GOLD[:3]), None)
    with pytest.raises(UserError, match=r"reports\.csv has 6 rows and .*p\.csv 3"):
        add_predictions([bundle], [Source(reports=str(reports))], {"q": path})


def test_help_says_what_the_options_are(capsys):
    _, out, _ = run(capsys, "--help")
    text = " ".join(out.replace("│", " ").split())
    assert "Folder of the runs" in text
    assert "Write every figure as CSV, one in a row." in text


def test_rows_that_label_could_not_label_are_format_errors(files, capsys, tmp_path):
    (tmp_path / "close.csv.errors.csv").write_text("row,study_id,reason\n3,s3,the report is empty\n")
    target = tmp_path / "out.json"
    run(capsys, "--gold", files["gold"], "--pred", f"close={files['close']}", "--json", target, "--bootstrap", 0)
    assert json.loads(target.read_text())["systems"]["close"]["errors"]["format"] == len(PAPER13)


def test_the_errors_file_holds_by_id_where_the_labels_were_sorted(files, capsys, tmp_path):
    far = tmp_path / "far.csv"  # written in the reverse order of the gold
    (tmp_path / "far.csv.errors.csv").write_text("row,study_id,reason\n4,s4,the report is empty\n")
    target = tmp_path / "out.json"
    _, out, _ = run(capsys, "--gold", files["gold"], "--pred", f"far={far}", "--json", target, "--bootstrap", 0)
    errors = json.loads(target.read_text())["systems"]["far"]["errors"]
    # far misses Edema in s0, s1, s2 and s4: s4 is a format error, not a miss.
    assert (errors["missed"], errors["format"]) == (3, len(PAPER13))
    assert "names 1 gold row without an answer" in out
    (tmp_path / "far.csv.errors.csv").write_text("row,study_id,reason\n7,t7,the report is empty\n")
    _, out, _ = run(capsys, "--gold", files["gold"], "--pred", f"far={far}", "--bootstrap", 0)
    assert "errors.csv" not in out


def test_an_output_never_takes_the_place_of_an_input(files, capsys):
    before = files["gold"].read_bytes()
    pred = f"close={files['close']}"
    for option, path in (("--json", files["gold"]), ("--csv", files["close"].parent / "." / "close.csv")):
        code, _, err = run(capsys, "--gold", files["gold"], "--pred", pred, option, path, "--bootstrap", 0)
        said = f"litechex: {option} {path}: this command reads that file; give another name to write to\n"
        assert (code, err) == (1, said)
    assert files["gold"].read_bytes() == before


def test_two_outputs_are_two_files(files, capsys, tmp_path):
    same = ("--csv", tmp_path / "out", "--markdown", tmp_path / "." / "out")
    code, _, err = run(capsys, "--gold", files["gold"], "--pred", f"close={files['close']}", *same)
    assert (code, err) == (1, f"litechex: --markdown {tmp_path / 'out'}: --csv writes that file; give each its own\n")
    assert not (tmp_path / "out").exists()


def test_columns_that_are_not_read_are_named(files, capsys):
    text = files["gold"].read_text().splitlines()
    rows = [f"{text[0]},Scoliosis,Support Devices,p_Edema_positive", *(f"{line},1.0,," for line in text[1:])]
    files["gold"].write_text("\n".join(rows))
    _, out, _ = run(capsys, "--gold", files["gold"], "--pred", f"close={files['close']}", "--bootstrap", 0)
    assert "gold.csv has columns that are no finding of paper13: Scoliosis, Support Devices." in " ".join(out.split())


def test_long_names_give_way_before_figures_do(files, capsys):
    """In a log of 80 columns every figure stands whole, whatever the systems are called."""
    name = "chexbert_finetuned_on_ours_v2"
    arguments = ("--gold", files["gold"], "--pred", f"{name}={files['close']}", "--pred", f"b={files['far']}")
    _, out, _ = run(capsys, *arguments, "--bootstrap", 50, "--tables")
    assert max(map(len, out.splitlines())) <= 80
    overall = out[out.index("Overall") : out.index("Protocol macro")]
    assert re.search(r"\.\d{3}\*? \.\d{3}-1?\.\d{3}.* 83\.3%\* \d+-\d+", overall), overall
    assert "…" not in out


def test_no_finding_is_broken_within_a_word(files, capsys):
    gold = labels([(*row, 0) for row in GOLD], (*NAMES, "Enlarged Cardiomediastinum"))
    write(files["gold"], gold, IDS)
    arguments = ("--gold", files["gold"], "--pred", f"rules={files['close']}", "--pred", f"student={files['far']}")
    _, out, _ = run(capsys, *arguments, "--bootstrap", 0, "--tables")
    cells = out[out.index("Finding by certainty") :]
    assert re.search(r"^(Enlarged )?Cardiomediastinum\b", cells, re.MULTILINE), cells


def renamed(path: Path, id_column: str) -> Path:
    """The same file under another id column, none where it is empty."""
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    target = path.with_name(f"{id_column or 'no_id'}_{path.name}")
    with target.open("w", newline="") as file:
        csv.writer(file).writerows([[id_column, *rows[0][1:]], *rows[1:]] if id_column else [r[1:] for r in rows])
    return target


def test_ids_under_a_name_of_their_own_are_matched_by_it_and_else_by_row_number_with_a_note(files, capsys, tmp_path):
    gold, far = renamed(files["gold"], "Accession"), renamed(files["far"], "Accession")
    target = tmp_path / "out.json"
    arguments = ("--gold", gold, "--pred", f"far={far}", "--json", target, "--bootstrap", 0)
    _, out, _ = run(capsys, *arguments, "--id-column", "Accession")
    assert "row number" not in out
    assert json.loads(target.read_text())["systems"]["far"]["errors"]["per_report"] == pytest.approx(4 / 6)
    run(capsys, *arguments)
    note = (
        "Accession_far.csv and Accession_gold.csv are matched by row number: no id column (study_id, uid, id, "
        "path_to_image) in Accession_gold.csv and Accession_far.csv; --id-column names another."
    )
    assert json.loads(target.read_text())["notes"][0] == note


@pytest.mark.parametrize(("gold_ids", "far_ids"), [("study_id", ""), ("", "study_id"), ("", ""), ("", "row")])
def test_matching_by_position_is_said(files, capsys, gold_ids, far_ids):
    gold, far = renamed(files["gold"], gold_ids), renamed(files["far"], far_ids)
    if far_ids == "row":
        far.write_text(far.read_text().replace("\ns", "\n"))
    code, out, _ = run(capsys, "--gold", gold, "--pred", f"far={far}", "--bootstrap", 0)
    assert code == 0
    assert "matched by row number" in out


def test_ids_of_one_file_under_another_name_are_not_passed_over(files, capsys):
    """As many rows in another order: by row number each would be scored against another report."""
    far = renamed(files["far"], "Accession")
    arguments = ("--gold", files["gold"], "--pred", f"far={far}", "--bootstrap", 0)
    code, _, err = run(capsys, *arguments)
    said = 'the other file has ids, and here column "Accession" seems to hold them'
    assert (code, err.startswith(f"litechex: {far}: {said}")) == (1, True)
    code, out, _ = run(capsys, *arguments, "--id-column", "Accession")
    assert (code, "row number" in out) == (0, False)


def test_row_numbers_that_both_files_hold_are_ids(files, capsys):
    gold, far = renamed(files["gold"], "row"), renamed(files["far"], "row")
    far.write_text("\n".join(far.read_text().splitlines()[:-2]) + "\n")
    code, out, _ = run(capsys, "--gold", gold, "--pred", f"far={far}", "--bootstrap", 0)
    assert code == 0
    assert "2 gold rows have no prediction" in out
    assert "matched by row number" not in out


def test_a_gold_row_that_is_not_scored_at_all_is_no_report(files, capsys, tmp_path):
    lines = files["gold"].read_text().splitlines()
    lines[2:] = [",".join([line.split(",")[0], *["x"] * len(PAPER13)]) for line in lines[2:]]
    files["gold"].write_text("\n".join(lines) + "\n")
    target = tmp_path / "out.json"
    arguments = ("--gold", files["gold"], "--pred", f"far={files['far']}", "--json", target, "--bootstrap", 20)
    code, out, _ = run(capsys, *arguments)
    assert code == 0
    figures = json.loads(target.read_text())
    # The one report that is scored, s0, has its Edema missed.
    assert figures["n"] == 1
    far = figures["systems"]["far"]
    assert (far["errors"]["per_report"], far["errors"]["low"], far["perfect_reports"]) == (1.0, 1.0, 0.0)
    assert "5 gold rows have no cell to score: in no count." in " ".join(out.split())
    assert "n = 1 report, 13 findings" in out
    assert "2 cells are averaged, 0 of them have 10" in " ".join(out.split())


def test_no_resamples_and_one(files, capsys, tmp_path):
    target = tmp_path / "out.json"
    arguments = (
        "--gold", files["gold"], "--pred", f"close={files['close']}", "--pred", f"far={files['far']}",
        "--json", target, "--tables",
    )  # fmt: skip
    code, out, err = run(capsys, *arguments, "--bootstrap", 0)
    assert (code, err) == (0, "")
    assert "no intervals (--bootstrap 0)" in out
    comparison = json.loads(target.read_text())["comparisons"][0]
    assert comparison["errors_delta"] == pytest.approx(3 / 6)
    assert (comparison["low"], comparison["p"], comparison["p_holm"], comparison["errors_high"]) == (None,) * 4
    _, out, _ = run(capsys, *arguments, "--bootstrap", 1)
    assert "(1 resample, seed 0)" in " ".join(out.split())


def test_names_are_text_not_markup(files, capsys, tmp_path):
    target = tmp_path / "[b].json"
    code, out, err = run(
        capsys, "--gold", files["gold"], "--pred", f"[ours]={files['close']}", "--pred", f"[/b]x={files['far']}",
        "--tables", "--bootstrap", 20, "--json", target,
    )  # fmt: skip
    assert (code, err) == (0, "")
    table = out[out.index("F1 per finding") : out.index("F1 per certainty")]
    assert "[ours]" in table
    assert "[/b]x" in table
    assert "[b].json" in out


def test_unscored_cells_do_not_count(files, capsys, tmp_path):
    text = files["gold"].read_text().splitlines()
    header = text[0].split(",")
    row = text[3].split(",")
    row[header.index("Edema")] = "x"
    text[3] = ",".join(row)
    files["gold"].write_text("\n".join(text) + "\n")
    target = tmp_path / "out.json"
    run(capsys, "--gold", files["gold"], "--pred", f"close={files['close']}", "--json", target, "--bootstrap", 0)
    result = json.loads(target.read_text())["systems"]["close"]
    assert result["errors"]["per_report"] == 0
    assert result["macro_f1"]["value"] == 1.0


def test_only_findings_that_the_gold_has_are_scored(files, capsys, tmp_path):
    gold = write(tmp_path / "two.csv", labels(GOLD), IDS, ("Pneumothorax", "Edema"))
    target = tmp_path / "out.json"
    code, out, _ = run(capsys, "--gold", gold, "--pred", f"far={files['far']}", "--json", target, "--bootstrap", 0)
    assert code == 0
    assert list(json.loads(target.read_text())["systems"]["far"]["per_finding"]) == ["Edema", "Pneumothorax"]
    assert "not scored" in out


def peer_file(path: Path, text_column: str, names: tuple[str, ...]) -> Path:
    """A peer's own output: the report in the first column, 14 labels, no id."""
    values = labels(GOLD)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([text_column, *names])
        for i in range(len(GOLD)):
            by_name = {n: to_code(int(values[i, PAPER13.index(n)])) if n in PAPER13.names else "" for n in names}
            by_name["Airspace Opacity"] = ""
            writer.writerow([f"made-up report, number {i}", *(by_name[n] for n in names)])
    return path


@pytest.mark.parametrize(
    ("text_column", "names"),
    [
        ("Reports", ("No Finding", *(n for n in CHEXPERT14.names if n != "No Finding"))),
        ("Report Impression", CHEXPERT14.names),
        ("", CHEXPERT14.names),
        ("Report Impression", tuple("Airspace Opacity" if n == "Lung Opacity" else n for n in CHEXPERT14.names)),
    ],
)
def test_the_peers_own_output_is_read_as_it_is(files, capsys, tmp_path, text_column, names):
    peer = peer_file(tmp_path / "peer.csv", text_column, names)
    target = tmp_path / "out.json"
    code, _, err = run(capsys, "--gold", files["gold"], "--pred", f"peer={peer}", "--json", target, "--bootstrap", 0)
    assert (code, err) == (0, "")
    assert json.loads(target.read_text())["systems"]["peer"]["errors"]["per_report"] == 0


def test_presence_gold(capsys, tmp_path, files):
    gold = tmp_path / "presence.csv"
    gold.write_text("study_id,Edema,Pneumothorax\ns0,1,A\ns1,,\ns2,1,\ns4,,1\n")
    arguments = ("--gold", gold, "--pred", f"close={files['close']}")
    code, _, err = run(capsys, *arguments)
    assert code == 1
    assert "presence gold" in err
    target = tmp_path / "out.json"
    code, _, _ = run(capsys, *arguments, "--protocol", "presence", "--json", target, "--bootstrap", 20)
    assert code == 0
    result = json.loads(target.read_text())["systems"]["close"]
    # Edema: gold s0 s2; predicted positive s0 s1 s2: tp 2, 2*2/(2+3).
    assert result["per_finding"]["Edema"]["value"] == pytest.approx(0.8)
    assert result["per_finding"]["Pneumothorax"]["value"] == 1.0
    assert list(result["per_certainty"]) == ["positive"]
    assert result["kappa"] is None


def test_reports_give_length_bins_and_texts_only_when_asked(files, capsys, tmp_path):
    reports = tmp_path / "reports.csv"
    rows = [f"s{i},{'word ' * (6 - i)}secretword{i}" for i in range(6)]
    reports.write_text("study_id,report\n" + "\n".join(rows) + "\n")
    target = tmp_path / "out.json"
    arguments = (
        "--gold", files["gold"], "--pred", f"far={files['far']}", "--reports", reports, "--worst", 1, "--bootstrap", 20
    )  # fmt: skip
    code, out, _ = run(capsys, *arguments, "--tables", "--json", target)
    assert code == 0
    assert "secretword" not in out
    lengths = json.loads(target.read_text())["systems"]["far"]["per_length"]
    assert [lengths[b]["n"] for b in ("short", "medium", "long")] == [2, 2, 2]
    # Short are s4 and s5 (the last two): their Edema negative is missed.
    assert lengths["short"]["value"] == pytest.approx((0 + 1) / 2)
    _, out, _ = run(capsys, *arguments, "--show-text")
    assert "secretword0" in out


def test_markdown_latex_and_csv(files, capsys, tmp_path):
    md, tex, table = tmp_path / "t.md", tmp_path / "t.tex", tmp_path / "t.csv"
    code, _, _ = run(
        capsys, "--gold", files["gold"], "--pred", f"close_1={files['close']}", "--pred", f"far={files['far']}",
        "--markdown", md, "--latex", tex, "--csv", table, "--bootstrap", 50,
    )  # fmt: skip
    assert code == 0
    lines = md.read_text().splitlines()
    start = lines.index("### F1 per finding")
    block = [line for line in lines[start + 2 : start + 20] if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in block} == {5}
    assert "close\\_1" in block[0]
    assert any("**" in line for line in block)
    latex = tex.read_text()
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == latex.count(r"\bottomrule")
    assert r"close\_1" in latex
    assert r"\textbf{" in latex
    # A sign is in math mode; between two bounds stands an en dash.
    assert re.search(r"\[\.\d+--\.\d+\]", latex)
    assert re.search(r"\[\d+--\d+\]", latex)
    assert "$+.500$ & $+.038$ to $+.833$" in latex
    assert "[$-$" not in latex
    assert "-$-." not in latex
    assert "%" not in latex.replace(r"\%", "").replace("% needs", "").replace("% ", "")
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    headline = [r for r in rows if r["metric"] == "macro_f1" and r["system"] == "close_1"]
    assert float(headline[0]["value"]) == pytest.approx((0.6 + 1 + 1) / 3)
    undefined = [r for r in rows if r["finding"] == "Fracture" and r["metric"] == "f1" and r["system"] == "far"]
    assert {r["value"] for r in undefined} == {""}


def test_latex_leaves_a_name_that_looks_like_a_figure():
    table = Table("k", "t", ["c"], ["system"], ["x"], [[Cell("2024-05-01"), Cell("-.100")]])
    assert r"2024-05-01 & $-.100$ \\" in latex_table(table)


def test_patients_with_several_reports_are_told(files, capsys, tmp_path):
    reports = tmp_path / "r.csv"
    reports.write_text("study_id,subject_id,report\n" + "".join(f"s{i},p{i // 2},words\n" for i in range(6)))
    arguments = ("--gold", files["gold"], "--pred", f"close={files['close']}", "--reports", reports)
    _, out, _ = run(capsys, *arguments, "--bootstrap", 0)
    assert "6 reports of 3 patients: intervals take reports as independent, and are too narrow." in " ".join(
        out.split()
    )
    reports.write_text(reports.read_text().replace("subject_id", "other"))
    _, out, _ = run(capsys, *arguments, "--bootstrap", 0)
    assert "patients" not in out


def test_latex_of_an_interval_below_zero():
    table = Table("k", "Kappa", [], ["finding"], ["a"], [[Cell("Edema"), Cell("-.100", "-.200--.012")]])
    assert r"Edema & $-.100$ {\scriptsize [$-.200$--$-.012$]} \\" in latex_table(table)


def duplicated(path: Path) -> Path:
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[-1]]) + "\n")
    return path


def twice_reported(path: Path) -> Path:
    path.write_text("study_id,report\ns0,made up\ns0,made up again\n")
    return path


def with_probability(path: Path, value: str) -> Path:
    head, *rows = path.read_text().splitlines()
    path.write_text("\n".join([f"{head},p_Edema_positive", *(f"{row},{value}" for row in rows)]) + "\n")
    return path


MISTAKES = {
    "gold missing": (lambda f, d: ["--gold", d / "no.csv", "--pred", f"a={f['close']}"], "no.csv"),
    "prediction missing": (lambda f, d: ["--gold", f["gold"], "--pred", f"a={d / 'no.csv'}"], "no.csv"),
    "reports missing": (
        lambda f, d: ["--gold", f["gold"], "--pred", f"a={f['close']}", "--reports", d / "no.csv"],
        "no.csv",
    ),
    "duplicate in reports": (
        lambda f, d: ["--gold", f["gold"], "--pred", f"a={f['close']}", "--reports", twice_reported(d / "r.csv")],
        "r.csv",
    ),
    "duplicate in gold": (lambda f, d: ["--gold", duplicated(f["gold"]), "--pred", f"a={f['close']}"], "s5"),
    "duplicate in prediction": (lambda f, d: ["--gold", f["gold"], "--pred", f"a={duplicated(f['close'])}"], "s5"),
    "nothing in common": (
        lambda f, d: ["--gold", f["gold"], "--pred", f"a={write(d / 'o.csv', labels(GOLD), list('abcdef'))}"],
        "none of its 6 ids",
    ),
    "lengths differ without ids": (
        lambda f, d: ["--gold", f["gold"], "--pred", f"a={write(d / 'o.csv', labels(GOLD[:4]), None)}"],
        "matched by position",
    ),
    "lengths differ, no ids at all": (
        lambda f, d: ["--gold", renamed(f["gold"], ""), "--pred", f"a={write(d / 'o.csv', labels(GOLD[:4]), None)}"],
        "o.csv 4; name the id column with --id-column",
    ),
    "id column in no file": (
        lambda f, d: ["--gold", f["gold"], "--pred", f"a={f['close']}", "--id-column", "nix"],
        "close.csv",
    ),
    "unknown protocol": (lambda f, d: ["--gold", f["gold"], "--pred", f"a={f['close']}", "--protocol", "f2"], "f2"),
    "unknown findings": (lambda f, d: ["--gold", f["gold"], "--pred", f"a={f['close']}", "--findings", "x"], "x"),
    "prediction without rows": (
        lambda f, d: ["--gold", f["gold"], "--pred", f"a={write(d / 'o.csv', labels([]), [])}"],
        "o.csv: has no rows",
    ),
    "percent for probability": (
        lambda f, d: ["--gold", f["gold"], "--pred", f"a={with_probability(f['close'], '85.0')}"],
        "row 0 (the first is 0): a p_… cell is no probability from 0 to 1",
    ),
    "no prediction": (lambda f, d: ["--gold", f["gold"]], "--pred"),
    "name twice": (lambda f, d: ["--gold", f["gold"], "--pred", f"a={f['close']}", "--pred", f"a={f['far']}"], "twice"),
    "text without reports": (
        lambda f, d: ["--gold", f["gold"], "--pred", f"a={f['close']}", "--worst", 1, "--show-text"],
        "--reports",
    ),
    "prediction without gold": (lambda f, d: ["--pred", f"a={f['close']}"], "--gold"),
    "baseline unknown": (
        lambda f, d: ["--gold", f["gold"], "--pred", f"a={f['close']}", "--baseline", "b"],
        "--baseline b",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_wrong_input_is_exit_1_with_one_sentence(files, capsys, tmp_path, mistake):
    arguments, named = MISTAKES[mistake]
    code, out, err = run(capsys, *arguments(files, tmp_path))
    assert code == 1
    assert named in err
    assert err.startswith("litechex: ")
    assert err.count("\n") == 1
    assert "Traceback" not in out + err


def test_a_run_that_does_not_exist_is_exit_1_and_says_what_to_run(capsys, tmp_path):
    code, out, err = run(capsys, "tiny-cpu", "--output-dir", tmp_path, "--tables")
    assert code == 1
    assert "train-sft" in err
    assert "Traceback" not in out + err


@pytest.mark.parametrize("cell", ["2", "yes", "0.5"])
def test_a_label_outside_the_codes_names_file_row_and_column(files, capsys, cell):
    lines = files["close"].read_text().splitlines()
    row = lines[2].split(",")
    row[1 + PAPER13.names[::-1].index("Edema")] = cell
    lines[2] = ",".join(row)
    files["close"].write_text("\n".join(lines) + "\n")
    code, _, err = run(capsys, "--gold", files["gold"], "--pred", f"a={files['close']}")
    assert code == 1
    assert all(word in err for word in ("close.csv", "row 1", "Edema", cell))


def test_x_in_a_prediction_is_refused(files, capsys):
    files["close"].write_text(files["close"].read_text().replace("-1.0", "x").replace("1.0", "x", 1))
    code, _, err = run(capsys, "--gold", files["gold"], "--pred", f"a={files['close']}")
    assert code == 1
    assert "do not score" in err


def test_a_malformed_pred_is_a_usage_error(files, capsys):
    assert run(capsys, "--gold", files["gold"], "--pred", "close.csv")[0] == 2
    assert run(capsys, "--gold", files["gold"], "--no-such-option")[0] == 2


def test_a_gold_that_is_blank_throughout_gives_dashes_not_zeros(files, capsys, tmp_path):
    blank = write(tmp_path / "blank.csv", labels([(3, 3, 3)] * 6), IDS)
    target = tmp_path / "out.json"
    code, out, _ = run(capsys, "--gold", blank, "--pred", f"a={files['close']}", "--json", target, "--tables")
    assert code == 0
    result = json.loads(target.read_text())["systems"]["a"]
    assert result["macro_f1"]["value"] is None
    assert result["errors"]["hallucinated"] > 0
    assert "\u2013" in out
