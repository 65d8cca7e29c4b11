"""What people see while a command runs: plain lines, and progress bars on a terminal."""

from collections.abc import Callable

from rich.console import Console
from rich.progress import Progress, TaskID, TimeElapsedColumn


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
