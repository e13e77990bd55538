"""``litechex label`` and ``litechex distill`` as a user runs them: exit codes, files and what is printed."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[2]
START = "import lite_chex.cli.label, lite_chex.cli.distill; from lite_chex.cli.app import main; main()"


def litechex(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", START, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    path = tmp_path / "reports.csv"
    path.write_text(
        "uid,report\n7,Small left pleural effusion. No pneumothorax.\n3,\n5,Possible pneumonia at the right base.\n"
    )
    return path


def test_rules_label_a_file_and_explain_it(reports: Path, tmp_path: Path) -> None:
    output = tmp_path / "labels.csv"
    done = litechex("label", "--labeler", "rules", "--input", reports, "--output", output, "--explain")
    assert done.returncode == 0, done.stderr
    with output.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [r["uid"] for r in rows] == ["7", "3", "5"]
    assert (rows[0]["Pleural Effusion"], rows[0]["Pneumothorax"], rows[2]["Pneumonia"]) == ("1.0", "0.0", "-1.0")
    assert set(list(rows[1].values())[1:]) == {""}
    assert "pleural effusion" in done.stdout
    assert "Possible" in done.stdout
    assert "2 labelled, 1 with empty labels" in done.stdout
    again = litechex("label", "--labeler", "rules", "--input", reports, "--output", output, "--explain")
    assert again.returncode == 0
    assert "3 rows are done, complete already" in again.stdout


def test_ctrl_c_is_one_line_that_says_what_is_kept(tmp_path: Path) -> None:
    many, output = tmp_path / "many.csv", tmp_path / "labels.csv"
    many.write_text("uid,report\n" + "".join(f"{i},No pneumothorax. Case {i}.\n" for i in range(200_000)))
    command = [sys.executable, "-c", START, "label", "--labeler", "rules", "--input", many, "--output", output]
    process = subprocess.Popen(
        list(map(str, command)),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (output.exists() and output.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, log = process.communicate(timeout=30)
    assert process.returncode == 130
    rows = len(output.read_text().splitlines()) - 1
    assert log.splitlines() == [
        f"litechex: interrupted; {rows:,} of 200,000 rows are in {output}. Run the same command again to go on."
    ]


def test_ctrl_c_in_any_command_is_one_line() -> None:
    script = (
        "from lite_chex.cli.app import app, main\n@app.command('a')\ndef a(): pass\n"
        "@app.command('wait')\ndef wait(): raise KeyboardInterrupt\nmain()"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script, "wait"], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "litechex: interrupted\n")


def test_mistakes_are_one_sentence_and_exit_code_1(reports: Path, tmp_path: Path) -> None:
    output, parquet = tmp_path / "labels.csv", tmp_path / "parquet"
    parquet.mkdir()
    pq.write_table(pa.table({"uid": ["7"], "report": ["No edema."]}), parquet / "part.parquet")
    rules = ("label", "--labeler", "rules", "--output", output, "--input")
    cases = [
        (("label", "--input", reports, "--output", output), "give --model"),
        ((*rules, tmp_path / "none.csv"), "none.csv: no such file"),
        ((*rules, reports, "--text-column", "text"), 'no column "text"; its columns are uid, report'),
        ((*rules, reports, "--findings", "own"), '--findings: "own" is none of paper13, chexpert14'),
        ((*rules, reports, "--probabilities"), "--probabilities: the rules labeler gives no probabilities"),
        ((*rules, reports, "--review-below", "3"), "--review-below: 3.0"),
        (("label", "--labeler", "magic", "--input", reports, "--output", output), 'there is no labeler "magic"'),
        (("label", "--labeler", "chexbert", "--input", reports, "--output", output), "--model is missing"),
        (
            ("label", "--labeler", "student", "--model", tmp_path, "--input", reports, "--output", output),
            "student.json",
        ),
        ((*rules, reports, "--engine", "dask"), '"dask" is neither local nor ray'),
        (
            (*rules, parquet, "--engine", "ray", "--text-column", "x"),
            'part.parquet: no column "x"; its columns are uid',
        ),
        ((*rules, reports, "--model", tmp_path), "--model: the rules labeler does not use it"),
        ((*rules, reports, "--beams", "1"), "--beams: the rules labeler does not use it (it is for --labeler llm)"),
        ((*rules, reports, "--base-url", "http://x"), "--base-url: the rules labeler does not use it"),
        (
            ("label", "--model", tmp_path, "--tokenizer", "b", "--input", reports, "--output", output),
            "--tokenizer: the llm labeler does not use it",
        ),
        ((*rules, tmp_path), "is a folder"),
        (
            ("label", "--labeler", "rules", "--input", reports, "--output", reports / "out.csv"),
            "reports.csv: cannot make this folder for --output",
        ),
        (
            ("label", "--labeler", "rules", "--input", reports, "--output", "/proc/x.csv"),
            "/proc/x.csv: cannot write (no such file or directory); give --output a place that can be written",
        ),
    ]
    # One process for all: importing the package takes longer than what is tested.
    script = "; ".join(
        [
            "import sys, lite_chex.cli.label, lite_chex.cli.distill",
            "from lite_chex.cli.app import app, main",
            "cases = eval(sys.argv[1])",
        ]
    )
    script += (
        "\nfor case in cases:\n    sys.argv = ['litechex', *case]\n    try:\n        main()\n"
        "    except SystemExit as end:\n        print(end.code, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, repr([[str(a) for a in case] for case, _ in cases])],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stderr.splitlines()
    assert len(lines) == 2 * len(cases), done.stderr
    for (_, words), sentence, code in zip(cases, lines[::2], lines[1::2], strict=True):
        assert sentence.startswith("litechex: ")
        assert words in sentence
        assert code == "1"
    assert not output.exists(), "a refused run leaves no output behind"
