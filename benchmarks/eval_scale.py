"""How long 1,000 bootstrap resamples take on a data set of MIMIC-CXR's size, against a scikit-learn loop.

    python benchmarks/eval_scale.py --json eval_scale.json

Both score the same random labels (227,835 reports, 13 findings, 3 systems). The loop draws a resample,
asks scikit-learn's ``f1_score`` for the three certainties of each finding and system, and averages; it
is timed over a few resamples and scaled up, which the table says. The two point estimates must agree
to 1e-9, or the script fails.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np
from machine import machine
from rich.console import Console
from rich.table import Table
from sklearn.metrics import f1_score

from lite_chex.evaluate import evaluate
from lite_chex.findings import PAPER13, LabelArray

RARITY = (0.12, 0.12, 0.03, 0.73)


def random_systems(n: int, systems: int, seed: int) -> tuple[LabelArray, dict[str, LabelArray]]:
    """Gold labels and systems that are wrong in 5% of the cells or more."""
    rng = np.random.default_rng(seed)
    gold = rng.choice(4, size=(n, len(PAPER13)), p=RARITY).astype(np.int8)
    gold[:, -1] = np.where(gold[:, -1] == 0, 0, 3)
    made = {}
    for s in range(systems):
        pred = gold.copy()
        wrong = rng.random(gold.shape) < 0.05 * (s + 1)
        pred[wrong] = rng.choice(4, size=int(wrong.sum()), p=RARITY)
        pred[:, -1] = np.where(pred[:, -1] == 0, 0, 3)
        made[f"system {s + 1}"] = pred
    return gold, made


def loop_macro_f1(gold: LabelArray, pred: LabelArray) -> float:
    """Macro F1 as a script would compute it: one scikit-learn call per finding."""
    per_finding = []
    for f in range(gold.shape[1]):
        present = [k for k in range(3) if (gold[:, f] == k).any()]
        if present:
            values = f1_score(gold[:, f], pred[:, f], labels=present, average=None, zero_division=0)
            per_finding.append(float(np.mean(values)))
    return float(np.mean(per_finding))


def time_loop(gold: LabelArray, systems: dict[str, LabelArray], resamples: int, seed: int) -> float:
    """Seconds for one resample of the loop, averaged over a few."""
    rng = np.random.default_rng(seed)
    started = time.perf_counter()
    for _ in range(resamples):
        rows = rng.integers(0, len(gold), len(gold))
        for pred in systems.values():
            loop_macro_f1(gold[rows], pred[rows])
    return (time.perf_counter() - started) / resamples


def main() -> None:
    parser = argparse.ArgumentParser(description="Bootstrap of the evaluator against a scikit-learn loop.")
    parser.add_argument("--reports", type=int, default=227_835)
    parser.add_argument("--systems", type=int, default=3)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--loop-resamples", type=int, default=3, help="resamples of the loop that are timed")
    parser.add_argument("--repeats", type=int, default=3, help="runs of the evaluator; the median is given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()

    gold, systems = random_systems(options.reports, options.systems, options.seed)
    lengths = np.random.default_rng(options.seed).integers(5, 300, options.reports)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds = []
    for _ in range(options.repeats):
        started = time.perf_counter()
        evaluation = evaluate(gold, systems, PAPER13, lengths=lengths, bootstrap=options.resamples, seed=options.seed)
        seconds.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    for name, pred in systems.items():
        ours, theirs = evaluation.systems[name].macro_f1.value, loop_macro_f1(gold, pred)
        if ours is None or abs(ours - theirs) > 1e-9:
            raise SystemExit(f"{name}: {ours} here, {theirs} in the loop: they must agree to 1e-9")
    per_resample = time_loop(gold, systems, options.loop_resamples, options.seed)
    median, loop = float(np.median(seconds)), per_resample * options.resamples

    table = Table(title=f"{options.reports:,} reports x 13 findings x {options.systems} systems")
    for header in ("", "resamples", "seconds", "ratio"):
        table.add_column(header, justify="right" if header else "left")
    timed = f"{options.loop_resamples} timed, scaled"
    table.add_row("scikit-learn loop (macro F1 alone)", timed, f"{loop:,.0f}", "1")
    table.add_row(
        "lite_chex.evaluate (every table)", f"{options.resamples:,}", f"{median:.1f}", f"{loop / median:,.0f}"
    )
    console = Console()
    console.print(table)
    figures = {
        "reports": options.reports,
        "systems": options.systems,
        "resamples": options.resamples,
        "seconds": seconds,
        "seconds_median": median,
        "loop_seconds_per_resample": per_resample,
        "loop_resamples_timed": options.loop_resamples,
        "ratio": loop / median,
        "memory_mb_before": before,
        "memory_mb_peak": peak,
        "machine": machine("numpy", "scikit-learn"),
    }
    console.print(f"Memory: {before:.0f} MB before, {peak:.0f} MB at most.", highlight=False)
    console.print(f"Machine: {json.dumps(figures['machine'])}", highlight=False, soft_wrap=True)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
