"""What people see while a command runs: plain lines, and progress bars on a terminal."""

import time
from collections.abc import Callable
from dataclasses import dataclass

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
_LINE_SECONDS = 30.0  # the same for a `Meter`


def say(console: Console, text: str, style: str | None = None) -> None:
    """Print a line as it is: brackets are no markup, and only a terminal wraps it."""
    console.print(text, style=style, markup=False, highlight=False, emoji=False, soft_wrap=True)


def rate_text(per_second: float) -> str:
    """How fast things get done, in at most 8 characters up to a million a second: "4200/s", "12 s each"."""
    if per_second >= 0.95:
        return f"{per_second:.0f}/s" if per_second >= 9.5 else f"{per_second:.1f}/s"
    return f"{1 / per_second:.0f} s each" if per_second > 0 else ""


class _Rate(ProgressColumn):
    """Things per second, of the whole task once it is finished."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed if task.finished else task.speed
        return Text(rate_text(speed or 0.0), style="progress.data.speed")


@dataclass
class _Plain:
    """A task without a terminal."""

    began: float
    first: int  # done when it began: what was found from an earlier run is no speed
    said: float
    lines: int = 0


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
            disable=self.plain,
            expand=console.width < 100,
        )
        self.tasks: dict[str, TaskID] = {}
        self.lines: dict[str, _Plain] = {}

    def __enter__(self) -> "ProgressBars":
        self.progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.progress.stop()

    def __call__(self, name: str, done: int, total: int) -> None:
        """Show that `done` of `total` of task `name` are done."""
        if self.plain:
            self._line(name, done, total)
            return
        if name not in self.tasks:
            self.tasks[name] = self.progress.add_task(name, total=total)
        self.progress.update(self.tasks[name], completed=done, total=total)

    def _line(self, name: str, done: int, total: int) -> None:
        now = time.monotonic()
        task = self.lines.setdefault(name, _Plain(now, done, now))
        ended = done >= total and task.lines > 0
        if not ended and (done >= total or now - task.said < _LINE_EVERY):
            return
        speed = (done - task.first) / max(now - task.began, 1e-9)
        text = f"{name}: {done}/{total}, {100 * done // max(total, 1)} %"
        text += f", {rate_text(speed)}" if speed > 0 else ""
        if ended:
            text += f", took {duration(now - task.began)}"
            del self.lines[name]  # a caller that says so twice gets one line
        elif speed > 0:
            text += f", {duration((total - done) / speed)} left"
        say(self.console, text)
        task.said, task.lines = now, task.lines + 1

    def bar(self, name: str) -> Callable[[int, int], None]:
        """A callback (done, total) for task `name`."""
        return lambda done, total: self(name, done, total)


def duration(seconds: float) -> str:
    """Hours, minutes and seconds: "1:02:03", "2:03"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


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
