"""``litechex label --engine ray``: a folder of Parquet files on Ray Data, on one machine or a cluster.

Every input file becomes one output CSV (and its side files), made by the same runner as on one machine,
in a folder of the attempt's own, and moved to its place when it is complete, the state file last. So a
worker that is killed leaves nothing under a final name; Ray gives its file to another worker, and a run
that is started again skips the files that are complete: every report is labelled exactly once in what
is kept. On a cluster both folders must lie on storage that all machines see under the same path.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from lite_chex.data.readers import choose_columns, count_rows
from lite_chex.data.tables import Table
from lite_chex.errors import UserError
from lite_chex.labelers.base import Labeler
from lite_chex.labelers.committed import RunState
from lite_chex.labelers.progress import RunProgress
from lite_chex.labelers.runner import RunSummary

_PART = ".part-"


class RunFile(Protocol):
    """:func:`lite_chex.labelers.runner.label_file` with its other options filled in."""

    def __call__(
        self,
        labeler: Labeler,
        input: Path,
        output: Path,
        *,
        text_column: str | None = None,
        id_column: str | None = None,
        console: Console,
    ) -> RunSummary: ...


@dataclass(frozen=True)
class FolderSummary:
    """files: in all; skipped: complete from an earlier run. rows / errors: over all files. seconds: of this call."""

    output: Path
    files: int
    skipped: int
    rows: int
    errors: int
    seconds: float


def label_folder(
    make: Callable[[], Labeler],
    run: RunFile,
    input: Path,
    output: Path,
    *,
    text_column: str | None = None,
    id_column: str | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> FolderSummary:
    """Label every Parquet file of the folder ``input`` into the folder ``output``.

    Args:
        make: builds the labeler; called once in each worker. run: labels one file.
        text_column, id_column: where the reports and their ids stand, as in ``label_file``.
        workers: how many; None takes a GPU each where the cluster has GPUs, else a core each.
        overwrite: label files again that are complete.

    Raises:
        UserError: if ``input`` holds no Parquet file, one of them lacks a column, or Ray is missing: then nothing was
            changed. If a file was refused (changed since it was labelled, …); the other files are finished first.
    """
    console = console or Console(stderr=True)
    sources = sorted(p.resolve() for p in input.glob("*.parquet")) if input.is_dir() else []
    if not sources:
        raise UserError(f"{input}: no *.parquet in it; with --engine ray --input is a folder of Parquet files")
    for source in sources:
        choose_columns(Table(source), text_column, id_column)
    run = partial(run, text_column=text_column, id_column=id_column)
    ray = _ray()
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{output}: cannot make this folder for --output") from error
    _clear(output)
    rows = {str(source): count_rows(source) for source in sources}
    if overwrite:
        for source in sources:
            RunState.path_for(_target(source, output)).unlink(missing_ok=True)
    began = time.monotonic()
    done: list[dict[str, Any]] = []
    with RunProgress(console, sum(rows.values())) as progress:
        for result in _stream(ray, make, run, sources, output, workers):
            done.append(result)
            progress.advance(rows[result["path"]])
    _clear(output)
    problems = [r["problem"] for r in done if r["problem"]]
    if problems:
        raise UserError(problems[0])
    return FolderSummary(
        output,
        len(done),
        sum(r["skipped"] for r in done),
        sum(r["rows"] for r in done),
        sum(r["errors"] for r in done),
        time.monotonic() - began,
    )


def _clear(output: Path) -> None:
    """Remove what killed workers left behind."""
    for left in output.glob(_PART + "*"):
        shutil.rmtree(left, ignore_errors=True)


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read at import: nothing is sent anywhere
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UserError('--engine ray needs a package more: pip install "lite-chex[ray]"') from error
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False  # RunProgress counts reports
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    return ray


def _stream(
    ray: Any, make: Callable[[], Labeler], run: RunFile, sources: Sequence[Path], output: Path, workers: int | None
) -> Any:
    """One result per file, as they are finished. A file whose worker died is given to another."""
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0))
    size = workers or min(len(sources), gpus or int(resources.get("CPU", 1)))
    files = ray.data.from_items([{"path": str(s)} for s in sources], override_num_blocks=len(sources))
    return files.map(
        _FileWorker,
        fn_constructor_args=(make, run, str(output.resolve())),
        compute=ray.data.ActorPoolStrategy(size=size),
        num_cpus=1,
        num_gpus=1 if gpus else 0,
    ).iter_rows()


def _target(source: Path, output: Path) -> Path:
    return output / f"{source.stem}.csv"


class _FileWorker:
    """A Ray worker: one labeler, many files."""

    def __init__(self, make: Callable[[], Labeler], run: RunFile, output: str) -> None:
        self.make, self.run, self.output = make, run, Path(output)
        self.labeler: Labeler | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        source = Path(row["path"])
        try:
            # Built here, not above: a UserError of a constructor would make Ray start workers for ever.
            self.labeler = self.labeler or self.make()
            summary = label_once(self.labeler, self.run, source, _target(source, self.output))
        except UserError as error:
            return {**row, "rows": 0, "errors": 0, "skipped": False, "problem": str(error)}
        skipped = summary.resumed_from == summary.rows > 0
        return {**row, "rows": summary.rows, "errors": summary.errors, "skipped": skipped, "problem": ""}


def label_once(labeler: Labeler, run: RunFile, source: Path, target: Path) -> RunSummary:
    """Label one file unless it is complete; nothing appears under its final names before all of it is there.

    Raises:
        UserError: if it is complete, but of another input, labeler or options.
    """
    quiet = Console(file=StringIO())
    if RunState.path_for(target).exists():
        return run(labeler, source, target, console=quiet)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=_PART) as folder:
        part = Path(folder) / target.name
        summary = run(labeler, source, part, console=quiet)
        state = RunState.path_for(part)
        for file in sorted(Path(folder).iterdir(), key=lambda f: f == state):  # the state comes last
            os.replace(file, target.parent / file.name)
    return summary
