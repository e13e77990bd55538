"""The bulk runner: order, resume after kill -9 to the same bytes, refusals, error rows, full disk."""

from __future__ import annotations

import csv
import gzip
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from word_labeler import WordLabeler

from lite_chex.errors import UserError
from lite_chex.labelers.base import LabelBatch
from lite_chex.labelers.committed import CommittedCsv, RunState
from lite_chex.labelers.runner import RunSummary, label_file

SAMPLES = ("no edema .", "edema and fracture", "heart is normal in size", "fracture of a rib , no edema")


def write_reports(path: Path, n: int, *, id_column: str = "study_id", empty_every: int | None = None) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([id_column, "report"])
        for i in range(n):
            empty = empty_every is not None and i % empty_every == 5
            writer.writerow([f"s{i * 7 % n}", "" if empty else f"report {i}: {SAMPLES[i % 4]}"])
    return path


def rows_of(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def label(labeler: WordLabeler, input: Path, output: Path, **options: object) -> RunSummary:
    return label_file(labeler, input, output, console=Console(file=StringIO()), **options)  # type: ignore[arg-type]


def test_rows_come_in_the_inputs_order_under_its_id_column(tmp_path: Path) -> None:
    reports = write_reports(tmp_path / "r.csv", 11, id_column="uid")
    summary = label(WordLabeler(), reports, tmp_path / "out.csv", chunk_size=4)
    rows = rows_of(tmp_path / "out.csv")
    assert rows[0] == ["uid", "Edema", "Fracture", "No Finding"]
    assert [r[0] for r in rows[1:]] == [r[0] for r in rows_of(reports)[1:]]
    assert rows[1][1:] == ["0.0", "", ""]
    assert rows[2][1:] == ["1.0", "1.0", ""]
    assert rows[3][1:] == ["", "", ""]
    assert (summary.rows, summary.labelled, summary.errors, summary.errors_file) == (11, 11, 0, None)
    assert not (tmp_path / "out.csv.errors.csv").exists()


def test_text_without_a_word_is_no_normal_report(tmp_path: Path) -> None:
    reports = tmp_path / "r.csv"
    reports.write_text("id,report\na,.\nb,___\nc,nan\nd,NULL\ne,N/A\nf,no fracture\n")
    summary = label(WordLabeler(), reports, tmp_path / "out.csv")
    assert (summary.labelled, summary.errors) == (1, 5)
    reasons = [row[2] for row in rows_of(tmp_path / "out.csv.errors.csv")[1:]]
    assert reasons == ["the report has no word"] * 2 + ["the report is empty"] * 3


def test_empty_unreadable_and_failing_reports_are_rows_with_a_reason(tmp_path: Path) -> None:
    reports = tmp_path / "r.csv"
    reports.write_bytes(b"id,report\na,edema\nb,\nc,caf\xe9 edema\nd,explode\ne,no fracture\nf6,one,cell too many\n")
    summary = label(WordLabeler(), reports, tmp_path / "out.csv", probabilities=True)
    labels = rows_of(tmp_path / "out.csv")
    assert [r[0] for r in labels[1:]] == ["a", "b", "c", "d", "e", "f6"]
    assert labels[1][1] == "1.0"
    assert labels[5][2] == "0.0"
    for row in (labels[2], labels[3], labels[4], labels[6]):
        assert set(row[1:]) == {""}  # blank labels and blank probabilities: nothing was decided
    errors = rows_of(tmp_path / "out.csv.errors.csv")
    assert [e[:2] for e in errors] == [["row", "id"], ["1", "b"], ["2", "c"], ["3", "d"], ["5", "f6"]]
    assert errors[1][2] == "the report is empty"
    assert "ValueError" in errors[3][2]
    assert "explode" not in errors[3][2], "an error never holds report text"
    assert (summary.labelled, summary.errors) == (2, 4)


def test_a_labeler_that_fails_on_everything_ends_the_run(tmp_path: Path) -> None:
    reports = tmp_path / "r.csv"
    reports.write_text("id,report\na,explode\nb,explode twice\n")
    with pytest.raises(ValueError, match="fails on this report"):
        label(WordLabeler(), reports, tmp_path / "out.csv")


def test_a_long_report_is_labelled_on_its_sections_or_not_at_all(tmp_path: Path) -> None:
    reports = tmp_path / "r.jsonl"
    filler = "the patient came by bus and by train and by foot"
    texts = [
        f"HISTORY: {filler} {filler}\nFINDINGS: edema\nIMPRESSION: no fracture",
        f"edema {filler} {filler}",
        "no edema",
    ]
    reports.write_text("".join(json.dumps({"id": i, "report": t}) + "\n" for i, t in enumerate(texts)))
    summary = label(WordLabeler(max_words=12), reports, tmp_path / "out.csv")
    assert [r[1:3] for r in rows_of(tmp_path / "out.csv")[1:]] == [["1.0", "0.0"], ["", ""], ["0.0", ""]]
    assert rows_of(tmp_path / "out.csv.errors.csv")[1][2].startswith("too long for the model")
    assert (summary.on_sections, summary.errors) == (1, 1)


def test_probabilities_and_review(tmp_path: Path) -> None:
    reports = write_reports(tmp_path / "r.csv", 4)
    summary = label(WordLabeler(), reports, tmp_path / "out.csv", probabilities=True, review_below=0.8)
    header, *rows = rows_of(tmp_path / "out.csv")
    assert header[4:8] == ["p_Edema_positive", "p_Edema_negative", "p_Edema_uncertain", "p_Edema_absent"]
    # Lengths 20, 28, 33, 38 (longest 38): sure = 0.5 + 0.5 * length / 39.
    assert [float(r[5]) for r in rows[:1]] == [pytest.approx(0.5 + 0.5 * 20 / 39, abs=5e-5)]
    assert float(rows[1][4]) == pytest.approx(0.5 + 0.5 * 28 / 39, abs=5e-5)
    review = rows_of(tmp_path / "out.csv.review.csv")
    assert [r[:4] for r in review[1:]] == [["0", rows[0][0], "Edema", "negative"]]
    assert summary.review == 1


ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])]),
}
RUN = """
import sys
from pathlib import Path
from lite_chex.labelers.runner import label_file
from word_labeler import WordLabeler
import lite_chex.labelers.runner as runner
runner.COMMIT_SECONDS = 0.0
label_file(WordLabeler(delay=float(sys.argv[3])), Path(sys.argv[1]), Path(sys.argv[2]), chunk_size=16,
           probabilities=True, review_below=0.9)
"""


def run_in_process(reports: Path, output: Path, delay: float, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", RUN, str(reports), str(output), str(delay)]
    return subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload]


def kill_midway(reports: Path, output: Path, sign: int, rows: int) -> int:
    process = run_in_process(reports, output, 0.012)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        state = RunState.load(output)
        if state is not None and state.rows >= rows:
            break
        time.sleep(0.01)
    process.send_signal(sign)
    process.communicate(timeout=30)
    state = RunState.load(output)
    assert state is not None
    assert rows <= state.rows < 200, "the run was to be stopped midway"
    return state.rows


def test_a_run_killed_twice_writes_the_bytes_of_one_that_was_not(tmp_path: Path) -> None:
    reports = write_reports(tmp_path / "r.csv", 203, empty_every=25)
    whole, killed = tmp_path / "whole.csv", tmp_path / "killed.csv"
    first = kill_midway(reports, killed, signal.SIGKILL, 48)
    with killed.open("ab") as file:  # a torn last line, as a power cut leaves one
        file.write(b"s9,1.0,")
    second = kill_midway(reports, killed, signal.SIGINT, first + 16)
    last = run_in_process(reports, killed, 0.0)
    _, log = last.communicate(timeout=60)
    assert last.returncode == 0, log
    assert f"{second:,} rows are done" in log
    labelled = label(WordLabeler(), reports, whole, chunk_size=16, probabilities=True, review_below=0.9)
    assert labelled.review > 0
    assert labelled.errors == 8
    for suffix in ("", ".errors.csv", ".review.csv"):
        assert Path(f"{killed}{suffix}").read_bytes() == Path(f"{whole}{suffix}").read_bytes()


@dataclass
class StoppingLabeler(WordLabeler):
    """Ctrl-C, or the error ``why``, in the batch number ``at``."""

    at: int = 0
    why: BaseException | None = None
    batches: int = 0

    def label(self, reports: Sequence[str]) -> LabelBatch:
        self.batches += 1
        if self.batches == self.at:
            raise self.why or KeyboardInterrupt
        return super().label(reports)


class SalvagingLabeler(StoppingLabeler):
    """Has the answers of the first three reports when it is stopped."""

    def label_some(self, reports: Sequence[str]) -> tuple[LabelBatch, BaseException | None]:
        try:
            return self.label(reports), None
        except (KeyboardInterrupt, UserError) as error:
            return super().label(reports[:3]), error


def test_ctrl_c_keeps_every_finished_chunk_and_says_so(tmp_path: Path) -> None:
    reports, output = write_reports(tmp_path / "r.csv", 20), tmp_path / "out.csv"
    with pytest.raises(KeyboardInterrupt, match=r"^interrupted; no row of this run is kept$"):
        label(StoppingLabeler(at=1), reports, output, chunk_size=4)
    assert [p.name for p in tmp_path.iterdir()] == ["r.csv"]
    with pytest.raises(KeyboardInterrupt, match=r"; 8 of 20 rows are in .*out\.csv\. Run the same command again to"):
        label(StoppingLabeler(at=3), reports, output, chunk_size=4)
    assert len(rows_of(output)) == 1 + 8
    assert label(WordLabeler(), reports, output, chunk_size=4).resumed_from == 8
    whole = tmp_path / "whole.csv"
    label(WordLabeler(), reports, whole, chunk_size=4)
    assert output.read_bytes() == whole.read_bytes()
    with pytest.raises(KeyboardInterrupt, match=r"again, without --overwrite, to go on"):
        label(StoppingLabeler(at=3), reports, output, chunk_size=4, overwrite=True)


@pytest.mark.parametrize("why", [KeyboardInterrupt(), UserError("too many requests")])
def test_what_a_stopped_labeler_salvages_is_kept(tmp_path: Path, why: BaseException) -> None:
    reports, output, whole = (
        write_reports(tmp_path / "r.csv", 20, empty_every=8),
        tmp_path / "a.csv",
        tmp_path / "b.csv",
    )
    with pytest.raises(type(why)):
        label(SalvagingLabeler(at=2, why=why), reports, output, chunk_size=4)
    # Rows 4, 6 and 7 are answered, row 5 is empty.
    assert len(rows_of(output)) == 1 + 8
    with pytest.raises(type(why)):
        label(SalvagingLabeler(at=1, why=why), reports, output, chunk_size=4)
    assert len(rows_of(output)) == 1 + 11
    assert label(SalvagingLabeler(), reports, output, chunk_size=4).resumed_from == 11
    label(WordLabeler(), reports, whole, chunk_size=4)
    for suffix in ("", ".errors.csv"):
        assert Path(f"{output}{suffix}").read_bytes() == Path(f"{whole}{suffix}").read_bytes()


def test_a_stop_before_the_sections_of_a_long_report_keeps_the_rows_above_it(tmp_path: Path) -> None:
    reports, output = tmp_path / "r.jsonl", tmp_path / "out.csv"
    texts = ["edema", f"HISTORY: {'by bus ' * 20}\nFINDINGS: edema\nIMPRESSION: no fracture", "no edema", "fracture"]
    reports.write_text("".join(json.dumps({"id": i, "report": t}) + "\n" for i, t in enumerate(texts)))
    with pytest.raises(KeyboardInterrupt, match="1 of 4 rows"):
        label(SalvagingLabeler(at=1, max_words=12), reports, output)
    summary = label(SalvagingLabeler(max_words=12), reports, output)
    assert (summary.resumed_from, summary.on_sections, summary.errors) == (1, 1, 0)
    assert [r[1:3] for r in rows_of(output)[1:]] == [["1.0", ""], ["1.0", "0.0"], ["0.0", ""], ["", "1.0"]]


def test_overwrite_replaces_nothing_before_new_rows_are_there(tmp_path: Path) -> None:
    reports, output = tmp_path / "r.csv", tmp_path / "out" / "labels.csv"
    reports.write_text("id,report\na,edema\nb,\nc,no fracture\n")
    label(WordLabeler(), reports, output, probabilities=True, review_below=1.0)
    before = {path.name: path.read_bytes() for path in output.parent.iterdir()}
    assert len(before) == 4
    cut = tmp_path / "cut.csv.gz"
    cut.write_bytes(gzip.compress(reports.read_bytes())[:-9])
    with pytest.raises(UserError, match='no column "nix"'):
        label(WordLabeler(), reports, output, text_column="nix", overwrite=True)
    with pytest.raises(UserError, match="no complete gzip file"):
        label(WordLabeler(), cut, output, overwrite=True)
    with pytest.raises(KeyboardInterrupt, match="no row of this run is kept"):
        label(StoppingLabeler(at=1), reports, output, overwrite=True)
    assert {path.name: path.read_bytes() for path in output.parent.iterdir()} == before
    assert label(WordLabeler(), reports, output, probabilities=True, review_below=1.0).resumed_from == 3
    label(WordLabeler(version="2"), reports, output, overwrite=True)
    assert sorted(p.name for p in output.parent.iterdir()) == [
        "labels.csv",
        "labels.csv.errors.csv",
        "labels.csv.state.json",
    ]


def test_rows_that_are_numbered_are_announced(tmp_path: Path) -> None:
    for id_column, said in (("case", True), ("uid", False)):
        reports, log = write_reports(tmp_path / f"{id_column}.csv", 3, id_column=id_column), StringIO()
        label_file(WordLabeler(), reports, tmp_path / f"{id_column}.out.csv", console=Console(file=log, width=200))
        sentence = "case.csv: no id column, so rows are numbered from 0; --id-column names one"
        assert log.getvalue().splitlines() == ([sentence] if said else [])


def test_running_a_finished_job_again_does_nothing(tmp_path: Path) -> None:
    reports = write_reports(tmp_path / "r.csv", 5)
    label(WordLabeler(), reports, tmp_path / "out.csv")
    before = (tmp_path / "out.csv").read_bytes()
    again = label(WordLabeler(delay=1e6), reports, tmp_path / "out.csv")
    assert (again.rows, again.resumed_from) == (5, 5)
    assert (tmp_path / "out.csv").read_bytes() == before


def test_a_file_without_reports_is_labelled_too(tmp_path: Path) -> None:
    reports = write_reports(tmp_path / "r.csv", 0)
    for _ in range(2):
        assert label(WordLabeler(), reports, tmp_path / "out.csv").rows == 0
        assert rows_of(tmp_path / "out.csv") == [["study_id", "Edema", "Fracture", "No Finding"]]


def test_a_changed_input_model_or_option_is_refused_until_overwrite(tmp_path: Path) -> None:
    reports, output = write_reports(tmp_path / "r.csv", 5), tmp_path / "out.csv"
    label(WordLabeler(), reports, output)
    before = output.read_bytes()
    with pytest.raises(UserError, match=r"the model or labeler changed.*--overwrite"):
        label(WordLabeler(version="2"), reports, output)
    with pytest.raises(UserError, match="the option --probabilities changed"):
        label(WordLabeler(), reports, output, probabilities=True)
    stat = reports.stat()
    reports.write_text(reports.read_text().replace("report 3", "rapport3"))  # same size
    os.utime(reports, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # same time
    with pytest.raises(UserError, match="the input file changed"):
        label(WordLabeler(), reports, output)
    assert output.read_bytes() == before
    assert label(WordLabeler(version="2"), reports, output, overwrite=True).resumed_from == 0


def test_files_that_are_not_ours_are_not_touched(tmp_path: Path) -> None:
    reports, output = write_reports(tmp_path / "r.csv", 5), tmp_path / "out.csv"
    output.write_text("precious\n")
    with pytest.raises(UserError, match=r"no state file.*--overwrite"):
        label(WordLabeler(), reports, output)
    with pytest.raises(UserError, match="a file of its own"):
        label(WordLabeler(), reports, reports, overwrite=True)
    with pytest.raises(UserError, match=r"ends in \.csv"):
        label(WordLabeler(), reports, tmp_path / "out.parquet")
    assert output.read_text() == "precious\n"
    label(WordLabeler(), reports, output, overwrite=True)
    with output.open("a") as file:
        file.write("edited,,,\n")
    with pytest.raises(UserError, match="changed by something else"):
        label(WordLabeler(), reports, output)


def test_a_second_run_on_the_same_output_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    reports, output = write_reports(tmp_path / "r.csv", 5), tmp_path / "out.csv"
    held = CommittedCsv(output)
    held.open()
    with pytest.raises(UserError, match="another litechex run"):
        label(WordLabeler(), reports, output)
    held.close()
    assert label(WordLabeler(), reports, output).rows == 5


def test_a_full_disk_ends_in_one_sentence_and_loses_nothing(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    reports = write_reports(tmp_path / "r.csv", 203)
    whole, full = tmp_path / "whole.csv", tmp_path / "full.csv"
    label(WordLabeler(), reports, whole, chunk_size=16, probabilities=True, review_below=0.9)
    limit = whole.stat().st_size // 2  # writing beyond it fails as it does on a full disk, with another errno

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    process = run_in_process(reports, full, 0.0, preexec_fn=limited)
    _, log = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "full.csv: cannot write (file too large)" in log.splitlines()[-1]
    state = RunState.load(full)
    assert state is not None
    assert 0 < state.rows < 203
    assert (
        label(WordLabeler(), reports, full, chunk_size=16, probabilities=True, review_below=0.9).resumed_from
        == state.rows
    )
    assert full.read_bytes() == whole.read_bytes()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory from /proc")
def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    # Not resource.getrusage: its peak survives exec, so it would be pytest's own.
    script = textwrap.dedent("""
        import re, sys
        from pathlib import Path
        import lite_chex.labelers.runner as runner
        from word_labeler import WordLabeler
        runner.COMMIT_SECONDS = 0.1  # between commits rows wait in memory
        runner.label_file(WordLabeler(), Path(sys.argv[1]), Path(sys.argv[2]))
        print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
    """)
    peaks = []
    for n in (500, 30_000):
        reports = write_reports(tmp_path / f"{n}.csv", n)
        command = [sys.executable, "-c", script, str(reports), str(tmp_path / f"{n}.out.csv")]
        done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout.split()[-1]))
    # Held in memory, 30,000 reports would take over 10 MB, and so would their rows.
    assert peaks[1] - peaks[0] < 4_000, f"peak kB {peaks}"


def test_progress_in_a_log_is_plain_lines_without_report_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lite_chex.labelers.progress.LOG_SECONDS", 0.0)
    reports, log = write_reports(tmp_path / "r.csv", 40), StringIO()
    label_file(
        WordLabeler(delay=0.001), reports, tmp_path / "out.csv", chunk_size=10, console=Console(file=log, width=80)
    )
    lines = log.getvalue().splitlines()
    assert lines[0].startswith("label: 10 of 40 (25.0%), ")
    assert lines[0].endswith(" left")
    assert "reports/s" in lines[0]
    assert "edema" not in log.getvalue()
