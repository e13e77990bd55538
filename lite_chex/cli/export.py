"""``litechex export``: a model for other programs, and a check that it still says the same."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lite_chex.cli.app import app

if TYPE_CHECKING:
    from rich.console import Console

    from lite_chex.export import Exported
    from lite_chex.recipe import Recipe


@app.command()
def export(
    model: Annotated[
        Path, typer.Argument(metavar="RUN_OR_ADAPTER", help="A run (its ppo, else dpo, else sft) or stage.")
    ],
    output: Annotated[Path, typer.Option("--output", help="Folder to write: a new one, or an earlier export's.")],
    format: Annotated[
        str, typer.Option("--format", help="merged, gguf (with an Ollama Modelfile) or vllm.")
    ] = "merged",
    check: Annotated[
        list[str] | None,
        typer.Option(
            "--check", metavar="RECIPE", help="Compare with the adapter on this recipe's test split; repeatable."
        ),
    ] = None,
    check_limit: Annotated[int, typer.Option("--check-limit", help="Reports of the test split to compare.")] = 50,
    llama_cpp: Annotated[
        Path | None, typer.Option("--llama-cpp", help="llama.cpp's folder or its convert_hf_to_gguf.py.")
    ] = None,
    push_to_hub: Annotated[
        str | None, typer.Option("--push-to-hub", metavar="OWNER/NAME", help="Upload to a private hub repository.")
    ] = None,
    i_may_share_this_model: Annotated[
        bool, typer.Option("--i-may-share-this-model", help="Needed for --push-to-hub: its training data allow it.")
    ] = False,
) -> None:
    """Merge an adapter into its base and write safetensors, GGUF or a vLLM folder, with schema and grammar."""
    from rich.console import Console

    from lite_chex.errors import UserError
    from lite_chex.export import FORMATS, SHARING, export_model, push
    from lite_chex.recipe import load_recipe

    if format not in FORMATS:
        raise UserError(f'--format: "{format}" is none of {", ".join(FORMATS)}')
    if check_limit < 1:
        raise UserError(f"--check-limit: {check_limit} is too small; it must be at least 1")
    if push_to_hub and not i_may_share_this_model:
        raise UserError(f"--push-to-hub: {SHARING}; add --i-may-share-this-model if you may")
    recipes = [load_recipe(name) for name in check or []]  # before a model is merged for minutes
    console = Console()
    exported = export_model(model, output, format, llama_cpp=llama_cpp)  # type: ignore[arg-type]
    console.print(f"{exported.stage} -> {output} ({format})", highlight=False, soft_wrap=True)
    if not exported.exportable:
        console.print(
            "[yellow]trained on the decisions alone (sft.loss: decisions): it needs constrained decoding, "
            "with answer.gbnf[/]",
            highlight=False,
        )
    if recipes:
        _check(exported, recipes, check_limit, console)
    if push_to_hub:
        console.print(f"uploaded: {push(output, push_to_hub, acknowledged=i_may_share_this_model)}", highlight=False)


def _check(exported: Exported, recipes: list[Recipe], limit: int, console: Console) -> None:
    from rich.table import Table

    from lite_chex.export_check import check_export

    table = Table("test split", "reports", "decoding", "readable", "same report", "cells that differ")
    notes = []
    for recipe in recipes:
        found = check_export(exported, recipe, limit)
        n = str(found.n)
        free = (str(found.free_same), str(found.free_cells)) if found.readable else ("-", "-")
        table.add_row(found.source, n, "free", str(found.readable), *free)
        table.add_row("", n, "constrained", n, str(found.constrained_same), str(found.constrained_cells))
        if found.constrained_cells:
            notes.append(
                f"{found.source}: where the constrained export left the adapter, the adapter preferred its own "
                f"label by at most {found.worst_margin:.2f} nats"
            )
        if found.prompts_differ:
            notes.append(
                f"{found.source}: a chat endpoint splits {found.prompts_differ} of {n} prompts otherwise than training "
                "did: served, their answers may differ"
            )
    console.print(table)
    for note in notes:
        console.print(note, highlight=False)
    console.print(
        "same report: every label is the adapter's. Cells that differ by a small margin are 16-bit rounding.",
        highlight=False,
    )
