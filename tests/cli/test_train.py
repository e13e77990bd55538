"""What a user gets wrong: one clear sentence, exit code 1, no traceback, nothing lost."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from lite_chex.recipe import Recipe, shipped

CLI = [sys.executable, "-m", "lite_chex"]


def run(*arguments: str, cwd: Path, file_limit: int | None = None) -> subprocess.CompletedProcess[str]:
    def limit() -> None:
        assert file_limit is not None
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))

    return subprocess.run(
        [*CLI, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=200,
        preexec_fn=limit if file_limit else None,
    )


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("litechex: ")]
    assert len(lines) == 1, done.stderr
    for word in words:
        assert word in lines[0]


def recipe_file(recipe: Recipe, folder: Path) -> str:
    path = folder / "recipe.yaml"
    path.write_text(recipe.to_yaml())
    return str(path)


def test_unknown_key(tmp_path: Path) -> None:
    refused(run("train-sft", "tiny-cpu", "--set", "sft.lr=1", cwd=tmp_path), "unknown key sft.lr")


def test_base_model_that_does_not_exist(tmp_path: Path) -> None:
    done = run("train-sft", "tiny-cpu", "--set", "model.model_name_or_path=./nowhere", cwd=tmp_path)
    refused(done, "model.model_name_or_path", "./nowhere")


def test_missing_report_file(tmp_path: Path) -> None:
    refused(run("train-sft", "tiny-cpu", "--set", "data.train.0.reports=no.csv", cwd=tmp_path), "no.csv")


def test_missing_column(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("id,words\n1,clear\n")
    done = run("train-sft", "tiny-cpu", "--set", "data.train.0.reports=r.csv", cwd=tmp_path)
    refused(done, "r.csv", "words")


def test_wrong_label_code(tmp_path: Path) -> None:
    reports = shipped("data_samples") / "reports_test.csv"
    first = reports.read_text().splitlines()[1].split(",")[0]
    (tmp_path / "gold.csv").write_text(f"study_id,Edema\n{first},7\n")
    (tmp_path / "pred.csv").write_text(f"study_id,Edema\n{first},1.0\n")
    done = run("eval", "--gold", "gold.csv", "--pred", "a=pred.csv", cwd=tmp_path)
    refused(done, "gold.csv", "Edema", "7")


def test_unreadable_file(tmp_path: Path) -> None:
    (tmp_path / "r.parquet").write_bytes(b"not a parquet file")
    refused(run("label", "--labeler", "rules", "--input", "r.parquet", "--output", "o.csv", cwd=tmp_path), "r.parquet")


def test_empty_report_is_a_row_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("study_id,report\na,No effusion.\nb,\n")
    done = run("label", "--labeler", "rules", "--input", "r.csv", "--output", "o.csv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = (tmp_path / "o.csv").read_text().splitlines()
    assert [r.split(",")[0] for r in rows] == ["study_id", "a", "b"]
    assert set(rows[2].split(",")[1:]) == {""}
    assert "b" in (tmp_path / "o.csv.errors.csv").read_text()


def test_run_without_sft(tiny_recipe: Recipe, tmp_path: Path) -> None:
    path = recipe_file(tiny_recipe, tmp_path)
    refused(run("train-ppo", path, cwd=tmp_path), "no finished sft stage", "litechex train-sft")
    refused(run("label", "--model", "runs/test", "--input", "r.csv", "--output", "o.csv", cwd=tmp_path), "runs/test")


def test_4bit_where_it_cannot_run(tiny_recipe: Recipe, tmp_path: Path) -> None:
    """A bitsandbytes without a usable backend: shadowed by an empty package of that name."""
    shadow = tmp_path / "shadow" / "bitsandbytes"
    shadow.mkdir(parents=True)
    (shadow / "__init__.py").write_text("raise ImportError('no kernel for this machine')\n")
    code = f"import sys; sys.path.insert(0, {str(shadow.parent)!r}); from lite_chex.cli import main; main()"
    path = recipe_file(tiny_recipe, tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", code, "train-sft", path], cwd=tmp_path, capture_output=True, text=True, timeout=200
    )
    refused(done, "load_in_4bit")


@pytest.mark.slow
def test_disk_full_while_training(tiny_recipe: Recipe, tmp_path: Path) -> None:
    """A file-size limit stands in for a full disk: the system refuses the write in the same way."""
    path = recipe_file(tiny_recipe, tmp_path)
    done = run("train-sft", path, cwd=tmp_path, file_limit=20_000)
    refused(done, "could not be written")
    again = run("train-sft", path, "--resume", cwd=tmp_path)
    assert again.returncode == 0, again.stderr


def test_disk_full_while_labelling(tmp_path: Path) -> None:
    reports = str(shipped("data_samples") / "reports_test.csv")
    done = run("label", "--labeler", "rules", "--input", reports, "--output", "o.csv", cwd=tmp_path, file_limit=4_000)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    again = run("label", "--labeler", "rules", "--input", reports, "--output", "o.csv", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    whole = run("label", "--labeler", "rules", "--input", reports, "--output", "p.csv", cwd=tmp_path)
    assert whole.returncode == 0
    assert (tmp_path / "o.csv").read_bytes() == (tmp_path / "p.csv").read_bytes()


def test_help_is_instant_and_importing_needs_no_torch() -> None:
    code = "import sys, lite_chex, lite_chex.cli; print(sorted({'torch', 'transformers', 'trl'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
    helped = subprocess.run([*CLI, "--help"], capture_output=True, text=True, timeout=60)
    for command in (
        "demo",
        "train-sft",
        "train-rm",
        "train-ppo",
        "train-dpo",
        "preferences",
        "label",
        "eval",
        "annotate",
    ):
        assert command in helped.stdout


def test_help_flows_with_the_terminal() -> None:
    found = subprocess.run(
        [*CLI, "label", "--help"], capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"}
    )
    assert "each with a reason in <output>.errors.csv. Codes: 1.0 positive" in found.stdout


def test_no_report_text_in_logs(tiny_recipe: Recipe, tmp_path: Path) -> None:
    secret = "Zebrafish-shaped opacity in the left lung."
    rows = "".join(f"s{i},p{i},{secret} Case {i}.\n" for i in range(30))
    (tmp_path / "r.csv").write_text("study_id,patient_id,report\n" + rows)
    path = recipe_file(tiny_recipe, tmp_path)
    done = run("train-sft", path, "--set", f"data.train.0.reports={tmp_path / 'r.csv'}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Zebrafish" not in done.stdout + done.stderr
    for written in (tmp_path / "runs").rglob("*"):
        if written.is_file():
            assert b"Zebrafish" not in written.read_bytes(), written
