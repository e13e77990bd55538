"""The paper's own rows, to be read beside the user's figures: another test set, another gold.

Copied as they are printed in the preprint 202504.1668 (MIMIC-500).
"""

from __future__ import annotations

from lite_chex.evaluate.results import Evaluation
from lite_chex.evaluate.tables import UNDEFINED, Cell, Table, number, percent

SYSTEMS = ("CheXpert labeler", "CheXbert", "CheX-GPT", "GPT-4", "CheX-LLM")

MACRO_F1 = (0.8864, 0.9047, 0.9014, 0.9014, 0.9115)
SFT_ONLY_MACRO_F1 = 0.9070
ERRORS_PER_REPORT = (None, 0.18, 0.19, 0.19, 0.12)
PERFECT_REPORTS = (None, 0.785, 0.770, 0.775, 0.850)
SFT_ONLY_ERRORS = 0.15

PER_FINDING: dict[str, tuple[float, ...]] = {
    "Enlarged Cardiomediastinum": (0.855, 0.880, 0.875, 0.877, 0.889),
    "Cardiomegaly": (0.920, 0.942, 0.935, 0.936, 0.945),
    "Lung Opacity": (0.850, 0.882, 0.878, 0.879, 0.895),
    "Lung Lesion": (0.840, 0.870, 0.865, 0.868, 0.881),
    "Edema": (0.878, 0.901, 0.896, 0.898, 0.909),
    "Consolidation": (0.865, 0.888, 0.882, 0.885, 0.896),
    "Pneumonia": (0.868, 0.898, 0.893, 0.895, 0.905),
    "Atelectasis": (0.871, 0.895, 0.891, 0.893, 0.902),
    "Pneumothorax": (0.900, 0.930, 0.925, 0.928, 0.938),
    "Pleural Effusion": (0.870, 0.900, 0.895, 0.890, 0.908),
    "Pleural Other": (0.830, 0.865, 0.860, 0.863, 0.875),
    "Fracture": (0.945, 0.962, 0.960, 0.959, 0.965),
    "No Finding": (0.958, 0.968, 0.965, 0.966, 0.970),
}
PER_CERTAINTY: dict[str, tuple[float, ...]] = {
    "positive": (0.8525, 0.8733, 0.8708, 0.8708, 0.8780),
    "negative": (0.905, 0.920, 0.915, 0.915, 0.930),
    "uncertain": (0.701, 0.750, 0.760, 0.760, 0.800),
}
PER_LENGTH: dict[str, tuple[float, ...]] = {
    "short": (0.890, 0.910, 0.905, 0.905, 0.918),
    "medium": (0.885, 0.905, 0.900, 0.900, 0.912),
    "long": (0.875, 0.890, 0.880, 0.880, 0.900),
}

_SOURCE = (
    "Published, MIMIC-500 (preprint 202504.1668): ANOTHER TEST SET with another gold. Not comparable with your "
    "columns, and no interval was given."
)
_CARE = (
    "Take them with care: the three baselines' headline figures and the positive row agree to four digits with the "
    "14-label averages of another study on another set (JMIR Med Inform 2025;13:e68618), GPT-4's rows repeat "
    "CheX-GPT's, and the finding rows of CheX-LLM average .9137, not the headline .9115."
)


def _printed(value: float | None) -> str:
    """As the paper prints it: three digits, or four where it gives four."""
    text = number(value, 4)
    return text[:-1] if value is not None and text.endswith("0") else text


def _rows(evaluation: Evaluation, published: dict[str, tuple[float, ...]], own: str) -> list[list[Cell]]:
    rows = []
    for key, values in published.items():
        yours = [getattr(s, own) or {} for s in evaluation.systems.values()]
        if not any(key in y for y in yours):
            continue
        mine = [Cell(number(y[key].value) if key in y else UNDEFINED) for y in yours]
        rows.append([Cell(key), *(Cell(_printed(v)) for v in values), *mine])
    return rows


def published_tables(evaluation: Evaluation) -> list[Table]:
    """The paper's Tables beside the evaluation's own columns; only under the paper's protocol, ``macro``."""
    if evaluation.protocol.name != "macro":
        note = "--published: the paper's rows are macro F1 over certainties and are not shown under another protocol."
        if note not in evaluation.notes:
            evaluation.notes.append(note)
        return []
    systems = list(evaluation.systems.values())
    headers = [f"paper:\n{name}" for name in SYSTEMS] + [f"yours:\n{s.name}" for s in systems]

    def line(label: str, values: tuple[float | None, ...], mine: list[str], share: bool = False) -> list[Cell]:
        show = percent if share else _printed
        return [Cell(label), *(Cell(show(v)) for v in values), *(Cell(m) for m in mine)]

    overall = [
        line("macro F1", MACRO_F1, [number(s.macro_f1.value) for s in systems]),
        line("errors per report", ERRORS_PER_REPORT, [number(s.errors_per_report.value) for s in systems]),
        line("perfect reports", PERFECT_REPORTS, [percent(s.perfect_reports.value) for s in systems], share=True),
    ]
    sft = (
        f"SFT without RLHF in the paper: macro F1 {number(SFT_ONLY_MACRO_F1)}, "
        f"{number(SFT_ONLY_ERRORS, 2)} errors per report."
    )
    finding_rows = _rows(evaluation, PER_FINDING, "per_finding")
    other_rows = _rows(evaluation, PER_CERTAINTY, "per_certainty") + _rows(evaluation, PER_LENGTH, "per_length")
    return [
        Table("published", "Published rows, another test set", [_SOURCE, sft, _CARE], ["figure"], headers, overall),
        Table(
            "published_findings",
            "Published F1 per finding, another test set",
            [_SOURCE],
            ["finding"],
            headers,
            finding_rows,
        ),
        Table(
            "published_slices",
            "Published F1 per certainty and length, another test set",
            [_SOURCE],
            ["slice"],
            headers,
            other_rows,
        ),
    ]
