"""The four pictures of the HTML report, as SVG text. matplotlib is an extra and is imported here alone."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lite_chex.errors import UserError
from lite_chex.evaluate.calibration import Calibration
from lite_chex.evaluate.counts import ANSWERS
from lite_chex.evaluate.lengths import LENGTH_BINS
from lite_chex.evaluate.protocols import MIN_SUPPORT
from lite_chex.evaluate.results import Estimate, Evaluation
from lite_chex.findings import CERTAINTY_WORDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#666666", "#8C564B")
"""Okabe and Ito's palette: told apart by readers with colour blindness."""
MARKERS = "osD^vP*X"


def require_matplotlib() -> None:
    """Raise a UserError that says how to get it, where matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UserError("--html draws plots with matplotlib, which is not installed: pip install matplotlib") from error


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _svg(figure: Figure) -> str:
    import matplotlib as mpl

    out = io.StringIO()
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": "litechex", "font.family": "DejaVu Sans"}
    with mpl.rc_context(settings):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    svg = out.getvalue()
    return svg[svg.index("<svg") :]


def _scope_ids(svg: str, prefix: str) -> str:
    """Make ids unique in a page that holds several pictures."""
    svg = re.sub(r'id="', f'id="{prefix}-', svg)
    return re.sub(r'(xlink:href="#|url\(#)', rf"\1{prefix}-", svg)


def _style(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)


def _errors(e: Estimate) -> tuple[float, float]:
    if e.value is None or e.low is None or e.high is None:
        return 0.0, 0.0
    # A percentile interval need not hold the value itself.
    return max(e.value - e.low, 0.0), max(e.high - e.value, 0.0)


def _points(axes: Axes, row: int, position: float, e: Estimate, label: str, vertical: bool = False) -> None:
    """One value with its interval, drawn as a mark with a line."""
    if e.value is None:
        return
    low, high = _errors(e)
    colour, marker = COLOURS[row % len(COLOURS)], MARKERS[row % len(MARKERS)]
    common = {
        "color": colour,
        "marker": marker,
        "markersize": 5,
        "elinewidth": 1.5,
        "linestyle": "none",
        "label": label,
    }
    if vertical:
        axes.errorbar([position], [e.value], yerr=[[low], [high]], capsize=3, **common)  # type: ignore[arg-type]
    else:
        axes.errorbar([e.value], [position], xerr=[[low], [high]], capsize=2, **common)  # type: ignore[arg-type]


def _legend(figure: Figure, axes: Axes, count: int) -> None:
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles))
    figure.legend(
        list(unique.values()), list(unique), loc="outside upper left", ncols=min(count, 4), frameon=False, fontsize=9
    )


def finding_plot(evaluation: Evaluation) -> str:
    """F1 per finding with intervals, one mark per system; few gold labels are said at the name."""
    systems = list(evaluation.systems.values())
    names = evaluation.findings.names
    step = 0.8 / len(systems)
    figure = _figure(8, 1.2 + len(names) * max(0.36, 0.16 * len(systems)))
    axes = figure.add_subplot()
    for s, system in enumerate(systems):
        for f, name in enumerate(names):
            _points(axes, s, f + (s - (len(systems) - 1) / 2) * step, system.per_finding[name], system.name)
    labels = []
    for name in names:
        n = systems[0].per_finding[name].n
        labels.append(f"{name} ({n:,}{'†' if n < MIN_SUPPORT else ''})")
    for f in range(len(names)):
        if f % 2:
            axes.axhspan(f - 0.5, f + 0.5, color="#f2f2f2", zorder=0)
    axes.set_yticks(range(len(names)), labels)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("F1, with its 95% interval", fontsize=9)
    _style(axes)
    _legend(figure, axes, len(systems))
    return _scope_ids(_svg(figure), "findings")


def confusion_plot(evaluation: Evaluation) -> str:
    """Gold by answer over all findings, one matrix per system: shares of the gold's row, counts below."""
    systems = list(evaluation.systems.values())
    columns = min(len(systems), 2)
    rows = -(-len(systems) // columns)
    figure = _figure(4.6 * columns, 3.9 * rows)
    figure.get_layout_engine().set(h_pad=0.15, w_pad=0.1)  # type: ignore[union-attr,call-arg]
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_visible(False)
    unreadable = any(s.confusion[..., ANSWERS - 1].any() for s in systems)
    answers = [*CERTAINTY_WORDS, *(["no answer"] if unreadable else [])]
    for axes, system in zip(grid.flat, systems):
        axes.set_visible(True)
        counts = system.confusion.sum(axis=0)[:, : len(answers)]
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        # Drawn as vectors (an image would be a bitmap inside the SVG), the first row on top.
        grid_lines = {"shading": "nearest", "edgecolors": "white", "linewidth": 0.5}
        axes.pcolormesh(range(len(answers)), range(len(shares)), shares, cmap="Blues", vmin=0, vmax=1, **grid_lines)
        axes.invert_yaxis()
        for i, j in np.ndindex(counts.shape):
            colour = "white" if shares[i, j] > 0.55 else "black"
            text = f"{100 * shares[i, j]:.1f}%\n{counts[i, j]:,}"
            axes.text(j, i, text, ha="center", va="center", fontsize=8, color=colour)
        axes.set_xticks(range(len(answers)), answers, fontsize=8)
        axes.set_yticks(range(len(CERTAINTY_WORDS)), CERTAINTY_WORDS, fontsize=8)
        axes.set_xlabel("answer", fontsize=9)
        axes.set_ylabel("gold", fontsize=9)
        axes.set_title(system.name, fontsize=10)
    return _scope_ids(_svg(figure), "confusion")


def length_plot(evaluation: Evaluation) -> str | None:
    """Macro F1 of short, medium and long reports; None where lengths are not known."""
    systems = [s for s in evaluation.systems.values() if s.per_length is not None]
    if not systems:
        return None
    figure = _figure(6, 3.6)
    axes = figure.add_subplot()
    for s, system in enumerate(systems):
        assert system.per_length is not None
        positions = [b + (s - (len(systems) - 1) / 2) * 0.06 for b in range(len(LENGTH_BINS))]
        estimates = [system.per_length[b] for b in LENGTH_BINS]
        values = [np.nan if e.value is None else e.value for e in estimates]
        axes.plot(positions, values, color=COLOURS[s % len(COLOURS)], linewidth=1)
        for position, e in zip(positions, estimates):
            _points(axes, s, position, e, system.name, vertical=True)
    first = systems[0].per_length or {}
    axes.set_xticks(range(len(LENGTH_BINS)), [f"{b}\nn = {first[b].n:,}" for b in LENGTH_BINS])
    axes.set_xlim(-0.4, len(LENGTH_BINS) - 0.6)
    axes.set_ylabel("macro F1, with its 95% interval", fontsize=9)
    _style(axes)
    _legend(figure, axes, len(systems))
    return _scope_ids(_svg(figure), "lengths")


def reliability_plot(found: Mapping[str, Calibration]) -> str | None:
    """Confidence against how often it was right, over the share of cells in each bin; None without any."""
    if not found:
        return None
    figure = _figure(5.6, 5.4)
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    axes.plot([0, 1], [0, 1], color="#999999", linestyle="--", linewidth=1)
    for s, (name, c) in enumerate(found.items()):
        colour = COLOURS[s % len(COLOURS)]
        used = c.count > 0
        label = f"{name} (ECE {c.ece.value:.3f})"
        marker = MARKERS[s % len(MARKERS)]
        firm = c.count >= MIN_SUPPORT
        axes.plot(c.confidence[firm], c.accuracy[firm], color=colour, marker=marker, markersize=4, label=label)
        few = used & ~firm
        hollow = {"color": colour, "marker": marker, "markersize": 4, "linestyle": "none", "fillstyle": "none"}
        axes.plot(c.confidence[few], c.accuracy[few], alpha=0.6, **hollow)  # type: ignore[arg-type]
        centres = (np.arange(len(c.count)) + 0.5) / len(c.count)
        below.step(centres, c.count / c.count.sum(), where="mid", color=colour)
    presence = any(c.presence for c in found.values())
    axes.set_ylabel("share that is positive in the gold" if presence else "share that was right", fontsize=9)
    below.set_ylabel("share of\ncells", fontsize=9)
    below.set_xlabel("probability of positive" if presence else "probability of the answer given", fontsize=9)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    for part in (axes, below):
        _style(part)
    _legend(figure, axes, len(found))
    return _scope_ids(_svg(figure), "reliability")
