"""The reader study as tables and as JSON."""

from __future__ import annotations

from lite_chex.evaluate.counts import ERROR_KINDS
from lite_chex.evaluate.export import difference_json
from lite_chex.evaluate.reader_study import MOST, ReaderFigures, ReaderStudy
from lite_chex.evaluate.results import Estimate
from lite_chex.evaluate.tables import (
    DIFFERENCE_COLUMNS,
    MINUS,
    RESOLVED,
    Cell,
    Table,
    difference_cells,
    estimate_cell,
    number,
    verdict,
)
from lite_chex.wording import plural


def reader_tables(study: ReaderStudy) -> list[Table]:
    """Pooled and per reader, then the differences between systems and the readers' agreement where there are any."""
    readers = len({reader for _, reader in study.single})
    reports = plural(study.reports, "report")
    interval = (
        f"95% bootstrap intervals over {reports} ({plural(study.bootstrap, 'resample')}, seed {study.seed})"
        if study.bootstrap
        else f"{reports}, no intervals (--bootstrap 0)"
    )
    basis = (
        f"Reader study: {plural(study.readings, 'reading')} by {plural(readers, 'reader')}; n: readings; {interval}."
    )
    tables = [_pooled(study, basis), _single(study, basis)]
    if study.comparisons and study.bootstrap:
        tables.append(_differences(study, basis))
    if study.agreement:
        tables.append(_agreement(study))
    return tables


def _estimates(figures: ReaderFigures) -> list[Cell]:
    return [estimate_cell(figures.errors_per_report), estimate_cell(figures.perfect_reports, share=True)]


def _pooled(study: ReaderStudy, basis: str) -> Table:
    rows = []
    for system, figures in study.pooled.items():
        kinds = [Cell(number(figures.kinds[kind])) for kind in ERROR_KINDS]
        rows.append([Cell(system), Cell(f"{figures.errors_per_report.n:,}"), *_estimates(figures), *kinds])
    caption = [basis, "A reading is perfect where its reader counted no error. Last four: mean errors by kind."]
    columns = ["errors/report", "perfect reports", "missed", "halluci-\nnated", "wrong\ncert.", "format"]
    title = "Reader study, pooled (Table 2 of the paper)"
    return Table("readers", title, caption, ["system", "n"], columns, rows, splittable=False)


def _single(study: ReaderStudy, basis: str) -> Table:
    rows = [
        [Cell(system), Cell(reader), Cell(f"{figures.errors_per_report.n:,}"), *_estimates(figures)]
        for (system, reader), figures in study.single.items()
    ]
    lead, columns = ["system", "reader", "n"], ["errors/report", "perfect reports"]
    return Table("readers_single", "Reader study, per reader", [basis], lead, columns, rows, splittable=False)


def _differences(study: ReaderStudy, basis: str) -> Table:
    rows = [
        [
            Cell(f"{c.b} {MINUS} {c.a}"),
            Cell(f"{c.n:,}"),
            *difference_cells(c.errors),
            verdict(c.errors, c.a, c.b, lower_is_better=True) if c.n else Cell("no report in common"),
        ]
        for c in study.comparisons
    ]
    sentence = (
        "Difference in errors per report, over the reports of which the same reader read both (n: such readings)."
    )
    columns = [*DIFFERENCE_COLUMNS, "better"]
    title = "Reader study, differences"
    caption = [basis, f"{sentence} {RESOLVED}"]
    return Table("readers_differences", title, caption, ["difference", "n"], columns, rows, splittable=False)


def _agreement(study: ReaderStudy) -> Table:
    rows = []
    for a in study.agreement:
        group = "all readers" if a.kind == "Fleiss" else " and ".join(a.readers)
        rows.append([Cell(group), Cell(f"{a.n:,}"), Cell(a.kind), Cell(number(a.perfect)), Cell(number(a.errors))])
    sentence = (
        "Kappa between readers over the outputs that they all read (n): perfect or not, and the number of errors "
        f"(0, 1, 2, {MOST} or more). A dash: only one category was used, or no output was shared."
    )
    columns, lead = ["perfect\nor not", "number\nof errors"], ["readers", "n", "kappa"]
    return Table("readers_agreement", "Agreement of readers", [sentence], lead, columns, rows)


def _interval(e: Estimate) -> dict[str, float | int | None]:
    return {"value": e.value, "low": e.low, "high": e.high, "n": e.n}


def _figures_json(figures: ReaderFigures) -> dict[str, object]:
    return {
        "errors_per_report": _interval(figures.errors_per_report),
        "perfect_reports": _interval(figures.perfect_reports),
        "errors": figures.kinds,
    }


def reader_study_json(study: ReaderStudy) -> dict[str, object]:
    """The study as plain data; undefined figures are None, differences are b minus a."""
    return {
        "readings": study.readings,
        "reports": study.reports,
        "systems": {
            system: {
                **_figures_json(figures),
                "readers": {r: _figures_json(f) for (s, r), f in study.single.items() if s == system},
            }
            for system, figures in study.pooled.items()
        },
        "differences": [{"a": c.a, "b": c.b, "n": c.n, **difference_json(c.errors)} for c in study.comparisons],
        "agreement": [
            {"readers": list(a.readers), "kappa": a.kind, "n": a.n, "perfect": a.perfect, "errors": a.errors}
            for a in study.agreement
        ],
    }
