"""What people see while a command runs: plain lines, and progress bars on a terminal."""

import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_LINE_SECONDS = 30.0  # between lines where there is no terminal


def say(console: Console, text: str, style: str | None = None) -> None:
    """Print a line as it is: brackets are no markup, and only a terminal wraps it."""
    console.print(text, style=style, markup=False, highlight=False, emoji=False, soft_wrap=True)


class ProgressBars:
    """One rich progress bar per named task, shown only on a terminal. Use as a context manager."""

    def __init__(self, console: Console) -> None:
        self.progress = Progress(
            *Progress.get_default_columns(),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "ProgressBars":
        self.progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.progress.stop()

    def __call__(self, name: str, done: int, total: int) -> None:
        """Show that `done` of `total` of task `name` are done."""
        if name not in self.tasks:
            self.tasks[name] = self.progress.add_task(name, total=total)
        self.progress.update(self.tasks[name], completed=done, total=total)

    def bar(self, name: str) -> Callable[[int, int], None]:
        """A callback (done, total) for task `name`."""
        return lambda done, total: self(name, done, total)


class Meter:
    """How far a piece of work is, how fast, what is left: a bar on a terminal, elsewhere a line every 30 s.

    Use as a context manager.
    """

    def __init__(self, console: Console, name: str, total: int) -> None:
        self.console, self.name, self.total = console, name, total
        self.done = 0
        self.began = self.said = time.monotonic()
        self.progress = Progress(
            TextColumn("{task.description}"),
            MofNCompleteColumn(),
            BarColumn(bar_width=12),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> "Meter":
        self.progress.start()
        self.task = self.progress.add_task(self.name, total=self.total, rate="")
        return self

    def __exit__(self, *exception: object) -> None:
        self.progress.stop()

    def advance(self, count: int) -> None:
        """So many more are done."""
        self.done += count
        now = time.monotonic()
        rate = self.done / max(now - self.began, 1e-9)
        self.progress.update(self.task, completed=self.done, rate=f"{rate:.3g}/s")
        if not self.console.is_terminal and now - self.said > _LINE_SECONDS and self.done < self.total:
            self.said = now
            left = (self.total - self.done) / rate
            say(self.console, f"{self.name}: {self.done} of {self.total}, {rate:.3g}/s, {left:.0f} s left")
