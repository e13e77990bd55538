"""The tables of an evaluation, once, as plain data: rich, Markdown, LaTeX, HTML and CSV all show these."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from lite_chex.evaluate.counts import ERROR_KINDS
from lite_chex.evaluate.lengths import LENGTH_BINS
from lite_chex.evaluate.protocols import MIN_SUPPORT
from lite_chex.evaluate.results import FEWEST_DIFFERING, Difference, Estimate, Evaluation, SystemResult
from lite_chex.wording import plural

MINUS = "\u2212"
BEST, TIED, WEAK = "*", "=", "†"
UNDEFINED = "\u2013"
ALPHA = 0.05
LEGEND_MARKS = f"{BEST} best; {TIED} not significantly different from the best (not resolved)"
LEGEND_BEST = f"{BEST} best"
LEGEND_WEAK = f"{WEAK} fewer than {MIN_SUPPORT} gold labels: decides nothing"


@dataclass(frozen=True)
class Cell:
    """One cell: its text without marks, the interval that stands behind it, and what the marks are."""

    text: str
    interval: str = ""
    best: bool = False
    tied: bool = False
    weak: bool = False


@dataclass(frozen=True)
class Table:
    """lead: headers of the columns that name a row; columns: the rest, in groups of ``group`` that stay
    together where a narrow page needs the table in parts. key names the table in exports.
    """

    key: str
    title: str
    caption: list[str]
    lead: list[str]
    columns: list[str]
    rows: list[list[Cell]] = field(default_factory=list)
    group: int = 1
    splittable: bool = True


def number(value: float | None, digits: int = 3) -> str:
    """``.882``, ``-.012``, ``1.000``; a dash where undefined."""
    if value is None:
        return UNDEFINED
    text = f"{value:.{digits}f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def signed(value: float | None, digits: int = 3) -> str:
    """A difference, always with its sign."""
    text = number(value, digits)
    return text if value is None or text.startswith("-") else f"+{text}"


def span(low: float | None, high: float | None) -> str:
    """The interval of a difference: ``-.063 to +.011``."""
    return UNDEFINED if low is None or high is None else f"{signed(low)} to {signed(high)}"


def percent(value: float | None) -> str:
    """A share as ``78.5%``."""
    return UNDEFINED if value is None else f"{100 * value:.1f}%"


def estimate_cell(e: Estimate, weak: bool = False, show_best: bool = True, share: bool = False) -> Cell:
    """A value with its interval: ``.882`` and ``.853-.910``."""
    text, interval = percent(e.value) if share else number(e.value), ""
    if e.low is not None and e.high is not None:
        low, high = (f"{100 * e.low:.0f}", f"{100 * e.high:.0f}") if share else (number(e.low), number(e.high))
        interval = f"{low}-{high}"
    return Cell(text, interval, show_best and e.best, show_best and e.tied, weak)


def marked(cell: Cell) -> str:
    """The text as it stands in a plain log: value, mark, interval."""
    mark = BEST if cell.best else TIED if cell.tied else ""
    return f"{cell.text}{mark} {cell.interval}" if cell.interval else f"{cell.text}{mark}"


def _many(evaluation: Evaluation) -> bool:
    return len(evaluation.systems) > 1


def basis(evaluation: Evaluation) -> str:
    """What every caption starts with: protocol, n, interval."""
    interval = (
        f"95% bootstrap intervals over reports ({plural(evaluation.bootstrap, 'resample')}, seed {evaluation.seed})"
        if evaluation.bootstrap
        else "no intervals (--bootstrap 0)"
    )
    size = f"n = {plural(evaluation.n, 'report')}, {plural(len(evaluation.findings), 'finding')}"
    return f"Protocol {evaluation.protocol.name}, {size}; {interval}."


def _caption(evaluation: Evaluation, *sentences: str, weak: bool = False) -> list[str]:
    lines = [basis(evaluation), *sentences]
    legend = []
    if _many(evaluation):
        legend = [LEGEND_MARKS if evaluation.bootstrap else LEGEND_BEST]
    legend += [LEGEND_WEAK] if weak else []
    return [*lines, "; ".join(legend) + "."] if legend else lines


def overall_table(evaluation: Evaluation) -> Table:
    """One row per system: macro F1, over supported cells, errors per report, perfect reports."""
    many = _many(evaluation)
    rows = [
        [
            Cell(s.name),
            estimate_cell(s.macro_f1, show_best=many),
            estimate_cell(s.macro_f1_supported, show_best=many),
            estimate_cell(s.errors_per_report, show_best=many),
            estimate_cell(s.perfect_reports, show_best=many, share=True),
        ]
        for s in evaluation.systems.values()
    ]
    left_out = (
        f" In {evaluation.left_out:,} of {plural(evaluation.bootstrap, 'resample')} an averaged cell had no gold "
        "and was left out, for all systems alike."
        if evaluation.left_out
        else ""
    )
    caption = _caption(
        evaluation,
        f"Macro F1: {evaluation.protocol.sentence}; "
        f"{plural(evaluation.averaged_cells, 'cell is', 'cells are')} averaged, "
        f"{plural(evaluation.supported_cells, 'of them has', 'of them have')} {MIN_SUPPORT} gold labels or more."
        f"{left_out}",
    )
    columns = ["macro F1", f"cells with n≥{MIN_SUPPORT}", "errors/report", "perfect reports"]
    return Table("overall", "Overall", caption, ["system"], columns, rows, splittable=False)


def _by_row(
    evaluation: Evaluation,
    key: str,
    title: str,
    label: str,
    rows: Iterable[tuple[str, list[Estimate]]],
    *sentences: str,
    weak_below: int = MIN_SUPPORT,
) -> Table:
    body = []
    many = _many(evaluation)
    for name, estimates in rows:
        n = estimates[0].n
        weak = n < weak_below
        lead = [Cell(name, weak=weak), Cell(f"{n:,}{WEAK if weak else ''}", weak=weak)]
        body.append(lead + [estimate_cell(e, weak, many) for e in estimates])
    any_weak = any(row[0].weak for row in body)
    caption = _caption(evaluation, *sentences, weak=any_weak)
    return Table(key, title, caption, [label, "n"], list(evaluation.systems), body)


def finding_table(evaluation: Evaluation) -> Table:
    """F1 per finding, systems side by side; the mean of a column is the headline."""
    systems = list(evaluation.systems.values())
    rows = ((f, [s.per_finding[f] for s in systems]) for f in evaluation.findings.names)
    table = _by_row(
        evaluation,
        "per_finding",
        "F1 per finding",
        "finding",
        rows,
        "n: gold labels. The column's mean is the macro F1.",
    )
    mean = [Cell("Mean (macro F1)"), Cell(f"{systems[0].macro_f1.n:,}")]
    table.rows.append(mean + [estimate_cell(s.macro_f1, show_best=_many(evaluation)) for s in systems])
    return table


def certainty_table(evaluation: Evaluation) -> Table:
    """F1 per certainty (the cells of the protocol): the mean over the findings whose gold has it."""
    systems = list(evaluation.systems.values())
    rows = ((c, [s.per_certainty[c] for s in systems]) for c in evaluation.protocol.cells)
    sentence = "n: gold labels. Mean over the findings whose gold has the certainty."
    return _by_row(evaluation, "per_certainty", "F1 per certainty", "certainty", rows, sentence)


def length_table(evaluation: Evaluation) -> Table | None:
    """Macro F1 of short, medium and long reports; None where lengths are not known."""
    systems = list(evaluation.systems.values())
    if any(s.per_length is None for s in systems):
        return None
    rows = ((b, [s.per_length[b] for s in systems if s.per_length is not None]) for b in LENGTH_BINS)
    sentence = "n: reports, in thirds by token count; a third averages the cells that its own gold has."
    return _by_row(evaluation, "per_length", "Macro F1 per report length", "reports", rows, sentence, weak_below=0)


def cell_table(evaluation: Evaluation) -> Table:
    """Precision, recall and F1 of each finding at each certainty."""
    systems = list(evaluation.systems.values())
    body, any_weak = [], False
    for finding in evaluation.findings.names:
        first = True
        for certainty in evaluation.protocol.cells:
            scored = [s.cells[finding][certainty] for s in systems]
            if not scored[0].support and not any(c.precision is not None for c in scored):
                continue
            weak = scored[0].support < MIN_SUPPORT
            any_weak |= weak
            row = [
                Cell(finding if first else ""),
                Cell(certainty, weak=weak),
                Cell(f"{scored[0].support:,}{WEAK if weak else ''}", weak=weak),
            ]
            best = max((c.f1 for c in scored if c.f1 is not None), default=None)
            for c in scored:
                row += [Cell(number(c.precision), weak=weak), Cell(number(c.recall), weak=weak)]
                row.append(Cell(number(c.f1), best=len(systems) > 1 and c.f1 is not None and c.f1 == best, weak=weak))
            body.append(row)
            first = False
    sentence = "P precision, R recall, n gold labels; a dash is undefined (nothing predicted, or no gold)."
    caption = [basis(evaluation), sentence]
    legend = [f"{BEST} best F1 of the row, not tested cell by cell"] if len(systems) > 1 else []
    legend += [LEGEND_WEAK] if any_weak else []
    if legend:
        caption.append("; ".join(legend) + ".")
    columns = [f"{s.name}\n{what}" for s in systems for what in ("P", "R", "F1")]
    lead = ["finding", "certainty", "n"]
    return Table("cells", "Finding by certainty", caption, lead, columns, body, group=3)


def error_table(evaluation: Evaluation) -> Table:
    """Errors per report by kind, and perfect reports."""
    many = _many(evaluation)
    rows = [
        [
            Cell(s.name),
            *(Cell(number(s.errors[kind] / evaluation.n)) for kind in ERROR_KINDS),
            estimate_cell(s.errors_per_report, show_best=many),
            estimate_cell(s.perfect_reports, show_best=many, share=True),
        ]
        for s in evaluation.systems.values()
    ]
    sentence = (
        "Wrong cells per report. Missed: gold mentions it, the answer is absent; hallucinated: the other way round; "
        "wrong certainty: both mention it; format: no readable answer, all its cells."
    )
    columns = ["missed", "halluci-\nnated", "wrong\ncertainty", "format", "all", "perfect reports"]
    caption = _caption(evaluation, sentence)
    return Table("errors", "Errors per report", caption, ["system"], columns, rows, splittable=False)


def verdict(d: Difference, a: str, b: str, *, lower_is_better: bool = False) -> Cell:
    """Which of the two is better, in brackets where p is above .05 after Holm; or that it is not resolved."""
    if not d.resolved:
        return Cell("not resolved")
    better = b if ((d.delta or 0) > 0) != lower_is_better else a
    return Cell(better if d.p_holm is not None and d.p_holm <= ALPHA else f"({better})")


def difference_cells(d: Difference) -> list[Cell]:
    """Difference, interval, p, Holm: what every table of differences shows."""
    return [Cell(signed(d.delta)), Cell(span(d.low, d.high)), Cell(number(d.p)), Cell(number(d.p_holm))]


DIFFERENCE_COLUMNS = ["\u0394", "95% interval", "p", "Holm"]
RESOLVED = (
    f"Not resolved: the interval holds zero, or fewer than {FEWEST_DIFFERING} reports differ; in brackets: p above .05 "
    "after Holm."
)


def comparison_tables(evaluation: Evaluation) -> list[Table]:
    """Every pair of systems, paired on the same resamples: macro F1, then errors per report."""
    if not evaluation.comparisons or not evaluation.bootstrap:
        return []
    scores, errors = [], []
    for c in evaluation.comparisons:
        pair = Cell(f"{c.b} {MINUS} {c.a}")
        scores.append([pair, *difference_cells(c.f1), Cell(number(c.f1.detectable)), verdict(c.f1, c.a, c.b)])
        errors.append([pair, *difference_cells(c.errors), verdict(c.errors, c.a, c.b, lower_is_better=True)])
    smallest = 2 / (evaluation.bootstrap + 1)
    sentence = (
        f"p two-sided (never below {number(smallest)} with {plural(evaluation.bootstrap, 'resample')}), Holm over the "
        f"{len(scores)} comparison{'s' if len(scores) > 1 else ''}. MDE: minimum detectable effect, the smallest true "
        f"difference that this test set shows with 80% power, (1.96 + 0.84) x the bootstrap standard error. {RESOLVED}"
    )
    lead = ["difference"]
    return [
        Table(
            "comparisons",
            "Paired comparisons: macro F1",
            [basis(evaluation), sentence],
            lead,
            [*DIFFERENCE_COLUMNS, "MDE", "better"],
            scores,
            splittable=False,
        ),
        Table(
            "comparisons_errors",
            "Paired comparisons: errors per report (lower is better)",
            [basis(evaluation), f"Far less noisy than macro F1, which hangs on rare cells. {RESOLVED}"],
            lead,
            [*DIFFERENCE_COLUMNS, "better"],
            errors,
            splittable=False,
        ),
    ]


def ablation_table(evaluation: Evaluation, baseline: str | None = None) -> Table | None:
    """Every system against one (default: the first), as an ablation is read. None with one system."""
    if not _many(evaluation) or not evaluation.bootstrap:
        return None
    base = baseline if baseline in evaluation.systems else next(iter(evaluation.systems))
    rows = []
    for s in evaluation.systems.values():
        row = [Cell(s.name), Cell(number(s.macro_f1.value))]
        pair = next((c for c in evaluation.comparisons if {c.a, c.b} == {base, s.name}), None)
        if pair is None:
            rows.append([*row, Cell("baseline"), Cell(number(s.errors_per_report.value)), Cell("baseline")])
            continue
        sign = 1.0 if pair.a == base else -1.0
        rows.append(
            [
                *row,
                _difference(pair.f1, sign),
                Cell(number(s.errors_per_report.value)),
                _difference(pair.errors, sign),
            ]
        )
    caption = [basis(evaluation), f"Differences from {base}; {TIED} not resolved, before any correction."]
    columns = ["macro F1", f"Δ to {base}", "errors/\nreport", f"Δ to {base}"]
    return Table("ablation", "Ablation", caption, ["system"], columns, rows, splittable=False)


def _difference(d: Difference, sign: float) -> Cell:
    if d.delta is None or d.low is None or d.high is None:
        return Cell(UNDEFINED)
    bounds = sorted((sign * d.low + 0.0, sign * d.high + 0.0))
    return Cell(signed(sign * d.delta + 0.0), span(*bounds), tied=not d.resolved)


def kappa_table(evaluation: Evaluation) -> Table | None:
    """Cohen's kappa over the four certainties; None under presence."""
    systems: list[SystemResult] = list(evaluation.systems.values())
    if any(s.kappa is None for s in systems):
        return None
    rows = ((f, [s.kappa[f] for s in systems if s.kappa is not None]) for f in evaluation.findings.names)
    sentence = (
        "Cohen's kappa over positive, negative, uncertain, absent; n: scored reports; a dash: one class on both sides."
    )
    return _by_row(evaluation, "kappa", "Cohen's kappa per finding", "finding", rows, sentence)


_RRG_NAMES = {
    "micro_all": "micro, all",
    "macro_all": "macro, all",
    "micro_five": "micro, five",
    "macro_five": "macro, five",
}


def rrg_table(evaluation: Evaluation) -> Table | None:
    """The CheXbert F1 of report-generation papers; None under presence."""
    systems = list(evaluation.systems.values())
    if any(s.rrg is None for s in systems):
        return None
    keys = systems[0].rrg or {}
    rows = ((_RRG_NAMES[k], [s.rrg[k] for s in systems if s.rrg is not None]) for k in keys)
    sentence = (
        f"Positive or uncertain against the rest, over all {len(evaluation.findings)} findings and over the five; n: "
        "reports. As in the original, a finding that neither side has counts 0 in macro."
    )
    return _by_row(evaluation, "rrg", "F1 as in report generation", "average", rows, sentence)


def all_tables(evaluation: Evaluation, baseline: str | None = None) -> list[Table]:
    """Every table of the evaluation, in the order in which they are read."""
    optional = [length_table(evaluation), error_table(evaluation), ablation_table(evaluation, baseline)]
    tables: list[Table | None] = [
        overall_table(evaluation),
        finding_table(evaluation),
        certainty_table(evaluation),
        cell_table(evaluation),
        *optional,
        *comparison_tables(evaluation),
    ]
    if evaluation.protocol.weighted:
        tables += [kappa_table(evaluation), rrg_table(evaluation)]
    return [t for t in tables if t is not None]
