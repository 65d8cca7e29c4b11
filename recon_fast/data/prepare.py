"""From a `DataConfig` to shapes in memory, with everything broken reported first."""

from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress, TaskID, TimeElapsedColumn

from recon_fast.config import DataConfig
from recon_fast.data.shapes import Shapes


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


def prepare_shapes(config: DataConfig, seed: int, console: Console) -> Shapes:
    """Load or make the shapes that `config` names.

    Raises:
        InputError: a missing or broken file, or a table of them (`DataProblems`) unless `on_problem` is
            "skip".
    """
    # Imported here: readers of one layout need not be loaded for another.
    from recon_fast.data.loading import load, open_source
    from recon_fast.data.packed import is_packed, read_packed

    with ProgressBars(console) as bars:
        if config.path is None:
            from recon_fast.data.procedural import procedural_shapes

            done = bars.bar("making procedural shapes")
            return procedural_shapes(config.shapes, seed, progress=lambda count: done(count, config.shapes))
        path = Path(config.path)
        if path.is_file() and is_packed(path):
            return read_packed(path, num_points=config.num_points)
        source = open_source(path, config.kind, held_out_fraction=config.held_out_fraction)
        shapes, _ = load(
            source,
            num_points=config.num_points,
            max_points=config.max_points,
            dtype=np.float16 if config.storage == "fp16" else np.float32,
            on_problem=config.on_problem,
            workers=config.workers,
            progress=bars.bar("reading shapes"),
        )
        return shapes


def fingerprint(shapes: Shapes) -> str:
    """Hex digest of the shapes' names, sizes and split: does a resumed run see the data it started with?"""
    digest = blake2b("\n".join(shapes.keys).encode(), digest_size=16)
    digest.update(shapes.offsets.tobytes())
    digest.update(shapes.held_out.tobytes())
    return digest.hexdigest()
