"""How far a long run is: a bar on a terminal, one plain line now and then in a log."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from lite_chex.wording import duration

LOG_SECONDS = 30.0
"""Seconds between two lines where the console is no terminal."""


class _Speed(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.1f} {self.unit}/s" if task.speed else "")


class RunProgress:
    """Context manager; ``advance(n)`` after every chunk.

    Args:
        total: rows in all. start: rows that an earlier run did (they do not count as speed).
    """

    def __init__(
        self, console: Console, total: int, *, start: int = 0, what: str = "label", unit: str = "reports"
    ) -> None:
        self.console, self.total, self.start, self.what, self.unit = console, total, start, what, unit
        self.done = start
        self.began = self.last = time.monotonic()
        self._bar: Progress | None = None
        if console.is_terminal:
            columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), _Speed(unit), TimeRemainingColumn())
            self._bar = Progress(*columns, console=console)
            self._task = self._bar.add_task(what, total=total, completed=start)

    def __enter__(self) -> RunProgress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, n: int) -> None:
        self.done += n
        if self._bar is not None:
            self._bar.advance(self._task, n)
            return
        now = time.monotonic()
        if now - self.last < LOG_SECONDS:
            return
        self.last = now
        speed = (self.done - self.start) / max(now - self.began, 1e-9)
        left = duration((self.total - self.done) / speed) if speed else "?"
        share = self.done / self.total if self.total else 1.0
        self.console.print(
            f"{self.what}: {self.done:,} of {self.total:,} ({share:.1%}), {speed:,.1f} {self.unit}/s, {left} left",
            highlight=False,
        )
