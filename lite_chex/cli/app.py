"""The typer app that every command registers with, and the one place where errors become exit codes."""

from __future__ import annotations

import io
import re
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from lite_chex.errors import UserError


class Group(TyperGroup):
    """Joins the lines of each paragraph of a command's docstring (typer does so in the first paragraph alone), and
    says what Ctrl-C left: typer ends with 130 and no word."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            print(f"litechex: {str(interrupt) or 'interrupted'}", file=sys.stderr)
            raise typer.Exit(130) from None

    def get_command(self, *args: Any, **options: Any) -> Any:
        command = super().get_command(*args, **options)
        if command is not None and command.help:
            command.help = re.sub(r"(?<!\n)\n(?!\n)", " ", command.help)
        return command


app = typer.Typer(
    name="litechex",
    cls=Group,
    help="Label chest X-ray reports with a small LLM: 4-bit SFT, reward model, PPO and DPO on one GPU. "
    "A research tool, not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def main() -> None:
    """Run the command line: 0 done, 1 wrong input (one sentence), 2 usage, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a log in another encoding has a ? in it, not a traceback
            stream.reconfigure(errors="replace")
    try:
        app()
    except UserError as error:
        print(f"litechex: {error}", file=sys.stderr)
        sys.exit(1)
