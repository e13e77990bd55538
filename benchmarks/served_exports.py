"""Do exports say in vLLM and llama.cpp what the adapter says here? Both serve them, and are asked over HTTP.

    python benchmarks/served_exports.py runs/smollm2-135m-cpu --vllm vllm --json served_exports.json
    python benchmarks/served_exports.py runs/smollm2-135m-cpu --llama-server llama-server --llama-cpp llama.cpp

The reports are those of the run's first test source. The server gets each as ``litechex label --labeler openai
--own-export`` asks it, held to the answer's grammar; its labels are compared with the adapter's own. In 16 bits near
ties fall either way: a few cells that differ by a small margin are rounding.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from machine import machine
from peer_env import PeerError, answers, free_port, last_line
from rich.console import Console
from rich.table import Table

SERVED_AS = "litechex"
PATIENCE = 600.0
"""Seconds until a server must answer: vLLM compiles first."""


@dataclass
class Served:
    """One server's labels against the adapter's. worst_margin: by how many nats the adapter preferred its own label
    where the server first left it; why: what went wrong, where nothing was labelled."""

    server: str
    version: str
    reports: int
    same_reports: int = 0
    cells: int = 0
    different_cells: int = 0
    worst_margin: float = 0.0
    seconds: float = 0.0
    why: str | None = None


def commands(kind: str, program: str, folder: Path, room: int, slots: int, port: int) -> list[str]:
    """How the export's README starts a server, with a port of its own."""
    if kind == "vllm":
        return [program, "serve", str(folder), "--served-model-name", SERVED_AS, "--max-model-len", str(room),
                "--host", "127.0.0.1", "--port", str(port)]  # fmt: skip
    return [program, "-m", str(folder / "model.gguf"), "-c", str(room * slots), "-np", str(slots), "--port", str(port)]


@contextmanager
def running(command: Sequence[str], port: int, log: Path) -> Iterator[str]:
    """Start a server, wait until it lists its model, and end it.

    Raises:
        PeerError: if it ends or does not answer in time.
    """
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    url = f"http://127.0.0.1:{port}/v1"
    try:
        if not answers(f"{url}/models", PATIENCE, process):
            ended = process.poll() is not None
            raise PeerError(last_line(log.read_text(encoding="utf-8")) if ended else f"no answer in {PATIENCE:.0f} s")
        yield url
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()


def compare(result: Served, ours: np.ndarray, probabilities: np.ndarray, theirs: np.ndarray) -> Served:
    """Count what differs: int8 ``[n, F]`` each, probabilities ``[n, F, 4]``."""
    from lite_chex.export_check import worst_margin

    differs = ours != theirs
    result.cells, result.different_cells = int(ours.size), int(differs.sum())
    result.same_reports = int((~differs.any(axis=1)).sum())
    result.worst_margin = worst_margin(ours, theirs, probabilities)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run or a stage")
    parser.add_argument("--limit", type=int, default=50, help="reports of the test split")
    parser.add_argument("--concurrency", type=int, default=4, help="requests at once")
    parser.add_argument("--vllm", help="the vllm program")
    parser.add_argument("--vllm-options", default="", help="for vllm serve: --vllm-options=--enforce-eager")
    parser.add_argument("--llama-server", help="llama.cpp's server program")
    parser.add_argument("--llama-cpp", type=Path, help="llama.cpp's folder or its convert_hf_to_gguf.py")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    programs = {"vllm": options.vllm, "gguf": options.llama_server}
    if not any(programs.values()):
        parser.error("name a server: --vllm or --llama-server")

    from lite_chex.errors import UserError
    from lite_chex.export import GRAMMAR, export_model
    from lite_chex.labelers.llm import LLMLabeler, find_stage
    from lite_chex.labelers.registry import LabelerOptions, ServerOptions, make_labeler
    from lite_chex.recipe import load_recipe
    from lite_chex.train.examples import load_source

    stage = find_stage(options.run)
    recipe = load_recipe(stage / "recipe.yaml")
    texts = load_source(recipe.data.test[0], recipe).texts[: options.limit]
    ours = LLMLabeler.load(stage, merge=False).label(texts)
    assert ours.probabilities is not None
    fine = [i for i, error in enumerate(ours.errors or [None] * len(texts)) if error is None]
    results = []
    with tempfile.TemporaryDirectory() as work:
        for kind, program in programs.items():
            if not program:
                continue
            name = {"vllm": "vLLM", "gguf": "llama.cpp"}[kind]
            said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
            lines = (said.stdout or said.stderr).strip().splitlines()
            result = Served(name, lines[-1] if lines else "", len(fine))
            results.append(result)
            folder = Path(work) / kind
            export_model(stage, folder, "vllm" if kind == "vllm" else "gguf", llama_cpp=options.llama_cpp)
            port = free_port()
            command = commands(kind, program, folder, recipe.model.max_length, options.concurrency, port)
            command += shlex.split(options.vllm_options) if kind == "vllm" else []
            try:
                with running(command, port, Path(work) / f"{kind}.log") as url:
                    grammar = (folder / GRAMMAR).read_text(encoding="utf-8")
                    server = ServerOptions(base_url=url, grammar=grammar, concurrency=options.concurrency)
                    asked = LabelerOptions(model=SERVED_AS, findings=recipe.findings, server=server)
                    labeler = make_labeler("openai", asked)
                    started = time.perf_counter()
                    theirs = labeler.label([texts[i] for i in fine])
                    result.seconds = time.perf_counter() - started
                if theirs.errors:
                    result.why = next(e for e in theirs.errors if e)
                compare(result, ours.values[fine], ours.probabilities[fine], theirs.values)
            except (PeerError, UserError) as error:
                result.why = str(error)

    table = Table(title=f"{stage.name} of {recipe.name}: labels of its exports, served")
    for header in ("server", "reports", "same report", "cells", "that differ", "worst margin, nats", "s"):
        table.add_column(header, justify="left" if header == "server" else "right")
    for r in results:
        counts = [str(v) for v in (r.reports, r.same_reports, r.cells, r.different_cells)]
        table.add_row(r.server, *counts, f"{r.worst_margin:.3f}", f"{r.seconds:.0f}")
    console = Console()
    console.print(table)
    for r in results:
        console.print(f"{r.server}: {r.version}" + (f"; {r.why}" if r.why else ""), highlight=False, soft_wrap=True)
    if options.json:
        found = {"results": [asdict(r) for r in results], "model": Path(recipe.model.model_name_or_path).name,
                 "machine": machine("torch", "transformers", "peft")}  # fmt: skip
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        console.print(f"written: {options.json}", highlight=False)


if __name__ == "__main__":
    main()
