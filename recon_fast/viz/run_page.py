"""`recon-fast report`: runs as one page, which can follow them while they go on.

A run's folder is read as far as it goes: a file that is cut off or absent tells less.
"""

import csv
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median_high
from typing import Any, TypedDict

import numpy as np
import yaml
from numpy.typing import NDArray
from rich.console import Console

from recon_fast.checkpoint.training import list_checkpoints
from recon_fast.config import ReportConfig
from recon_fast.config.compare import flatten
from recon_fast.console import say, warn
from recon_fast.errors import InputError
from recon_fast.schema import parse_json, read_json
from recon_fast.tasks.embed import load
from recon_fast.tasks.table import merged
from recon_fast.viz.clouds import Picked, pick_clouds, thumbnails
from recon_fast.viz.html import packed, page, write_page

_FILES = ("metrics.jsonl", "run.json", "config.yaml", "result.json")
_MOST_POINTS = 2000  # of a curve; more are averaged
_FIRST = ("loss", "mdm", "csc_img", "csc_text", "smc")
_LAST = ("lr", "grad_norm", "step_ms", "data_ms", "clouds_per_s", "skipped")
_SILENT = 900  # seconds without a line after which a run may be dead


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
    def last(self) -> dict[str, Any]:
        """The newest start."""
        return self.starts[-1] if self.starts else {}


def read_run(path: Path) -> Run:
    """All that can be read of a run's folder.

    Raises:
        InputError: it is no folder of a run.
    """
    path = path.expanduser()
    log, record, settings, result = files = [path / name for name in _FILES]
    if not any(file.is_file() for file in files):
        raise InputError(f"run must be a folder with {', '.join(_FILES[:-1])} or {_FILES[-1]}, got {path}")
    run = Run(path.resolve().name, path, rows=read_metrics(log))
    with suppress(OSError, ValueError, RecursionError, yaml.YAMLError):
        config = yaml.safe_load(settings.read_text(encoding="utf-8"))
        run.config = flatten(config) if isinstance(config, dict) else {}
    with suppress(InputError):
        run.starts = read_json(record, _Record, "a record")["starts"]
    with suppress(InputError):
        run.result = read_json(result, dict[str, Any], "a record")
    found = ((record, run.starts), (result, run.result))
    run.unread = [file.name for file, content in found if not content and file.is_file()]
    with suppress(OSError):
        run.age = time.time() - log.stat().st_mtime
    with suppress(OSError, ValueError, StopIteration, csv.Error):
        run.classes, run.confusion = _read_confusion(path / "confusion.csv")
    return run


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Lines of a log that have a step, each with its numbers; one that is being written is left out."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    rows = []
    for line in text.splitlines():
        with suppress(InputError):
            row = parse_json(line, _Row, "a line of the log")
            rows.append({key: value for key, value in row.items() if value is None or _is_number(value)})
    return rows


def _is_number(value: Any) -> bool:
    """Whether a value is a number that a real one can stand for."""
    return isinstance(value, float) or (type(value) is int and abs(value) < 2**53)


def _read_confusion(path: Path) -> tuple[list[str], list[list[int]]]:
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
    rows = [row for run in runs for row in run.rows]
    names = dict.fromkeys(name for row in rows for name, value in row.items() if value is not None)
    middle = [name for name in names if name not in ("step", "epoch", *_FIRST, *_LAST)]
    return [*(n for n in _FIRST if n in names), *middle, *(n for n in _LAST if n in names)]


def curve(run: Run, name: str) -> tuple[list[int], list[float]]:
    """Steps and values of one curve, neighbours averaged where there are more than 2000."""
    points = [(row["step"], float(row[name])) for row in run.rows if row.get(name) is not None]
    width = -(-len(points) // _MOST_POINTS)
    if width > 1:
        parts = [points[i : i + width] for i in range(0, len(points), width)]
        points = [(part[-1][0], sum(value for _, value in part) / len(part)) for part in parts]
    return [step for step, _ in points], [float(f"{value:.6g}") for _, value in points]


def differences(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Settings that are not the same in all runs, with the value of each; "" where a run has none."""
    keys = dict.fromkeys(key for run in runs for key in run.config)
    rows = [(key, [_text(run.config.get(key, "")) for run in runs]) for key in keys if key != "out"]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def _text(setting: Any) -> str:
    return "null" if setting is None else str(setting)


def report(paths: Sequence[Path], config: ReportConfig, console: Console) -> Path:
    """Write the page, with `follow` again and again until all runs have ended; returns its path.

    Raises:
        InputError: a folder is of no run, or the page cannot be written.
    """
    places: dict[str, Any] | None = None
    problem: str | None = None
    mapped: Path | None = None
    while True:
        runs = [read_run(path) for path in paths]
        checkpoints = list_checkpoints(runs[0].path) if config.data is not None else []
        if config.data is not None and not checkpoints:
            problem = "No map of embeddings: the run has no checkpoint yet."
        elif checkpoints and checkpoints[-1] != mapped:
            mapped = checkpoints[-1]
            say(console, f"embedding shapes of {config.data} by {mapped}")
            try:
                places, problem = embedding_map(mapped, config), None
            except InputError as error:
                places, problem = None, f"No map of embeddings: {error}"
                warn(console, problem)
        reload = config.follow if any(run.ended is None for run in runs) else 0
        written = write_page(config.out, run_page(runs, places, problem, reload))
        if not reload:
            return written
        steps = ", ".join(f"{run.name} at step {_step(run)}" for run in runs)
        say(console, f"wrote {written}: {steps}; again in {config.follow:g} s, Ctrl-C ends")
        time.sleep(config.follow)


def run_page(
    runs: Sequence[Run], places: dict[str, Any] | None, problem: str | None = None, reload: float = 0
) -> str:
    """The HTML of runs.

    Args:
        runs: in the order of their colours.
        places: from `embedding_map`.
        problem: why there are none.
        reload: seconds after which an open page reloads itself; 0 for never.
    """
    names = curve_names(runs)
    curves = {name: [curve(run, name) for run in runs] for name in names}
    curves = {name: found for name, found in curves.items() if any(len(steps) > 1 for steps, _ in found)}
    confused = [run for run in runs if run.classes]
    data = {
        "runs": [run.name for run in runs],
        "curves": curves,
        "map": places,
        "reload": reload,
        "confusion": [{"run": run.name, "classes": run.classes, "counts": run.confusion} for run in confused],
    }
    return page(
        "run.html",
        "Run " + runs[0].name if len(runs) == 1 else f"{len(runs)} runs",
        data=data,
        scripts=["thumbs.js", "run.js"],
        plotly=True,
        now=datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        problem=problem,
        overview=_overview(runs),
        probes=_probes(runs, [name for name in names if name.startswith("probe_")]),
        results=_results(runs),
        settings=[(run.name, [(key, _text(value)) for key, value in run.config.items()]) for run in runs],
        differences=[(key, *values) for key, values in differences(runs)],
        hardware=_hardware(runs),
    )


def _step(run: Run) -> int:
    return max((int(row["step"]) for row in run.rows), default=0)


def _seconds(value: float) -> str:
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def _state(run: Run) -> str:
    """How a run ended, or that it goes on; a process that was killed has left no word."""
    if run.unread:
        return f"damaged: {', '.join(run.unread)}"
    if run.ended is not None:
        return run.ended
    return "going on" if run.age is None or run.age < _SILENT else f"silent for {_seconds(run.age)}"


def _overview(runs: Sequence[Run]) -> list[tuple[Any, ...]]:
    rows = []
    for run in runs:
        losses = [row["loss"] for row in run.rows if row.get("loss") is not None]
        speed = [row["clouds_per_s"] for row in run.rows if "clouds_per_s" in row]
        rows.append(
            (
                run.name,
                _state(run),
                _step(run),
                f"{losses[-1]:.4g}" if losses else "",
                f"{median_high(speed):.0f}" if speed else "",
                _seconds(sum(start.get("wall_seconds") or 0 for start in run.starts)) if run.starts else "",
                run.last.get("data", {}).get("name", ""),
                "random" if run.last.get("teacher", {}).get("weights") == "random" else "",
            )
        )
    return rows


def _probes(runs: Sequence[Run], names: Sequence[str]) -> list[tuple[Any, ...]]:
    """A header, and a line for each step that has a probe."""
    header = ("run", "step", *(f"{name.removeprefix('probe_').replace('_', ' ')}, %" for name in names))
    rows = [
        (run.name, row["step"], *(f"{row[n]:.1f}" if row.get(n) is not None else "" for n in names))
        for run in runs
        for row in run.rows
        if any(name in row for name in names)
    ]
    return [header, *rows] if names else []


def _results(runs: Sequence[Run]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for run in runs:
        with suppress(InputError):  # none yet, of another version, or being written
            rows += merged([run.path])
    return rows


def _hardware(runs: Sequence[Run]) -> list[tuple[Any, ...]]:
    columns = []
    for run in runs:
        machine, git = run.last.get("machine") or {}, run.last.get("git") or {}
        energy = run.last.get("energy_joules") or {}
        gpus = [f"{gpu.get('name')}, {gpu.get('memory_gib')} GiB" for gpu in machine.get("gpus") or []]
        columns.append(
            {
                "device": machine.get("device"),
                "GPUs": "; ".join(gpus) or "none",
                "processor": machine.get("processor"),
                "cores, threads": f"{machine.get('cores')}, {machine.get('threads')}",
                "processes": machine.get("processes"),
                "system": machine.get("system"),
                "peak memory, MiB": run.last.get("peak_memory_mib"),
                "energy, J": "; ".join(f"{k} {v:.0f}" for k, v in energy.items() if v is not None) or None,
                "versions": ", ".join(f"{k} {v}" for k, v in (run.last.get("versions") or {}).items() if v),
                "commit": str(git.get("commit", ""))[:12] + (" with changes" if git.get("changed") else ""),
                "starts": "; ".join(
                    f"{start.get('began', '')[:19]} steps {start.get('from_step')} to {start.get('to_step')}"
                    f" ({start.get('end') or 'going on'})"
                    for start in run.starts
                ),
            }
        )
    return [(key, *(column[key] for column in columns)) for key in columns[0]]


def layouts(features: NDArray[np.floating]) -> tuple[dict[str, NDArray[np.float64]], str]:
    """Positions [S, 2] by name of the method, and a line on how much of the variance PCA keeps.

    Args:
        features: [S, D], S of at least 4.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    features = np.asarray(features, np.float64)
    pca = PCA(2, svd_solver="full").fit(features)
    found = {"PCA": pca.transform(features)}
    note = f"the two PCA axes keep {100 * float(pca.explained_variance_ratio_.sum()):.0f} % of the variance"
    perplexity = min(30.0, (len(features) - 1) / 3)
    found["t-SNE"] = TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(features)
    try:
        from umap import UMAP
    except ImportError:
        return found, note
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # UMAP warns that a seed takes its threads
        found["UMAP"] = UMAP(n_neighbors=min(15, len(features) - 1), random_state=0).fit_transform(features)
    return found, note


def embedding_map(checkpoint: Path, config: ReportConfig) -> dict[str, Any]:
    """Data for run.js: positions, names, classes and thumbnails of the shapes of `config.data`.

    Raises:
        InputError: the checkpoint or the data cannot be used, or fewer than 4 shapes can be.
    """
    assert config.data is not None
    encoder = load(checkpoint, config.device)
    picked, _ = pick_clouds([config.data], config.count, config.kind, config.up)
    return map_data(picked, encoder.embed([np.array(cloud.points) for cloud in picked]), checkpoint.name)


def map_data(picked: list[Picked], features: NDArray[np.floating], checkpoint: str) -> dict[str, Any]:
    """Data for run.js of clouds and their features [S, D]."""
    if len(picked) < 4:
        raise InputError(f"data must have at least 4 shapes for a map, got {len(picked)}")
    if not np.isfinite(features).all():
        raise InputError("features must be finite for a map: the model has diverged")
    places, note = layouts(features)
    classes = sorted({cloud.label or "" for cloud in picked})
    return {
        "checkpoint": checkpoint,
        "note": note,
        "names": [cloud.name for cloud in picked],
        "captions": [cloud.caption or "" for cloud in picked],
        "classes": classes,
        "labels": [classes.index(cloud.label or "") for cloud in picked],
        "places": {name: packed(np.asarray(xy, np.float32), "f4") for name, xy in places.items()},
        "thumbnails": thumbnails([cloud.points for cloud in picked]),
    }
