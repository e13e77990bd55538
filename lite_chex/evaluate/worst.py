"""The reports with the most errors, and which cells of them are wrong."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.text import Text

from lite_chex.evaluate.counts import ANSWERS, UNREADABLE, WRONG, cell_codes, errors_of_reports
from lite_chex.evaluate.inputs import EvalInput
from lite_chex.evaluate.protocols import protocol_named
from lite_chex.evaluate.tables import Cell, Table
from lite_chex.findings import CERTAINTY_WORDS

_SHORT = {"positive": "pos", "negative": "neg", "uncertain": "unc", "absent": "absent"}


def worst_rows(data: EvalInput, count: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.uint8]]:
    """The gold rows with the most wrong cells over all systems (ties in file order), and all cell codes."""
    presence = protocol_named(data.protocol).presence
    codes = cell_codes(data.gold, data.systems, data.format_errors, presence)
    total = errors_of_reports(codes).sum(axis=0)
    order = np.argsort(-total, kind="stable")[:count]
    return order[total[order] > 0], codes


def _wrong_cells(codes: npt.NDArray[np.uint8], names: tuple[str, ...]) -> str:
    if any(code % ANSWERS == UNREADABLE and WRONG[code] for code in codes.tolist()):
        return "no readable answer"
    parts = []
    for name, code in zip(names, codes.tolist(), strict=True):
        if WRONG[code]:
            gold, answer = (_SHORT[CERTAINTY_WORDS[i]] for i in divmod(code, ANSWERS))
            parts.append(f"{name}: {gold} > {answer}")
    return "; ".join(parts) or "none"


def worst_table(data: EvalInput, count: int) -> Table:
    """Per report and system: how many cells are wrong, and which (gold > answer)."""
    rows, codes = worst_rows(data, count)
    body = []
    for row in rows.tolist():
        for s, name in enumerate(data.systems):
            wrong = int(WRONG[codes[s, row]].sum())
            cells = _wrong_cells(codes[s, row], data.findings.names)
            body.append([Cell(data.row_names[row] if s == 0 else ""), Cell(name), Cell(str(wrong)), Cell(cells)])
    caption = [f"The {len(rows)} reports with the most wrong cells over all systems; gold > answer."]
    return Table("worst", "Worst reports", caption, ["report", "system"], ["errors", "which"], body, splittable=False)


def print_texts(data: EvalInput, count: int, console: Console) -> None:
    """The texts of those reports; only ever at the user's own asking."""
    assert data.texts is not None, "the caller has asked for --reports"
    for row in worst_rows(data, count)[0].tolist():
        console.print(Text(f"Report {data.row_names[row]}", style="bold"))
        console.print(Text(data.texts[row]))
        console.print()
