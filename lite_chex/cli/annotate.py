"""``litechex annotate``: the pages on which experts compare, review and label, and what comes out of them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from lite_chex.cli.app import Group, app
from lite_chex.cli.findings import FINDINGS_HELP, chosen_findings
from lite_chex.errors import UserError
from lite_chex.wording import plural

if TYPE_CHECKING:
    from lite_chex.annotate.build import Built, Inputs
    from lite_chex.annotate.session import Session
    from lite_chex.annotate.store import Store

annotate = typer.Typer(
    name="annotate",
    cls=Group,
    help="Let experts compare answers, review them blinded, or label reports, in the browser.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
app.add_typer(annotate)

STORE = Path("judgements.sqlite")
Reports = Annotated[Path, typer.Option(help="Reports: CSV, CSV.GZ, JSONL or Parquet.")]
Predictions = Annotated[
    list[str] | None,
    typer.Option("--pred", metavar="NAME=FILE", help="A version's label file (repeatable); p_ columns are used."),
]
StorePath = Annotated[Path, typer.Option("--store", help="SQLite file of the judgements; made where there is none.")]
Findings = Annotated[str, typer.Option(help=FINDINGS_HELP)]
TextColumn = Annotated[str | None, typer.Option(help="Column of the report text.")]
IdColumn = Annotated[str | None, typer.Option(help="Column of the id, in --reports and in the label files.")]
Seed = Annotated[int, typer.Option(help="Of the order and of the sides; stored with each judgement.")]
Host = Annotated[str, typer.Option(help="Address to listen on; any but this machine's own asks for a token.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")]
Token = Annotated[str | None, typer.Option(envvar="LITECHEX_TOKEN", help="Token to ask for; made where one is needed.")]
Overlap = Annotated[
    float, typer.Option(min=0, max=1, help="Share of items that every annotator gets; others go to one.")
]


@annotate.command()
def compare(
    reports: Reports,
    pred: Predictions = None,
    store: StorePath = STORE,
    findings: Findings = "paper13",
    text_column: TextColumn = None,
    id_column: IdColumn = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the N most informative pairs.")] = None,
    seed: Seed = 0,
    overlap: Overlap = 1.0,
    host: Host = "127.0.0.1",
    port: Port = 7860,
    token: Token = None,
    label_studio: Annotated[
        Path | None, typer.Option(help="Write the pairs as Label Studio tasks (and its labelling XML), no page.")
    ] = None,
) -> None:
    """Compare two versions' answers to a report, blinded; the most informative pairs come first.

    Give two or more --pred NAME=FILE. Judgements become preferences with `litechex annotate export`.
    """
    inputs = _inputs(reports, pred, findings, text_column, id_column, limit, seed)
    if label_studio is not None:
        _write_tasks(inputs, label_studio, store)
        return
    serve_items("compare", inputs, store, overlap, host, port, token)


@annotate.command()
def review(
    reports: Reports,
    pred: Predictions = None,
    store: StorePath = STORE,
    findings: Findings = "paper13",
    text_column: TextColumn = None,
    id_column: IdColumn = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Draw N reports; every reader gets the same.")] = None,
    seed: Seed = 0,
    host: Host = "127.0.0.1",
    port: Port = 7860,
    token: Token = None,
) -> None:
    """Run a blinded reader study: one anonymous answer at a time, its errors marked.

    Each reader gets every report with every version's answer, in an order of their own.
    """
    inputs = _inputs(reports, pred, findings, text_column, id_column, limit, seed)
    serve_items("review", inputs, store, 1.0, host, port, token)


@annotate.command()
def label(
    reports: Annotated[Path | None, typer.Option(help="Reports; not needed with --adjudicate.")] = None,
    pred: Annotated[
        str | None, typer.Option(metavar="NAME=FILE", help="The model's draft to start from; p_ columns are shown.")
    ] = None,
    store: StorePath = STORE,
    findings: Findings = "paper13",
    text_column: TextColumn = None,
    id_column: IdColumn = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Draw N reports.")] = None,
    seed: Seed = 0,
    overlap: Overlap = 1.0,
    adjudicate: Annotated[
        bool, typer.Option("--adjudicate", help="Decide where the store's two annotators differ.")
    ] = False,
    host: Host = "127.0.0.1",
    port: Port = 7860,
    token: Token = None,
) -> None:
    """Label reports at four certainties, from a model's draft or from nothing; adjudicate disagreements."""
    if adjudicate:
        from lite_chex.annotate.session import adjudication
        from lite_chex.annotate.store import Store

        with Store(store, create=False) as opened:
            session = adjudication(opened, chosen_findings(findings), seed=seed)
            _serve(session, f"{len(session)} reports on which two annotators differ", opened, host, port, token)
        return
    if reports is None:
        raise UserError("annotate label needs --reports FILE (or --adjudicate)")
    inputs = _inputs(reports, [pred] if pred else [], findings, text_column, id_column, limit, seed)
    serve_items("label", inputs, store, overlap, host, port, token)


@annotate.command()
def export(
    store: StorePath = STORE,
    preferences: Annotated[Path | None, typer.Option(help="JSONL for train-rm and train-dpo.")] = None,
    gold: Annotated[Path | None, typer.Option(help="CSV of gold labels (x: not scored).")] = None,
    reader_study: Annotated[Path | None, typer.Option(help="CSV for eval --reader-study.")] = None,
    judgements: Annotated[Path | None, typer.Option(help="JSONL of everything that was judged.")] = None,
    label_studio: Annotated[Path | None, typer.Option(help="JSON of the comparisons for Label Studio.")] = None,
    findings: Findings = "paper13",
) -> None:
    """Write what was judged, and show progress and agreement; without options only show."""
    from lite_chex.annotate import export as out
    from lite_chex.annotate.label_studio import export_judgements
    from lite_chex.annotate.store import Store
    from lite_chex.annotate.summary import summary
    from lite_chex.data.files import refuse_overwriting

    console = Console()
    files = {"--preferences": preferences, "--gold": gold, "--reader-study": reader_study}
    refuse_overwriting({**files, "--judgements": judgements, "--label-studio": label_studio}, [store])
    with Store(store, create=False) as opened:
        written: list[tuple[Path | None, str, int]] = []
        if preferences:
            written.append((preferences, "preferences", out.write_preferences(opened, preferences)))
        if gold:
            table = out.write_gold(opened, gold, chosen_findings(findings))
            written.append((gold, "; ".join(["studies with gold labels", *table.warnings]), len(table)))
        if reader_study:
            written.append((reader_study, "reviews", out.write_review(opened, reader_study)))
        if judgements:
            written.append((judgements, "judgements", out.write_judgements(opened, judgements)))
        if label_studio:
            written.append((label_studio, "comparisons", export_judgements(opened, label_studio)))
        for part in summary(opened, chosen_findings(findings)):
            console.print(part)
    for path, what, n in written:
        console.print(f"{path}: {n} {what}", highlight=False, soft_wrap=True, markup=False)


@annotate.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="JSON export of a Label Studio project.")],
    store: StorePath = STORE,
    findings: Findings = "paper13",
) -> None:
    """Read comparisons that were made in Label Studio; reading them again adds what has changed since."""
    from lite_chex.annotate.label_studio import import_judgements
    from lite_chex.annotate.store import Store

    if not file.is_file():
        raise UserError(f"{file}: no such file; give the JSON export of the Label Studio project")
    with Store(store) as opened:
        done = import_judgements(opened, file, chosen_findings(findings))
    empty = f"; {done.empty} annotations without a verdict left out" if done.empty else ""
    said = f"{file}: {plural(done.judgements, 'new comparison')} read into {store}{empty}"
    Console().print(said, highlight=False, soft_wrap=True, markup=False)


def _inputs(
    reports: Path,
    pred: list[str] | None,
    findings: str,
    text_column: str | None,
    id_column: str | None,
    limit: int | None,
    seed: int,
) -> Inputs:
    from lite_chex.annotate.build import Inputs

    return Inputs(reports, tuple(pred or ()), chosen_findings(findings), text_column, id_column, limit, seed)


def serve_items(
    task: str, inputs: Inputs, store: Path, overlap: float, host: str, port: int, token: str | None
) -> None:
    from lite_chex.annotate.build import build_items, open_session, other_reports
    from lite_chex.annotate.server import access_token
    from lite_chex.annotate.store import Store

    # Before the store is made: a command that fails leaves none.
    token = access_token(host, token)
    built = build_items(task, inputs)
    with Store(store) as opened:
        if others := other_reports(opened, built):
            held = f"{store}: also holds {plural(others, 'report')} that {inputs.reports} does not"
            said = f"{held}; another --store keeps studies apart"
            Console().print(said, highlight=False, soft_wrap=True, markup=False)
        session = open_session(task, inputs, built, opened, overlap)
        _serve(session, _what(task, built), opened, host, port, token)


def _what(task: str, built: Built) -> str:
    nouns = {"compare": "pairs", "review": "answers", "label": "reports"}
    of = f" on {built.reports} reports" if task != "label" else ""
    left_out = f" ({plural(built.left_out, 'empty or unreadable row')} left out)" if built.left_out else ""
    return f"{len(built.drafts)} {nouns[task]}{of}{left_out}"


def _serve(session: Session, what: str, store: Store, host: str, port: int, token: str | None) -> None:
    from lite_chex.annotate.server import LOOPBACK, serve

    say = partial(Console().print, highlight=False, soft_wrap=True, markup=False)
    say(f"{session.task}: {what}; judgements go to {store.path}")

    def announce(address: str) -> None:
        say(f"Open {address}  (Ctrl-C ends; everything acknowledged is kept)")
        if host not in LOOPBACK:
            say("This is plain HTTP: where others can read the network, use an SSH tunnel to this machine.")
            say("A token of your own (--token or LITECHEX_TOKEN) keeps this address the same at the next start.")

    try:
        serve(session, host, port, token, announce)
    except KeyboardInterrupt:
        judged = len(store.judgements(session.task))
        say(f"Stopped; {store.path} holds {judged} {session.task} judgements")
        raise


def _write_tasks(inputs: Inputs, path: Path, store: Path) -> None:
    from lite_chex.annotate.build import build_items
    from lite_chex.annotate.label_studio import LABELING_CONFIG, export_tasks
    from lite_chex.annotate.store import Store
    from lite_chex.data.files import refuse_overwriting

    config = path.with_suffix(".xml")
    read = [inputs.reports, store, *(Path(spec.partition("=")[2]) for spec in inputs.predictions)]
    refuse_overwriting({"--label-studio": path, "--label-studio's labelling setup": config}, read)
    drafts = build_items("compare", inputs).drafts
    with Store(store) as opened:
        opened.add_items(d.item for d in drafts)  # which version gave which answer stays here, not in the tasks
    n = export_tasks(drafts, path, inputs.seed)
    config.write_text(LABELING_CONFIG, encoding="utf-8")
    said = f"{path}: {n} tasks; {config}: the project's labelling setup"
    Console().print(said, highlight=False, soft_wrap=True, markup=False)
