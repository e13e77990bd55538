"""Peak memory of ``litechex label`` on a short and on a long file: it must not grow with the number of reports.

    python benchmarks/label_memory.py --json label_memory.json      # 1,000 and 100,000 synthetic reports

Without --model the demo's tiny base with a fresh adapter labels them, so that memory of the runner is not drowned by
the model's. Each size is a process of its own; what is measured is its peak resident memory.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from machine import machine
from rich.console import Console
from rich.table import Table


@dataclass
class Labelled:
    """One run of the command: reports, wall seconds, peak MiB."""

    reports: int
    seconds: float
    peak_mb: float


def fresh_adapter(folder: Path) -> Path:
    """An adapter on the tiny base that changes nothing, as a stage's folder."""
    from lite_chex.model.adapters import new_adapter, save_adapter
    from lite_chex.model.backbone import load_base
    from lite_chex.recipe import load_recipe

    recipe = load_recipe("tiny-cpu")
    folder.mkdir(parents=True)
    backbone = load_base(recipe.model)
    new_adapter(backbone, recipe.model)
    save_adapter(backbone.model, folder)
    (folder / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    return folder


def write_reports(path: Path, count: int) -> None:
    """``count`` rows of 1,000 synthetic texts in turn: long files must not differ in what they hold."""
    from lite_chex.data.synthetic import generate

    texts = [report.text for report in generate(min(count, 1000), seed=5)]
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["study_id", "report"])
        rows.writerows([f"s{i}", texts[i % len(texts)]] for i in range(count))


def label(model: Path, reports: int, work: Path) -> Labelled:
    """Run the command on a new file; its peak memory comes from the kernel's account of the ended process."""
    source, output = work / f"{reports}.csv", work / f"{reports}_labels.csv"
    write_reports(source, reports)
    command = [sys.executable, "-m", "lite_chex", "label", "--model", str(model), "--input", str(source)]
    started = time.perf_counter()
    with (work / "log.txt").open("w", encoding="utf-8") as log:
        process = subprocess.Popen([*command, "--output", str(output)], stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"litechex label ended with {process.returncode}: {(work / 'log.txt').read_text()[-300:]}")
    return Labelled(reports, time.perf_counter() - started, usage.ru_maxrss / 1024)


def table_of(rows: Sequence[Labelled]) -> Table:
    table = Table(title="litechex label: peak memory")
    for header in ("reports", "s", "reports/s", "peak MB", "x first"):
        table.add_column(header, justify="right")
    for row in rows:
        ratio = row.peak_mb / rows[0].peak_mb
        table.add_row(f"{row.reports:,}", f"{row.seconds:.0f}", f"{row.reports / row.seconds:.1f}",
                      f"{row.peak_mb:,.0f}", f"{ratio:.3f}")  # fmt: skip
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reports", type=int, nargs="+", default=[1000, 100_000])
    parser.add_argument("--model", type=Path, help="a run or adapter folder")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        model = options.model or fresh_adapter(work / "adapter")
        rows = [label(model, count, work) for count in options.reports]
    where = machine("torch", "transformers", "pyarrow")
    console = Console()
    console.print(table_of(rows))
    console.print(f"Machine: {json.dumps(where)}", highlight=False, markup=False, soft_wrap=True)
    if options.json:
        figures = {"model": str(options.model or "tiny base"), "rows": [asdict(r) for r in rows], "machine": where}
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
