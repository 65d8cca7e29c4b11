"""One line a window of steps: on the screen, as JSON lines, and for TensorBoard."""

import json
import math
import os
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from recon_fast.console import say, warn
from recon_fast.errors import InputError, first_line
from recon_fast.files import whole_file


class _ProgressAndLine(Progress):
    """The bar, and below it the newest line of the log, which may take two rows of a narrow terminal."""

    line = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self.line:
            yield Text(self.line)


class Curves:
    """Scalars for TensorBoard in an event file in `folder`, which is made; curves of older files are hidden
    from `start_step` on. The calling thread writes: `torch.utils.tensorboard` uses its own thread, where a
    full disk becomes a stack trace.

    Raises:
        OSError: the folder or the file cannot be written.
    """

    def __init__(self, folder: Path, start_step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(parents=True, exist_ok=True)
        self.event = Event
        self.file = (folder / f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}").open("wb")
        self.records = RecordWriter(self.file)
        self._write(file_version="brain.Event:2")
        if start_step:
            self._write(step=start_step, session_log={"status": "START"})

    def add(self, step: int, values: dict[str, float]) -> None:
        """Add one point to each curve."""
        points = [{"tag": name, "simple_value": value} for name, value in values.items()]
        self._write(step=step, summary={"value": points})

    def _write(self, **event: Any) -> None:
        self.records.write(self.event(wall_time=time.time(), **event).SerializeToString())
        self.file.flush()


class Metrics:
    """Averages over a window of steps, and the three places they go to.

    A log that cannot be written any more, as on a full disk, is said once and does not stop the run: lines
    are written when they can be, curves end.

    Args:
        run: folder of the run; metrics.jsonl and tensorboard/ are made there. None writes nothing.
        start_step: lines of later steps, left by a run that was resumed from before them, are dropped.
        loggers: each gets the numbers of every line, by its method `log(values, step=step)` or as a function.
            One that fails is said once, and gets no more.

    Raises:
        InputError: the logs cannot be written at the start, or a logger is none.
    """

    def __init__(
        self,
        run: Path | None,
        console: Console,
        every: int,
        tensorboard: bool,
        start_step: int,
        loggers: Sequence[Any] = (),
    ) -> None:
        self.console = console
        self.every = every
        self.window: dict[str, list[float]] = defaultdict(list)
        self.skipped = 0
        self.pending = b""  # lines, or the rest of one, that are not written yet
        self.failed = False
        self.file: BinaryIO | None = None
        self.curves: Curves | None = None
        self.progress: _ProgressAndLine | None = None
        self.last_plain = 0.0
        self.loggers = [log_function(logger) for logger in loggers]
        if run is None:
            return
        self.path = run / "metrics.jsonl"
        try:
            if self.path.exists():
                lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
                kept = "".join(f"{line}\n" for line in lines if _step_of(line) <= start_step)
                with whole_file(self.path) as aside:
                    aside.write_text(kept, encoding="utf-8")
            self.file = self.path.open("ab", buffering=0)
            if tensorboard:
                self.curves = Curves(run / "tensorboard", start_step)
        except OSError as error:
            raise InputError(f"log {self.path} cannot be written: {error.strerror or error}") from error

    @contextmanager
    def showing(self, total: int, completed: int) -> Iterator[None]:
        """Progress bar on a terminal; elsewhere a line now and then."""
        if not self.console.is_terminal:
            yield
            return
        left = TimeRemainingColumn(elapsed_when_finished=True)
        columns = (TextColumn("step"), MofNCompleteColumn(), BarColumn(bar_width=24), left)
        with _ProgressAndLine(*columns, console=self.console) as self.progress:
            self.task = self.progress.add_task("", total=total, completed=completed)
            yield
        self.progress = None

    def skip(self, step: int, why: str, in_a_row: int, limit: int) -> None:
        """Say and count that a step changes nothing."""
        self.skipped += 1
        warn(self.console, f"step {step} is skipped: {why} ({in_a_row} in a row, at most {limit})")

    def step(self, step: int, total: int, values: dict[str, float]) -> None:
        """Add one step's values, of a skipped step those that mean something; at the end of a window (or of
        the run) write the means.
        """
        for name, value in values.items():
            self.window[name].append(value)
        if self.progress is not None:
            self.progress.update(self.task, completed=step)
        if step % self.every and step != total:
            return
        means = {name: sum(found) / len(found) for name, found in self.window.items()}
        means["epoch"] = values["epoch"]
        # Clouds per second of the window is the harmonic mean: clouds over time.
        means["clouds_per_s"] = 1e3 * means.pop("clouds") / (means["data_ms"] + means["step_ms"])
        if self.skipped:
            means["skipped"] = self.skipped
        self.window.clear()
        self.skipped = 0
        self.write(step, means)
        line = self._line(means)
        if self.progress is not None:
            self.progress.line = line
        elif step == total or time.monotonic() - self.last_plain > 10:
            self.last_plain = time.monotonic()
            say(self.console, f"step {step}/{total}  {line}")

    @staticmethod
    def _line(means: dict[str, float]) -> str:
        own = ("epoch", "lr", "grad_norm", "data_ms", "step_ms", "clouds_per_s", "skipped")
        terms = "  ".join(f"{name} {value:.4f}" for name, value in means.items() if name not in own)
        times = f"data {means['data_ms']:.0f} ms, step {means['step_ms']:.0f} ms"
        skipped = f"  {means['skipped']} skipped" if "skipped" in means else ""
        return f"{terms}  {means['clouds_per_s']:.0f} clouds/s ({times}){skipped}"

    def write(self, step: int, values: dict[str, Any]) -> None:
        """One JSON line, and the scalars of it for TensorBoard and loggers."""
        if self.file is None:
            return
        scalars = {name: value for name, value in values.items() if isinstance(value, int | float)}
        for log in list(self.loggers):
            try:
                log(dict(scalars), step=step)
            except Exception as error:  # of somebody else's code, which must not end a run
                self.loggers.remove(log)
                warn(self.console, f"log: a logger failed and gets no more: {first_line(error)}")
        self.pending += json.dumps({"step": step, **values}).encode() + b"\n"
        try:
            while self.pending:
                self.pending = self.pending[self.file.write(self.pending) :]
        except OSError as error:
            self._say_failed(f"{self.path} cannot be written: {error.strerror or error}; lines wait")
        if self.curves is None:
            return
        try:
            self.curves.add(step, scalars)
        except OSError as error:
            with suppress(OSError):
                self.curves.file.close()
            self.curves = None  # what was cut off cannot be continued
            self._say_failed(f"the curves end here: {error.strerror or error}")

    def _say_failed(self, text: str) -> None:
        if not self.failed:
            warn(self.console, f"log: {text}")
        self.failed = True

    def close(self) -> None:
        """Flush what is written to the disk."""
        for file in (self.file, None if self.curves is None else self.curves.file):
            if file is not None:
                with suppress(OSError):
                    os.fsync(file.fileno())
                with suppress(OSError):
                    file.close()


def log_function(logger: Any) -> Callable[..., Any]:
    """What a logger is called by: its method `log`, or itself. Raises InputError."""
    function = getattr(logger, "log", logger)
    if not callable(function):
        raise InputError(f"loggers must have a method log(values, step), got {type(logger).__name__}")
    return function


def _step_of(line: str) -> float:
    """Step of a line of the log, infinite for one that was cut off."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return math.inf
