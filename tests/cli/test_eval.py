"""``litechex eval`` as a user runs it: real files, exit codes, one sentence per mistake."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest

import lite_chex.cli.evaluate
import lite_chex.cli.label  # noqa: F401
from lite_chex.cli import main
from lite_chex.findings import CHEXPERT14, PAPER13, to_code

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


def test_rows_that_label_could_not_label_are_format_errors(files, capsys, tmp_path):
    (tmp_path / "close.csv.errors.csv").write_text("row,study_id,reason\n3,s3,the report is empty\n")
    target = tmp_path / "out.json"
    run(capsys, "--gold", files["gold"], "--pred", f"close={files['close']}", "--json", target, "--bootstrap", 0)
    assert json.loads(target.read_text())["systems"]["close"]["errors"]["format"] == len(PAPER13)


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
    assert "%" not in latex.replace(r"\%", "").replace("% needs", "").replace("% ", "")
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    headline = [r for r in rows if r["metric"] == "macro_f1" and r["system"] == "close_1"]
    assert float(headline[0]["value"]) == pytest.approx((0.6 + 1 + 1) / 3)
    undefined = [r for r in rows if r["finding"] == "Fracture" and r["metric"] == "f1" and r["system"] == "far"]
    assert {r["value"] for r in undefined} == {""}


def duplicated(path: Path) -> Path:
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[-1]]) + "\n")
    return path


def twice_reported(path: Path) -> Path:
    path.write_text("study_id,report\ns0,made up\ns0,made up again\n")
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
    "unknown protocol": (lambda f, d: ["--gold", f["gold"], "--pred", f"a={f['close']}", "--protocol", "f2"], "f2"),
    "unknown findings": (lambda f, d: ["--gold", f["gold"], "--pred", f"a={f['close']}", "--findings", "x"], "x"),
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
