"""JSON, CSV, Markdown and LaTeX of an evaluation, ready to paste."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from lite_chex.data.files import atomic_path
from lite_chex.evaluate.results import Difference, Estimate, Evaluation, SystemResult
from lite_chex.evaluate.tables import BEST, TIED, WEAK, Cell, Table


def _interval(e: Estimate) -> dict[str, float | None]:
    return {"value": e.value, "low": e.low, "high": e.high}


def _with_n(estimates: dict[str, Estimate]) -> dict[str, object]:
    return {key: {**_interval(e), "n": e.n} for key, e in estimates.items()}


def _system(s: SystemResult) -> dict[str, object]:
    return {
        "macro_f1": _interval(s.macro_f1),
        "macro_f1_supported": {**_interval(s.macro_f1_supported), "cells": s.macro_f1_supported.n},
        "per_finding": _with_n(s.per_finding),
        "per_certainty": _with_n(s.per_certainty),
        "per_length": None if s.per_length is None else _with_n(s.per_length),
        "cells": {
            finding: {
                certainty: {"f1": c.f1, "precision": c.precision, "recall": c.recall, "support": c.support}
                for certainty, c in row.items()
            }
            for finding, row in s.cells.items()
        },
        "errors": {
            **s.errors,
            "per_report": s.errors_per_report.value,
            "low": s.errors_per_report.low,
            "high": s.errors_per_report.high,
        },
        "perfect_reports": s.perfect_reports.value,
        "perfect_reports_low": s.perfect_reports.low,
        "perfect_reports_high": s.perfect_reports.high,
        "kappa": None if s.kappa is None else _with_n(s.kappa),
        "rrg": None if s.rrg is None else _with_n(s.rrg),
    }


def difference_json(d: Difference) -> dict[str, object]:
    """A paired difference as plain data."""
    return {**asdict(d), "resolved": d.resolved}


def to_json(evaluation: Evaluation) -> dict[str, object]:
    """The evaluation as plain data; undefined figures are None.

    ``errors`` counts wrong cells by kind, its ``per_report`` is their mean per report. Each difference
    of ``comparisons`` is b minus a.
    """
    return {
        "protocol": evaluation.protocol.name,
        "n": evaluation.n,
        "findings": list(evaluation.findings.names),
        "bootstrap": evaluation.bootstrap,
        "seed": evaluation.seed,
        "resamples_with_an_empty_cell": evaluation.left_out,
        "systems": {name: _system(s) for name, s in evaluation.systems.items()},
        "difference": "b - a",
        "comparisons": [
            {
                "a": c.a,
                "b": c.b,
                **difference_json(c.f1),
                **{f"errors_{key}": value for key, value in difference_json(c.errors).items()},
            }
            for c in evaluation.comparisons
        ],
        "notes": evaluation.notes,
    }


def json_text(figures: dict[str, object]) -> str:
    """What :func:`to_json` gave, as text; NaN cannot get into it."""
    return json.dumps(figures, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


CSV_HEADER = ("system", "metric", "finding", "certainty", "value", "low", "high", "n")


def _csv_rows(evaluation: Evaluation) -> Iterator[Sequence[object]]:
    def row(s: SystemResult, metric: str, e: Estimate, finding: str = "", certainty: str = "") -> Sequence[object]:
        return (s.name, metric, finding, certainty, e.value, e.low, e.high, e.n)

    for s in evaluation.systems.values():
        yield row(s, "macro_f1", s.macro_f1)
        yield row(s, "macro_f1_supported", s.macro_f1_supported)
        yield row(s, "errors_per_report", s.errors_per_report)
        yield row(s, "perfect_reports", s.perfect_reports)
        for kind, count in s.errors.items():
            yield (s.name, f"errors_{kind}", "", "", count, None, None, evaluation.n)
        for certainty, e in s.per_certainty.items():
            yield row(s, "f1", e, certainty=certainty)
        for bin_name, e in (s.per_length or {}).items():
            yield row(s, f"macro_f1_{bin_name}", e)
        for key, e in (s.rrg or {}).items():
            yield row(s, f"rrg_{key}", e)
        for finding, e in s.per_finding.items():
            yield row(s, "f1", e, finding)
            if s.kappa is not None:
                yield row(s, "kappa", s.kappa[finding], finding)
            for certainty, cell in s.cells[finding].items():
                for metric, value in (("f1", cell.f1), ("precision", cell.precision), ("recall", cell.recall)):
                    yield (s.name, metric, finding, certainty, value, None, None, cell.support)
    for c in evaluation.comparisons:
        name = f"{c.b} - {c.a}"
        for figure, prefix, d in (("macro_f1", "", c.f1), ("errors_per_report", "errors_", c.errors)):
            yield (name, figure, "", "", d.delta, d.low, d.high, evaluation.n)
            for metric, value in (("p", d.p), ("p_holm", d.p_holm), ("detectable", d.detectable)):
                yield (name, f"{prefix}{metric}", "", "", value, None, None, evaluation.n)


def csv_text(evaluation: Evaluation) -> str:
    """Every figure as one row (long format); an undefined one is blank."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    writer.writerows(["" if cell is None else cell for cell in row] for row in _csv_rows(evaluation))
    return out.getvalue()


_MARKDOWN = re.compile(r"([\\`*_|<>])")


def _one_line(header: str) -> str:
    return header.replace("-\n", "").replace("/\n", "/").replace("\n", " ")


def _markdown_cell(cell: Cell) -> str:
    text = _MARKDOWN.sub(r"\\\1", cell.text)
    text = f"**{text}**" if cell.best else text
    return f"{text}{TIED if cell.tied else ''}{f' ({cell.interval})' if cell.interval else ''}"


def markdown_table(table: Table) -> str:
    """A GitHub table: best in bold, ``=`` for not significantly different, the caption under it."""
    headers = [_MARKDOWN.sub(r"\\\1", _one_line(h)) for h in (*table.lead, *table.columns)]
    aligns = [":--" if i < len(table.lead) and h != "n" else "--:" for i, h in enumerate(headers)]
    lines = [f"### {table.title}", "", f"| {' | '.join(headers)} |", f"| {' | '.join(aligns)} |"]
    lines += [f"| {' | '.join(_markdown_cell(cell) for cell in row)} |" for row in table.rows]
    caption = " ".join(table.caption).replace(f"{BEST} best", "bold: best")
    return "\n".join([*lines, "", _MARKDOWN.sub(r"\\\1", caption), ""])


_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    WEAK: r"\dag{}",
    "≥": r"$\geq$",
    "Δ": r"$\Delta$",
    "\u2212": "$-$",
    "\u2013": "--",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


def latex_escape(text: str) -> str:
    """Text as it must stand in LaTeX."""
    return "".join(_LATEX.get(c, c) for c in text)


def _latex_figure(text: str) -> str:
    """Text of a cell or interval: signs in math mode, an en dash between two bounds."""
    bounds = re.split(r"(?<=\d)-(?=-?[\d.])", text)
    return "--".join(re.sub(r"(?<!\w)([+-][\d.]+)", r"$\1$", latex_escape(bound)) for bound in bounds)


def _latex_cell(cell: Cell, lead: bool = False) -> str:
    """lead: a name or a count, never a figure with a sign."""
    text = latex_escape(cell.text) if lead else _latex_figure(cell.text)
    text = rf"\textbf{{{text}}}" if cell.best else text
    text += "$^{=}$" if cell.tied else ""
    text += rf" {{\scriptsize [{_latex_figure(cell.interval)}]}}" if cell.interval else ""
    return rf"\textcolor{{gray}}{{{text}}}" if cell.weak else text


def _latex_head(table: Table) -> list[str]:
    """The header: one row, or names over groups of columns."""
    lead = [latex_escape(h) for h in table.lead]
    if table.group == 1:
        stacked = [latex_escape(h).replace("-\n", "") for h in table.columns]
        columns = [rf"\shortstack{{{h.replace(chr(10), chr(92) * 2)}}}" if "\n" in h else h for h in stacked]
        return [" & ".join([*lead, *columns]) + r" \\"]
    names, parts = zip(*(latex_escape(h).split("\n") for h in table.columns), strict=True)
    groups = [rf"\multicolumn{{{table.group}}}{{c}}{{{name}}}" for name in names[:: table.group]]
    firsts = range(len(lead) + 1, len(lead) + len(names) + 1, table.group)
    rules = " ".join(rf"\cmidrule(lr){{{first}-{first + table.group - 1}}}" for first in firsts)
    return [" & ".join([*[""] * len(lead), *groups]) + r" \\", rules, " & ".join([*lead, *parts]) + r" \\"]


def latex_table(table: Table) -> str:
    r"""A booktabs table (``\usepackage{booktabs,xcolor}``): best in bold, small counts grey."""
    aligns = ["r" if h == "n" else "l" for h in table.lead]
    aligns += [{"better": "l", "which": r"p{8cm}"}.get(h, "r") for h in table.columns]
    caption = latex_escape(f"{table.title}. {' '.join(table.caption)}").replace(f"{BEST} best", "Bold: best")
    lines = [r"\begin{table}", r"\centering\small", rf"\caption{{{caption}}}", rf"\label{{tab:{table.key}}}"]
    lines += [rf"\begin{{tabular}}{{{''.join(aligns)}}}", r"\toprule", *_latex_head(table), r"\midrule"]
    named = len(table.lead)
    lines += [" & ".join(_latex_cell(c, i < named) for i, c in enumerate(row)) + r" \\" for row in table.rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def markdown_text(tables: Sequence[Table], notes: Sequence[str]) -> str:
    """All tables as Markdown, the notes behind them."""
    text = "\n".join(markdown_table(table) for table in tables)
    return text + ("\n" + "".join(f"- {note}\n" for note in notes) if notes else "")


def latex_text(tables: Sequence[Table], notes: Sequence[str]) -> str:
    """All tables as LaTeX; the notes are comments."""
    head = "% needs \\usepackage{booktabs,xcolor}\n" + "".join(f"% {note}\n" for note in notes)
    return head + "\n".join(latex_table(table) for table in tables)


def write_text(path: Path, make: Callable[[], str]) -> None:
    """Write a text file whole or not at all.

    Raises:
        UserError: if it cannot be written.
    """
    text = make()
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
