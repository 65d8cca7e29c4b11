"""What the folder of a run tells, finished or going on; a file that is cut off or absent tells less."""

import csv
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import yaml

from recon_fast.errors import InputError
from recon_fast.schema import parse_json, read_json
from recon_fast.training.folder import flatten

_MOST_POINTS = 2000  # of a curve; more are averaged
_FIRST = ("loss", "mdm", "csc_img", "csc_text", "smc")
_LAST = ("lr", "grad_norm", "step_ms", "data_ms", "clouds_per_s", "skipped")


class _Row(TypedDict):
    step: int


class _Machine(TypedDict, total=False):
    gpus: list[dict[str, Any]] | None


class _Start(TypedDict, total=False):
    """What of a start in run.json is shown, where it is there."""

    began: str
    end: str | None
    wall_seconds: float | None
    energy_joules: dict[str, float | None] | None
    peak_memory_mib: float | None
    versions: dict[str, Any] | None
    git: dict[str, Any] | None
    machine: _Machine | None
    data: dict[str, Any]
    teacher: dict[str, Any]


class _Record(TypedDict):
    starts: list[_Start]


@dataclass
class Run:
    """One run, read once."""

    name: str
    path: Path
    rows: list[dict[str, Any]] = field(default_factory=list)  # of metrics.jsonl, whole lines only
    config: dict[str, Any] = field(default_factory=dict)  # flat: {"optim.lr": ...}
    starts: list[dict[str, Any]] = field(default_factory=list)  # of run.json
    result: dict[str, Any] | None = None
    classes: list[str] = field(default_factory=list)  # of the confusion matrix
    confusion: list[list[int]] = field(default_factory=list)  # [C][C]: row = class, column = predicted
    age: float | None = None  # seconds since the last line
    unread: list[str] = field(default_factory=list)  # files that are there and damaged

    @property
    def ended(self) -> str | None:
        """How the newest start ended; None while it goes on, or where the process was killed."""
        return self.starts[-1].get("end") if self.starts else ("finished" if self.result else None)

    @property
    def step(self) -> int:
        """Step of the last line."""
        return max((int(row["step"]) for row in self.rows), default=0)


def read_run(path: Path) -> Run:
    """All that can be read of a run's folder.

    Raises:
        InputError: it is no folder of a run.
    """
    path = path.expanduser()
    files = ("metrics.jsonl", "run.json", "config.yaml", "result.json")
    if not any((path / name).is_file() for name in files):
        raise InputError(f"run must be a folder with {', '.join(files[:-1])} or {files[-1]}, got {path}")
    run = Run(path.resolve().name, path, rows=read_metrics(path / "metrics.jsonl"))
    with suppress(OSError, ValueError, RecursionError, yaml.YAMLError):
        config = yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))
        run.config = flatten(config) if isinstance(config, dict) else {}
    run.starts = (_json(path / "run.json", _Record) or {}).get("starts", [])
    run.result = _json(path / "result.json", dict[str, Any])
    run.unread = [
        name for name, found in (("run.json", run.starts), ("result.json", run.result)) if not found
    ]
    run.unread = [name for name in run.unread if (path / name).is_file()]
    with suppress(OSError):
        run.age = time.time() - (path / "metrics.jsonl").stat().st_mtime
    with suppress(OSError, ValueError, StopIteration, csv.Error):
        run.classes, run.confusion = read_confusion(path / "confusion.csv")
    return run


def _json(path: Path, schema: Any) -> Any:
    with suppress(InputError):
        return read_json(path, schema, "a record")
    return None


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Lines of a log that have a step; a line that is being written is left for the next time."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    rows = []
    for line in text.splitlines():
        with suppress(InputError):
            row = parse_json(line, _Row, "a line of the log")
            numbers = {k: v for k, v in row.items() if v is None or isinstance(v, float) or _small(v)}
            rows.append(numbers)
    return rows


def _small(value: Any) -> bool:
    """Whether a value is a whole number that a real one can stand for."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53


def read_confusion(path: Path) -> tuple[list[str], list[list[int]]]:
    """Class names and counts [C][C] of a confusion.csv.

    Raises:
        OSError, ValueError, StopIteration, csv.Error: there is none that can be read.
    """
    with path.open(encoding="utf-8", newline="") as file:
        lines = csv.reader(file)
        classes = next(lines)[1:]
        counts = [[int(cell) for cell in line[1:]] for line in lines]
    if [len(line) for line in counts] != [len(classes)] * len(classes):
        raise ValueError(f"{path} must have a row and a column for each class")
    return classes, counts


def curve_names(runs: Sequence[Run]) -> list[str]:
    """Names of everything that was logged: losses first, speed last."""
    names = dict.fromkeys(
        name
        for run in runs
        for row in run.rows
        for name, value in row.items()
        if name not in ("step", "epoch") and isinstance(value, int | float)
    )
    middle = [name for name in names if name not in (*_FIRST, *_LAST)]
    return [*(n for n in _FIRST if n in names), *middle, *(n for n in _LAST if n in names)]


def curve(run: Run, name: str) -> tuple[list[int], list[float]]:
    """Steps and values of one curve, neighbours averaged where there are more than 2000."""
    points = [(row["step"], float(row[name])) for row in run.rows if isinstance(row.get(name), int | float)]
    width = -(-len(points) // _MOST_POINTS)
    if width > 1:
        parts = [points[i : i + width] for i in range(0, len(points), width)]
        points = [(part[-1][0], sum(value for _, value in part) / len(part)) for part in parts]
    return [step for step, _ in points], [float(f"{value:.6g}") for _, value in points]


def differences(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Settings that are not the same in all runs, with the value of each; "" where a run has none."""
    keys = dict.fromkeys(key for run in runs for key in run.config)
    rows = [(key, [_text(run.config, key) for run in runs]) for key in keys if key != "out"]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def _text(config: dict[str, Any], key: str) -> str:
    return "null" if key in config and config[key] is None else str(config.get(key, ""))
