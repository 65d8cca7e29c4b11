"""What people see while a command runs: plain lines, and progress bars on a terminal."""

import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

_LINE_EVERY = 10.0  # seconds between the lines of a task where there is no terminal


def say(console: Console, text: str, style: str | None = None) -> None:
    """Print a line as it is: brackets are no markup, and only a terminal wraps it."""
    console.print(text, style=style, markup=False, highlight=False, emoji=False, soft_wrap=True)


def warn(console: Console, *texts: str) -> None:
    """Print lines that ask for attention, as `say` does."""
    for text in texts:
        say(console, text, style="yellow")


def rate_text(per_second: float) -> str:
    """How fast things get done, in at most 8 characters up to a million a second: "4200/s", "12 s each"."""
    if per_second >= 0.95:
        return f"{per_second:.0f}/s" if per_second >= 9.5 else f"{per_second:.1f}/s"
    return f"{1 / per_second:.0f} s each" if per_second > 0 else ""


class _Rate(ProgressColumn):
    """Things per second."""

    def render(self, task: Task) -> Text:
        return Text(rate_text(task.finished_speed or task.speed or 0.0), style="progress.data.speed")


class ProgressBars:
    """Progress of named tasks, each with its count, rate and remaining time. Use as a context manager.

    On a terminal, one bar a task, in one row of 60 columns or more. Elsewhere, as in a pipe or a log file, a
    line for what takes longer than 10 seconds, every 10 seconds and at its end.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.plain = not console.is_terminal or console.is_dumb_terminal
        self.progress = Progress(
            TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=2)),
            BarColumn(bar_width=None, table_column=Column(ratio=1)),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            _Rate(table_column=Column(no_wrap=True, min_width=6)),
            TimeRemainingColumn(
                compact=True, elapsed_when_finished=True, table_column=Column(no_wrap=True, min_width=5)
            ),
            console=console,
            get_time=time.monotonic,
            disable=self.plain,
            expand=console.width < 100,
        )
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "ProgressBars":
        self.progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.progress.stop()

    def __call__(self, name: str, done: int, total: int) -> None:
        """Show that `done` of `total` of task `name` are done."""
        fields: dict[str, Any] = {"total": total, "completed": done, "first": done, "said": None}
        if name not in self.tasks:
            self.tasks[name] = self.progress.add_task(name, **fields)
        task = self.progress.tasks[self.tasks[name]]
        if done < task.completed:  # it begins again, as for the next shard
            self.progress.reset(task.id, **fields)
        self.progress.update(task.id, completed=done, total=total)
        if self.plain:
            self._line(task, done, total)

    def _line(self, task: Task, done: int, total: int) -> None:
        """Say where a task is, if it is time; `first` was done when it began, which is no speed."""
        said, elapsed = task.fields["said"], task.elapsed or 0.0
        ended = done >= total
        if (ended and said is None) or (not ended and elapsed - (said or 0.0) < _LINE_EVERY):
            return
        speed = (done - task.fields["first"]) / max(elapsed, 1e-9)
        text = f"{task.description}: {done}/{total}, {100 * done // max(total, 1)} %"
        text += f", {rate_text(speed)}" if speed > 0 else ""
        if ended:
            text += f", took {duration(elapsed)}"
        elif speed > 0:
            text += f", {duration((total - done) / speed)} left"
        say(self.console, text)
        task.fields["said"] = None if ended else elapsed  # a caller that ends twice gets one line

    def bar(self, name: str) -> Callable[[int, int], None]:
        """A callback (done, total) for task `name`."""
        return lambda done, total: self(name, done, total)


def duration(seconds: float) -> str:
    """Hours, minutes and seconds: "1:02:03", "2:03"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
