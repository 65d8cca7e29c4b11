"""One line a window of steps: on the screen, as JSON lines, and for TensorBoard."""

import json
import os
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Metrics:
    """Averages over a window of steps, and the three places they go to.

    Args:
        run: folder of the run; metrics.jsonl and tensorboard/ are made there.
        start_step: lines of this step or later, left by a run that was resumed from before them, are dropped.
    """

    def __init__(self, run: Path, console: Console, every: int, tensorboard: bool, start_step: int) -> None:
        self.console = console
        self.every = every
        self.sums: dict[str, float] = defaultdict(float)
        self.count = 0
        path = run / "metrics.jsonl"
        if path.exists():
            kept = [line for line in path.read_text().splitlines() if json.loads(line)["step"] <= start_step]
            aside = path.with_suffix(".tmp")
            aside.write_text("".join(f"{line}\n" for line in kept))
            aside.rename(path)
        self.file = path.open("a")
        self.writer: Any = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(run / "tensorboard"), purge_step=start_step or None)
        self.progress: Progress | None = None
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
            TextColumn("{task.fields[line]}"),
        )
        with Progress(*columns, console=self.console) as self.progress:
            self.task = self.progress.add_task("", total=total, completed=completed, line="")
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
        # Clouds per second of the window is the harmonic mean: clouds over time.
        means["clouds_per_s"] = 1e3 * means.pop("clouds") / (means["data_ms"] + means["step_ms"])
        self.sums.clear()
        self.count = 0
        self.write(step, means)
        line = self._line(means)
        if self.progress is not None:
            self.progress.update(self.task, line=line)
        elif step == total or time.monotonic() - self.last_plain > 10:
            self.last_plain = time.monotonic()
            self.console.print(f"step {step}/{total}  {line}", highlight=False)

    @staticmethod
    def _line(means: dict[str, float]) -> str:
        own = ("epoch", "lr", "grad_norm", "data_ms", "step_ms", "clouds_per_s")
        terms = "  ".join(f"{name} {value:.4f}" for name, value in means.items() if name not in own)
        times = f"data {means['data_ms']:.0f} ms, step {means['step_ms']:.0f} ms"
        return f"{terms}  {means['clouds_per_s']:.0f} clouds/s ({times})"

    def write(self, step: int, values: dict[str, Any]) -> None:
        """One JSON line, and the scalars of it for TensorBoard."""
        self.file.write(json.dumps({"step": step, **values}) + "\n")
        self.file.flush()
        if self.writer is not None:
            for name, value in values.items():
                if isinstance(value, int | float):
                    self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush what is written to the disk."""
        os.fsync(self.file.fileno())
        self.file.close()
        if self.writer is not None:
            self.writer.close()
