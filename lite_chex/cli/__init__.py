"""Command line: a command parses, loads the recipe, calls one function, prints."""

from lite_chex.cli import annotate, calibrate, data, demo, distill, evaluate, export, hardware, label, loop, train  # noqa: F401  (they register their commands)
from lite_chex.cli.app import app, main

__all__ = ["app", "main"]
