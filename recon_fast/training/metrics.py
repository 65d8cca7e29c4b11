"""One line a window of steps: on the screen, as JSON lines, and for TensorBoard."""

import json
import math
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from recon_fast.console import say
from recon_fast.errors import InputError
from recon_fast.training.curves import Curves


class _ProgressAndLine(Progress):
    """The bar, and below it the newest line of the log, which may take two rows of a narrow terminal."""

    line = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self.line:
            yield Text(self.line)


class Metrics:
    """Averages over a window of steps, and the three places they go to.

    Args:
        run: folder of the run; metrics.jsonl and tensorboard/ are made there.
        start_step: lines of later steps, left by a run that was resumed from before them, are dropped.

    Raises:
        InputError: the logs cannot be written, at once or any time later.
    """

    def __init__(self, run: Path, console: Console, every: int, tensorboard: bool, start_step: int) -> None:
        self.console = console
        self.every = every
        self.sums: dict[str, float] = defaultdict(float)
        self.count = 0
        self.path = run / "metrics.jsonl"
        self.curves: Curves | None = None
        with self._writing():
            if self.path.exists():
                lines = self.path.read_text(encoding="utf-8").splitlines()
                aside = self.path.with_suffix(".tmp")
                kept = "".join(f"{line}\n" for line in lines if _step_of(line) <= start_step)
                aside.write_text(kept, encoding="utf-8")
                aside.replace(self.path)
            self.file = self.path.open("a", encoding="utf-8")
            if tensorboard:
                self.curves = Curves(run / "tensorboard", start_step)
        self.progress: _ProgressAndLine | None = None
        self.last_plain = 0.0

    @contextmanager
    def showing(self, total: int, completed: int) -> Iterator[None]:
        """Progress bar on a terminal; elsewhere a line now and then."""
        if not self.console.is_terminal:
            yield
            return
        columns = (
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=24),
            TimeRemainingColumn(elapsed_when_finished=True),
        )
        with _ProgressAndLine(*columns, console=self.console) as self.progress:
            self.task = self.progress.add_task("", total=total, completed=completed)
            yield
        self.progress = None

    def step(self, step: int, total: int, values: dict[str, float]) -> None:
        """Add one step's values; at the end of a window (or of the run) write their means."""
        for name, value in values.items():
            self.sums[name] += value
        self.count += 1
        if self.progress is not None:
            self.progress.update(self.task, completed=step)
        if step % self.every and step != total:
            return
        means = {name: value / self.count for name, value in self.sums.items()}
        means["epoch"] = values["epoch"]
        # Clouds per second of the window is the harmonic mean: clouds over time.
        means["clouds_per_s"] = 1e3 * means.pop("clouds") / (means["data_ms"] + means["step_ms"])
        self.sums.clear()
        self.count = 0
        self.write(step, means)
        line = self._line(means)
        if self.progress is not None:
            self.progress.line = line
        elif step == total or time.monotonic() - self.last_plain > 10:
            self.last_plain = time.monotonic()
            say(self.console, f"step {step}/{total}  {line}")

    @staticmethod
    def _line(means: dict[str, float]) -> str:
        own = ("epoch", "lr", "grad_norm", "data_ms", "step_ms", "clouds_per_s")
        terms = "  ".join(f"{name} {value:.4f}" for name, value in means.items() if name not in own)
        times = f"data {means['data_ms']:.0f} ms, step {means['step_ms']:.0f} ms"
        return f"{terms}  {means['clouds_per_s']:.0f} clouds/s ({times})"

    def write(self, step: int, values: dict[str, Any]) -> None:
        """One JSON line, and the scalars of it for TensorBoard."""
        with self._writing():
            self.file.write(json.dumps({"step": step, **values}) + "\n")
            self.file.flush()
            if self.curves is not None:
                self.curves.add(step, {k: v for k, v in values.items() if isinstance(v, int | float)})

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(f"log {self.path} cannot be written: {error.strerror or error}") from error

    def close(self) -> None:
        """Flush what is written to the disk. What cannot be flushed was reported when it was written."""
        with suppress(OSError):
            os.fsync(self.file.fileno())
        for file in (self.file, self.curves):
            if file is not None:
                with suppress(OSError):
                    file.close()


def _step_of(line: str) -> float:
    """Step of a line of the log, infinite for one that was cut off."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return math.inf
