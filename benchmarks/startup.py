"""How long a command takes to start: everything heavy is imported where it is needed, and not before.

    python benchmarks/startup.py --json startup.json

Each command runs in a process of its own, all of them in turn, and the median is given. The floor is an
interpreter that does nothing; ``import torch`` is what a command would cost if it imported what it may need.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from machine import machine
from rich.console import Console
from rich.table import Table

FLOOR = "python -c pass"
COMMANDS: dict[str, list[str]] = {
    FLOOR: ["-c", "pass"],
    "import lite_chex": ["-c", "import lite_chex"],
    "litechex --help": ["-m", "lite_chex", "--help"],
    "litechex label --help": ["-m", "lite_chex", "label", "--help"],
    "import torch": ["-c", "import torch"],
}


def measure(runs: int) -> dict[str, list[float]]:
    """Wall seconds of every command, ``runs`` times, after one run that fills the file cache."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for run in range(runs + 1):
        for name, arguments in COMMANDS.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
            if run:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def table_of(seconds: dict[str, list[float]]) -> Table:
    floor = statistics.median(seconds[FLOOR])
    table = Table(title=f"Wall time of {len(seconds[FLOOR])} runs each")
    for header in ("command", "median s", "fastest s", "slowest s", "above floor s"):
        table.add_column(header, justify="left" if header == "command" else "right")
    for name, found in seconds.items():
        median = statistics.median(found)
        figures = (median, min(found), max(found), median - floor)
        table.add_row(name, *(f"{figure:.3f}" for figure in figures))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10, help="processes per command")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    if options.runs < 1:
        parser.error("--runs: at least 1")
    seconds = measure(options.runs)
    where = machine("lite-chex", "typer", "rich", "torch")
    console = Console()
    console.print(table_of(seconds))
    console.print(f"Machine: {json.dumps(where)}", highlight=False, soft_wrap=True)
    if options.json:
        medians = {name: statistics.median(found) for name, found in seconds.items()}
        figures = {"runs": options.runs, "seconds": seconds, "seconds_median": medians, "machine": where}
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
