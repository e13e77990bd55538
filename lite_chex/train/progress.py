"""Progress for long steps: a bar with time left on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

PLAIN_EVERY_S = 20.0


class Steps:
    """Counts steps of one long task; ``advance`` after each, with figures to show behind the bar."""

    def __init__(self, console: Console, title: str, total: int, bar: Progress | None, done: int = 0) -> None:
        self.console, self.title, self.total, self.done, self.bar = console, title, total, done, bar
        self.task = bar.add_task(title, total=total, completed=done, note="") if bar else None
        self.started = self.last_line = time.monotonic()
        self.at_start = done

    def advance(self, note: str = "", to: int | None = None) -> None:
        self.done = self.done + 1 if to is None else to
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, completed=self.done, note=note)
        elif time.monotonic() - self.last_line > PLAIN_EVERY_S or self.done == self.total:
            self.last_line = time.monotonic()
            spent = self.last_line - self.started
            left = spent / max(self.done - self.at_start, 1) * (self.total - self.done)
            self.console.print(f"{self.title}: {self.done}/{self.total}, {left:.0f} s left  {note}", highlight=False)

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False)


@contextmanager
def steps(console: Console, title: str, total: int, done: int = 0) -> Iterator[Steps]:
    if not console.is_terminal:
        yield Steps(console, title, total, None, done)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bar:
        yield Steps(console, title, total, bar, done)
