"""One self-contained HTML file: every table and the plots, no script, nothing fetched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from lite_chex.evaluate import plots
from lite_chex.evaluate.calibration import Calibration
from lite_chex.evaluate.results import Evaluation
from lite_chex.evaluate.tables import BEST, TIED, Cell, Table, basis

_STYLE = """
:root { --text: #1a1a1a; --page: #ffffff; --line: #cccccc; --soft: #f5f5f5; --faint: #6b6b6b; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6e6e6; --page: #16181c; --line: #444; --soft: #202329; --faint: #a0a0a0; }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page); max-width: 64rem;
  margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .3rem; }
nav a { display: inline-block; margin-right: .8rem; color: inherit; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .25rem .6rem; text-align: right; white-space: nowrap; }
th { border-bottom: 2px solid var(--line); vertical-align: bottom; }
tbody tr:nth-child(even) { background: var(--soft); }
tr.groups th { border-bottom: 1px solid var(--line); text-align: center; }
th.name, td.name { text-align: left; }
td.words { text-align: left; white-space: normal; min-width: 12rem; }
td.weak { color: var(--faint); }
td small { color: var(--faint); margin-left: .35rem; }
p.caption { color: var(--faint); font-size: .85rem; max-width: 48rem; margin: .4rem 0; }
figure { margin: 1rem 0; background: #ffffff; padding: .5rem; overflow-x: auto; }
figure svg { max-width: 100%; height: auto; }
"""


_WORDS = ("better", "which")
"""Columns of text: aligned to the left, free to wrap."""


def _cell(cell: Cell, lead: bool, header: str) -> str:
    text = escape(cell.text)
    text = f"<b>{text}</b>" if cell.best else text
    text += f'<span title="not significantly different from the best">{TIED}</span>' if cell.tied else ""
    text += f"<small>{escape(cell.interval)}</small>" if cell.interval else ""
    classes = ["name"] if lead and header != "n" else ["words"] if header in _WORDS else []
    classes += ["weak"] if cell.weak else []
    return f'<td class="{" ".join(classes)}">{text}</td>' if classes else f"<td>{text}</td>"


def _broken(header: str) -> str:
    return escape(header.replace("-\n", "")).replace("\n", "<br>")


def _head(table: Table) -> str:
    """The header row; two rows where columns stand in groups ("name" over "P", "R", "F1")."""
    lead = [f'<th scope="col"{"" if h == "n" else " class=name"}>{escape(h)}</th>' for h in table.lead]
    if table.group == 1:
        columns = [f'<th scope="col"{" class=name" if h in _WORDS else ""}>{_broken(h)}</th>' for h in table.columns]
        return f"<tr>{''.join([*lead, *columns])}</tr>"
    names, parts = zip(*(h.split("\n") for h in table.columns), strict=True)
    groups = [f'<th scope="colgroup" colspan="{table.group}">{escape(n)}</th>' for n in names[:: table.group]]
    below = "".join(lead) + "".join(f'<th scope="col">{escape(p)}</th>' for p in parts)
    return f'<tr class="groups"><td colspan="{len(lead)}"></td>{"".join(groups)}</tr><tr>{below}</tr>'


def table_html(table: Table) -> str:
    """One table with its heading and caption."""
    headers = [*table.lead, *table.columns]
    names = len(table.lead)
    body = "".join(
        "<tr>" + "".join(_cell(cell, i < names, headers[i]) for i, cell in enumerate(row)) + "</tr>\n"
        for row in table.rows
    )
    caption = escape(" ".join(table.caption).replace(f"{BEST} best", "Bold: best"))
    return (
        f'<section id="{escape(table.key)}"><h2>{escape(table.title)}</h2>\n<div class="scroll"><table>\n'
        f"<thead>{_head(table)}</thead>\n<tbody>\n{body}</tbody></table></div>\n"
        f'<p class="caption">{caption}</p></section>\n'
    )


def _picture(key: str, title: str, svg: str | None, caption: str) -> tuple[str, str, str]:
    if svg is None:
        return "", "", ""
    name = escape(title)
    section = (
        f'<section id="{key}"><h2>{name}</h2>\n<figure role="img" aria-label="{name}">{svg}</figure>\n'
        f'<p class="caption">{escape(caption)}</p></section>\n'
    )
    return key, title, section


def html_text(
    evaluation: Evaluation, tables: Sequence[Table], found: Mapping[str, Calibration], gold_source: str = ""
) -> str:
    """The whole page; the first table stands above the plots. found: systems that gave probabilities."""
    about = basis(evaluation)
    pictures = [
        _picture(
            "plot-findings", "Plot: F1 per finding", plots.finding_plot(evaluation),
            f"{about} In brackets the gold labels; \u2020 fewer than 10.",
        ),
        _picture(
            "plot-confusion", "Plot: confusion of the four certainties", plots.confusion_plot(evaluation),
            "All findings together; shares of each gold row, and counts of cells.",
        ),
        _picture(
            "plot-lengths", "Plot: report length", plots.length_plot(evaluation), f"{about} Thirds by token count.",
        ),
        _picture(
            "plot-reliability", "Plot: reliability", plots.reliability_plot(found),
            "On the dashed line, what is given probability p is so in a share p of the cells. "
            "Hollow marks: bins of fewer than 10 cells.",
        ),
    ]  # fmt: skip
    source = f" Gold: {gold_source}." if gold_source else ""
    title = "Report labelling: " + ", ".join(evaluation.systems)
    shown = [picture for picture in pictures if picture[0]]
    return page(title, [about + source, *evaluation.notes], shown, tables)


def page(
    title: str, sentences: Sequence[str], pictures: Sequence[tuple[str, str, str]], tables: Sequence[Table]
) -> str:
    """A page of tables and pictures (key, title, section); the first table stands above the pictures."""
    links = [(t.key, t.title) for t in tables] + [(key, name) for key, name, _ in pictures]
    contents = "".join(f'<a href="#{escape(key)}">{escape(name)}</a> ' for key, name in links)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{_STYLE}</style></head>\n'
        f"<body><h1>{escape(title)}</h1>\n<p>A research tool, not a medical device.</p>\n"
        + "".join(f"<p>{escape(sentence)}</p>\n" for sentence in sentences)
        + f"<nav>{contents}</nav>\n"
        + "".join(table_html(table) for table in tables[:1])
        + "".join(section for _, _, section in pictures)
        + "".join(table_html(table) for table in tables[1:])
        + "</body></html>\n"
    )
