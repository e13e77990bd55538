"""Tables of what a store holds: who judged how much, how far they agree, which version is preferred."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from lite_chex.annotate.agreement import agreements, disagreements, finding_kappas
from lite_chex.annotate.export import win_rates
from lite_chex.annotate.store import SKIP, TASKS, Judgement, Store
from lite_chex.findings import FINDING_SETS, PAPER13, FindingSet


def summary(store: Store, findings: FindingSet = PAPER13) -> list[RenderableType]:
    """What to print about a store, top to bottom. findings: of a store whose set has no name that is known."""
    found = store.judgements()
    if not found:
        return [Text(f"{store.path}: no judgement yet")]
    by_task = {task: [j for j in found if j.task == task] for task in TASKS}
    parts: list[RenderableType] = [_work(by_task)]
    rows: list[tuple[str, ...]]
    pairs = [(task, a) for task in TASKS for a in agreements(by_task[task])]
    if pairs:
        rows = [(t, f"{a.first}, {a.second}", str(a.n), f"{a.agreement:.1%}", _number(a.kappa)) for t, a in pairs]
        heads = ("task", "annotators", "n", "equal", "kappa")
        parts.append(_table("Agreement", heads, rows, "n: verdicts (compare), else cells; kappa: Cohen's"))
    if kappas := _kappas_by_finding(store, by_task["label"], findings):
        rows = [(name, str(n), _number(kappa)) for name, (n, kappa) in kappas.items()]
        parts.append(_table("Label agreement by finding", ("finding", "n", "kappa"), rows))
    if rates := win_rates(store):
        rows = [(name, f"{share:.1%}", str(n)) for name, (share, n) in rates.items()]
        parts.append(_table("Preferred", ("version", "share won", "comparisons"), rows, "a tie is half a win for each"))
    if waiting := _waiting(by_task):
        parts.append(Text(f"{waiting} reports wait for `litechex annotate label --adjudicate`"))
    return parts


def _work(by_task: dict[str, list[Judgement]]) -> Table:
    rows = []
    for task, judgements in by_task.items():
        for person in sorted({j.annotator for j in judgements}):
            verdicts = Counter(j.verdict.replace("_", " ") for j in judgements if j.annotator == person)
            text = ", ".join(f"{verdict} {n}" for verdict, n in sorted(verdicts.items()))
            rows.append((task, person, str(verdicts.total()), text))
    return _table("Judgements", ("task", "annotator", "items", "verdicts"), rows)


def _kappas_by_finding(
    store: Store, labels: list[Judgement], findings: FindingSet
) -> dict[str, tuple[int, float | None]]:
    kept = store.items("label")
    if not labels:
        return {}
    findings = FINDING_SETS.get(kept[labels[0].item].finding_set, findings)
    same = [j for j in labels if kept[j.item].finding_set == findings.name]
    return {name: (n, kappa) for name, (n, kappa) in finding_kappas(same, findings).items() if n}


def _waiting(by_task: dict[str, list[Judgement]]) -> int:
    """Disagreements without a decision; an adjudicated item's key is the label item's behind another letter."""
    decided = {j.item[1:] for j in by_task["adjudicate"] if j.verdict != SKIP}
    return sum(key[1:] not in decided for key in disagreements(by_task["label"]))


def _table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]], caption: str | None = None) -> Table:
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # Text: a name with [brackets] is no markup
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
