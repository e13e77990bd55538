"""Labels per second: the decision decoder beside ``generate``, constrained generation, llama.cpp and the limit.

    python benchmarks/label_speed.py --adapter runs/smollm2-135m-cpu/sft --json label_speed.json

All systems label the same reports with the same weights, in turn (round by round, so that a busy machine slows all
of them alike); medians of seconds, and of the ratios within a round. The limit is one forward pass over report and
answer with the instruction's KV cache. Peers get an environment each, below --envs, from ``requirements/``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from machine import machine
from peer_env import PeerError, Worker, ensure_env
from rich.console import Console
from rich.table import Table

from lite_chex.findings import PAPER13, LabelArray

if TYPE_CHECKING:
    from lite_chex.decode.decoder import DecisionDecoder, Decoded
    from lite_chex.prompt import PromptEncoder

HERE = Path(__file__).resolve().parent
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
FLIPPED = 0.05
GENERATE, LIMIT, OURS, UNCHECKED, STEPWISE = "generate", "limit: one pass", "litechex", "  ties unchecked", "  stepwise"
PEERS = ("xgrammar", "llama.cpp")
Answers = Sequence[LabelArray | None]


@dataclass
class Task:
    """One model, the reports sorted by length, their exact labels (batch size 1) and the decoder's drafts."""

    decoder: DecisionDecoder
    prompt: PromptEncoder
    texts: list[str]
    bodies: list[list[int]]
    exact: Decoded
    drafts: LabelArray
    draft_source: str

    @property
    def agreement(self) -> float:
        return float((self.drafts == self.exact.values).mean())

    def batches(self, size: int, rounds: int) -> list[list[int]]:
        """``rounds`` batches of neighbours in length, spread over all lengths."""
        starts = np.linspace(0, len(self.bodies) - size, rounds).round().astype(int).tolist()
        return [list(range(s, s + size)) for s in starts]

    def prompts(self, rows: Sequence[int]) -> list[list[int]]:
        return [self.prompt.prefix_ids + self.bodies[i] for i in rows]

    def answer_length(self, rows: Sequence[int]) -> int:
        template = self.decoder.template
        return max(len(template.answer_ids(self.exact.values[i])) for i in rows)


@dataclass
class Timed:
    """One system at one batch size. same: reports labelled as the exact baseline, of ``compared``."""

    system: str
    batch: int
    seconds: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    passes: list[float] = field(default_factory=list)
    ties: int = 0
    same: int = 0
    compared: int = 0
    margins: list[float] = field(default_factory=list)

    def note(self, task: Task, rows: Sequence[int], answers: Answers) -> None:
        """Count the reports labelled as the baseline; keep its margin at every cell that differs."""
        import torch

        from lite_chex.decode import decisions

        exact = task.exact
        margin = decisions.margins(torch.from_numpy(exact.logits), torch.from_numpy(exact.values).long(), PAPER13)
        for row, answer in zip(rows, answers, strict=True):
            self.compared += 1
            self.same += answer is not None and bool((answer == exact.values[row]).all())
            if answer is not None:
                self.margins += margin[row][torch.from_numpy(answer != exact.values[row])].tolist()


def read_texts(path: Path, count: int) -> list[str]:
    """The first ``count`` readable reports of a file."""
    from lite_chex.data.readers import iter_reports

    texts = []
    for report in iter_reports(path, None, None):
        if report.error is None and report.text.strip():
            texts.append(report.text)
        if len(texts) == count:
            break
    return texts


def prepare(model: str, dtype: str, texts: Sequence[str], with_rules: bool) -> Task:
    """Load a plain model (an adapter is merged by now), label the reports exactly, and make the drafts."""
    from lite_chex.decode.decoder import DecisionDecoder
    from lite_chex.decode.template import build_template
    from lite_chex.labelers.rules import RuleLabeler
    from lite_chex.model.backbone import load_base
    from lite_chex.prompt import PromptEncoder
    from lite_chex.recipe import ModelSection

    section = ModelSection.model_validate({"model_name_or_path": model, "dtype": dtype, "load_in_4bit": False})
    backbone = load_base(section, for_training=False)
    prompt = PromptEncoder(backbone.tokenizer, PAPER13)
    decoder = DecisionDecoder(backbone, build_template(prompt), prompt.prefix_ids)
    ordered = sorted(zip(prompt.body_ids(texts), texts, strict=True), key=lambda pair: len(pair[0]))
    bodies, texts = [body for body, _ in ordered], [text for _, text in ordered]
    exact = decoder.stepwise(bodies, batch_size=1)
    if with_rules:
        drafts, source = RuleLabeler(PAPER13).label(texts).values, "the rule labeler's labels"
    else:
        rng = np.random.default_rng(0)
        drafts, source = exact.values.copy(), f"the model's own labels with {FLIPPED:.0%} of the cells changed"
        wrong = rng.random(drafts.shape) < FLIPPED
        drafts[wrong] = (drafts[wrong] + rng.integers(1, 4, int(wrong.sum()))) % 4
        drafts = PAPER13.consistent(drafts)
    return Task(decoder, prompt, list(texts), bodies, exact, drafts, source)


def one_pass(task: Task, rows: Sequence[int]) -> LabelArray:
    """The limit: report and final answer in one pass, padded on the right, the instruction's cache repeated."""
    import torch

    from lite_chex.decode import decisions

    decoder, template = task.decoder, task.decoder.template
    answers = [task.exact.values[i] for i in rows]
    ids = [[*task.bodies[i], *template.answer_ids(a)] for i, a in zip(rows, answers, strict=True)]
    where = [[len(task.bodies[i]) + p - 1 for p in template.decision_positions(a)]
             for i, a in zip(rows, answers, strict=True)]  # fmt: skip
    width, pad = max(map(len, ids)), decoder.backbone.tokenizer.pad_token_id
    device = decoder.backbone.device
    padded = torch.tensor([[*row, *[pad] * (width - len(row))] for row in ids], device=device)
    with torch.inference_mode():
        # No mask: padding on the right is never looked at by what stands before it.
        output = decoder.backbone.trunk(input_ids=padded, past_key_values=decoder.prefix_cache(len(rows)))
        hidden = output.last_hidden_state[torch.arange(len(rows))[:, None], torch.tensor(where)].float()
        logits = torch.einsum("bth,tch->btc", hidden, decoder.weight).cpu()
        return decisions.choose(logits, PAPER13).numpy().astype(np.int8)


def read_answer(text: str) -> LabelArray | None:
    """Labels of the JSON object that a text begins with; what a forced length added after it does not count."""
    return PAPER13.from_json(text[: text.find("}") + 1].strip())


System = Callable[[Sequence[int], Timed], tuple[float, Answers]]


def own_systems(task: Task, stepwise: bool) -> dict[str, System]:
    """What runs in this process; each returns its seconds and answers."""
    from label_speed_generate import generate

    decoder, tokenizer = task.decoder, task.decoder.backbone.tokenizer
    usual = decoder.tie_tolerance

    def clocked(work: Callable[[], Any]) -> tuple[float, Any]:
        started = time.perf_counter()
        found = work()
        return time.perf_counter() - started, found

    def free(rows: Sequence[int], timed: Timed) -> tuple[float, Answers]:
        length = task.answer_length(rows)  # neither shorter nor longer: the same number of new tokens
        prompts = task.prompts(rows)
        seconds, (texts, tokens) = clocked(
            lambda: generate(decoder.backbone.causal, tokenizer, prompts, length, length)
        )
        timed.tokens.append(tokens)
        return seconds, list(map(read_answer, texts))

    def limit(rows: Sequence[int], timed: Timed) -> tuple[float, Answers]:
        seconds, values = clocked(lambda: one_pass(task, rows))
        return seconds, list(values)

    def decode(tolerance: float) -> System:
        def run(rows: Sequence[int], timed: Timed) -> tuple[float, Answers]:
            decoder.tie_tolerance = tolerance
            bodies, drafts = [task.bodies[i] for i in rows], task.drafts[list(rows)]
            seconds, found = clocked(lambda: decoder.decode(bodies, drafts, batch_size=len(rows)))
            timed.passes.append(found.passes)
            timed.ties += found.ties
            return seconds, list(found.values)

        return run

    def steps(rows: Sequence[int], timed: Timed) -> tuple[float, Answers]:
        seconds, found = clocked(lambda: decoder.stepwise([task.bodies[i] for i in rows], batch_size=len(rows)))
        return seconds, list(found.values)

    systems: dict[str, System] = {GENERATE: free, LIMIT: limit, OURS: decode(usual)}
    if usual:
        systems[UNCHECKED] = decode(0.0)
    return systems | ({STEPWISE: steps} if stepwise else {})


def peer(worker: Worker, task: Task, notes: dict[str, str], name: str) -> System:
    """A worker in another environment. It stops by itself: a grammar allows nothing after the answer."""

    def run(rows: Sequence[int], timed: Timed) -> tuple[float, Answers]:
        most = 2 * task.answer_length(rows)
        found = worker.ask({"prompts": task.prompts(rows), "most": most})
        timed.tokens.append(found["tokens"])
        if "features" in found:
            notes[name] = found["features"]
        return found["seconds"], list(map(read_answer, found["texts"]))

    return run


def start_peers(
    task: Task, names: Sequence[str], envs: Path, work: Path, threads: int, slots: int, llama_server: str | None
) -> tuple[dict[str, Worker], dict[str, str]]:
    """Workers of the peers that install here, and why the others do not."""
    from lite_chex.export import grammar

    backbone = task.decoder.backbone
    plain, workers, missing = work / "plain", {}, {}
    if names:
        backbone.causal.save_pretrained(plain)
        backbone.tokenizer.save_pretrained(plain)
    dtype = str(backbone.causal.dtype).removeprefix("torch.")
    longest = max(map(len, task.bodies)) + len(task.prompt.prefix_ids) + 2 * task.decoder.template.max_answer_length
    end = task.decoder.template.tails[-1][0][-1]
    shared = {"model": str(plain), "dtype": dtype, "threads": threads}
    jobs: dict[str, tuple[str, str, dict[str, Any]]] = {
        "xgrammar": ("xgrammar-0.2.txt", "label_speed_generate.py",
                     {"schema": PAPER13.json_schema(), "pad": backbone.tokenizer.pad_token_id, "eos": end}),
        "llama.cpp": ("llama-cpp.txt", "label_speed_llamacpp.py",
                      {"grammar": grammar(PAPER13), "gguf": str(work / "model.gguf"), "binary": llama_server,
                       "slots": slots, "context": longest}),
    }  # fmt: skip
    for name in names:
        requirements, script, own = jobs[name]
        file = work / f"{name}.json"
        file.write_text(json.dumps({**shared, **own}), encoding="utf-8")
        try:
            python = ensure_env(envs / name, requirements)
            worker = Worker([str(python), str(HERE / script), str(file)], work / f"{name}.log")
            workers[name] = worker
            # A short question warms it up, and says whether it works at all.
            worker.ask({"prompts": task.prompts([0]), "most": 2 * task.answer_length([0])})
        except PeerError as error:
            missing[name] = str(error)
            if name in workers:
                workers.pop(name).close()
    return workers, missing


def measure(task: Task, systems: dict[str, System], sizes: Sequence[int], rounds: int) -> list[Timed]:
    """All systems in turn at every batch size, ``rounds`` times, after a short round that warms up."""
    from label_speed_generate import generate

    generate(task.decoder.backbone.causal, task.decoder.backbone.tokenizer, task.prompts([0]), 2, 2)
    for name in (LIMIT, OURS):
        systems[name](range(max(sizes)), Timed(name, 0))
    found = {(name, size): Timed(name, size) for size in sizes for name in systems}
    for number in range(rounds):
        for size in sizes:
            rows = task.batches(size, rounds)[number]
            for name, system in systems.items():
                timed = found[name, size]
                seconds, answers = system(rows, timed)
                timed.seconds.append(seconds)
                timed.note(task, rows, answers)
    return list(found.values())


def ratios(rows: Sequence[Timed], row: Timed, other: str) -> float:
    """How many times faster than ``other``: the median over rounds."""
    base = next(r for r in rows if r.system == other and r.batch == row.batch)
    return statistics.median(b / a for a, b in zip(row.seconds, base.seconds, strict=True))


def table_of(rows: Sequence[Timed]) -> Table:
    table = Table(title="Same reports, same weights, medians")
    for header in ("system", "batch", "s", "reports/s", "x generate", "of limit", "same"):
        table.add_column(header, justify="left" if header == "system" else "right")
    size = None
    for row in rows:
        if size not in (None, row.batch):
            table.add_section()
        size = row.batch
        seconds = statistics.median(row.seconds)
        table.add_row(
            row.system, str(row.batch), f"{seconds:.3f}", f"{row.batch / seconds:.2f}",
            f"{ratios(rows, row, GENERATE):.1f}", f"{ratios(rows, row, LIMIT):.2f}", f"{row.same}/{row.compared}",
        )  # fmt: skip
    return table


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=MODEL, help="folder or hub name of a base model")
    parser.add_argument("--adapter", type=Path, help="an adapter of a run: merged, and drafted for by the rules")
    parser.add_argument("--dtype", default="auto", choices=["auto", "bfloat16", "float16", "float32"])
    parser.add_argument("--reports", type=Path, help="default: the synthetic test reports")
    parser.add_argument("--count", type=int, default=80, help="reports taken from it")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS), help="none: --peers alone")
    parser.add_argument("--envs", type=Path, default=Path("build/benchmarks"), help="where the peers are installed")
    parser.add_argument("--llama-server", help="a llama-server compiled here; else a wheel's, built for AVX2")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    run(options)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure, print, write; returns what the JSON holds."""
    from lite_chex.recipe import shipped

    console = Console()
    texts = read_texts(options.reports or shipped("data_samples") / "reports_test.csv", options.count)
    if len(texts) < max(options.batch_sizes):
        raise SystemExit(f"--reports: {len(texts)} readable reports, fewer than --batch-sizes {options.batch_sizes}")
    with tempfile.TemporaryDirectory() as temporary:
        work, model = Path(temporary), options.model
        if options.adapter:
            from lite_chex.export import export_model

            export_model(options.adapter, work / "merged")
            model = str(work / "merged")
        task = prepare(model, options.dtype, texts, bool(options.adapter))
        slots = max(options.batch_sizes)
        workers, missing = start_peers(
            task, options.peers, options.envs, work, options.threads, slots, options.llama_server
        )
        notes: dict[str, str] = {}
        peers = {name: peer(worker, task, notes, name) for name, worker in workers.items()}
        systems = {**own_systems(task, stepwise=True), **peers}
        try:
            rows = measure(task, systems, options.batch_sizes, options.rounds)
        finally:
            for worker in workers.values():
                worker.close()
    figures = report(task, rows, missing, notes, console) | {"model": options.model, "adapter": str(options.adapter)}
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return figures


def report(
    task: Task, rows: Sequence[Timed], missing: dict[str, str], notes: dict[str, str], console: Console
) -> dict[str, Any]:
    """Print the table and what one must know to read it; returns the figures."""
    console.print(table_of(rows))
    body = statistics.mean(map(len, task.bodies))
    answer = statistics.mean(len(task.decoder.template.answer_ids(v)) for v in task.exact.values)
    lines = [
        f"{len(task.bodies)} reports: {len(task.prompt.prefix_ids)} tokens of instruction, {body:.0f} of report, "
        f"{answer:.0f} of answer on average; {task.decoder.backbone.dtype_reason}, {task.decoder.backbone.device}",
        f"Drafts: {task.draft_source}; they agree with the model in {task.agreement:.1%} of the cells",
    ]
    for row in rows:
        if row.passes:
            lines.append(
                f"{row.system.strip()}, batch {row.batch}: {statistics.mean(row.passes):.2f} passes per report, "
                f"{row.ties} of {row.compared} reports with a near tie"
            )
        if row.margins and row.system != GENERATE:
            lines.append(
                f"{row.system.strip()}, batch {row.batch}: {len(row.margins)} cells differ from the baseline, which "
                f"won them by at most {max(row.margins):.3f} in logits"
            )
    lines += [f"{name}: {text}" for name, text in notes.items()]
    lines += [f"{name}: not built: {why}" for name, why in missing.items()]
    where = machine("torch", "transformers")
    for line in [*lines, f"Machine: {json.dumps(where)}"]:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    systems = [
        {
            "system": r.system, "batch": r.batch, "seconds": r.seconds, "median": statistics.median(r.seconds),
            "reports_per_second": r.batch / statistics.median(r.seconds),
            "ratio_to_generate": ratios(rows, r, GENERATE),
            "ratio_to_limit": ratios(rows, r, LIMIT), "same": r.same, "compared": r.compared, "passes": r.passes,
            "ties": r.ties, "tokens": r.tokens, "margins_where_different": r.margins,
        }
        for r in rows
    ]  # fmt: skip
    return {
        "reports": len(task.bodies), "report_tokens": body, "answer_tokens": answer, "draft": task.draft_source,
        "agreement": task.agreement, "systems": systems, "not_built": missing, "notes": notes, "machine": where,
    }  # fmt: skip


if __name__ == "__main__":
    main()
