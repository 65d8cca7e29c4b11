"""`--seeds 0..7`: a task once for each seed, one after another, and the mean of the results.

<run>/config.yaml          settings, with the seeds
<run>/seed-0/, seed-1/     each is a run of the task
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from recon_fast.config.compare import FREE_OF_SEEDS
from recon_fast.console import say
from recon_fast.errors import InputError
from recon_fast.schema import read_yaml
from recon_fast.tasks.table import merged
from recon_fast.training.folder import check_same_config, keep_config, locked, open_run

_MOST = 1000


@dataclass
class SeedsResult:
    """How the runs ended."""

    run: Path  # the folder that holds them
    stopped_by: str | None = None


def read_seeds(text: str) -> list[int]:
    """The seeds of "0..7", "0,3,5" or "0..3,7". Raises InputError unless they are two or more, and differ."""
    seeds: list[int] = []
    for part in text.split(","):
        ends = re.fullmatch(r"\s*(\d{1,18})(?:\.\.(\d{1,18}))?\s*", part)
        if ends is None:
            seeds = []
            break
        first, last = int(ends[1]), int(ends[2] or ends[1])
        seeds += range(first, min(last, first + _MOST) + 1)
    if not 1 < len(set(seeds)) == len(seeds) <= _MOST:
        raise InputError(
            f"seeds must be 2 to {_MOST} different ones, as 0..7 or 0,3,5, got {text} (--seed takes one)"
        )
    return seeds


def run_seeds(
    task: Callable[..., Any], config: Any, seeds: str, console: Console | None = None
) -> SeedsResult:
    """Run a task for each seed, in folders of their own, and print all results, their mean and deviation.

    Where `config.out` is a folder of seeds already, those that are done are not done again, and one that was
    interrupted continues.

    Args:
        task: `finetune`, `partseg`, `fewshot` or `svm_probe`.
        config: its settings; `seed` does not count.
        seeds: as of `read_seeds`.
        console: where lines, progress and the table go; stderr by default.

    Raises:
        InputError: wrong seeds, several processes, a folder of other things or settings; as `task`.
    """
    console, each = console or Console(stderr=True), read_seeds(seeds)
    processes = os.environ.get("WORLD_SIZE", "1")
    if processes != "1":
        raise InputError(
            f"seeds run in one process, got {processes} of torchrun: start a run for each --seed"
        )
    with _folder(config, seeds, console) as run:
        folders = [run / f"seed-{seed}" for seed in each]
        done = sum((folder / "result.json").is_file() for folder in folders)
        say(console, f"seeds {seeds}, {done} of {len(each)} done | run {run}")
        for seed, folder in zip(each, folders, strict=True):
            if (folder / "result.json").is_file():
                continue
            how: dict[str, Any] = {"resume": "auto"}
            if "resume" not in signature(task).parameters:
                how = {}
                shutil.rmtree(folder, ignore_errors=True)  # of a run that was interrupted
            result = task(replace(config, seed=seed, out=str(folder)), console=console, **how)
            if getattr(result, "stopped_by", None):
                return SeedsResult(run, result.stopped_by)
        table = Table("seed", *(row.data for row in merged(folders[:1])))
        for seed, folder in zip(each, folders, strict=True):
            table.add_row(str(seed), *(row.result for row in merged([folder])))
        table.add_section()
        table.add_row("mean", *(row.result for row in merged(folders)))
        console.print(table)
        return SeedsResult(run)


@contextmanager
def _folder(config: Any, seeds: str, console: Console) -> Iterator[Path]:
    """The folder of the seeds, locked meanwhile; one that is continued must be of the same settings."""
    out = None if config.out is None else Path(config.out).expanduser()
    if out is None or not (out / "config.yaml").is_file():
        with open_run(config, None, console) as (run, _):
            try:
                with keep_config(run, config, seeds=seeds):
                    pass
                yield run
            finally:
                if not any(run.glob("seed-*")):  # the first run could not start
                    (run / "config.yaml").unlink(missing_ok=True)
        return
    stored = read_yaml(out / "config.yaml")
    if stored.pop("seeds", None) is None:
        raise InputError(f"out must be a new folder or one of seeds, got {out}, the run of a single one")
    check_same_config(stored, config.to_dict(), out, FREE_OF_SEEDS)
    with locked(out):
        with keep_config(out, config, seeds=seeds):
            pass
        yield out
