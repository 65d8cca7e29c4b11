"""`recon-fast report`: runs as one page, which can follow them while they go on."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from rich.console import Console

from recon_fast.checkpoint.training import list_checkpoints
from recon_fast.config import ReportConfig
from recon_fast.console import say
from recon_fast.errors import InputError
from recon_fast.tasks.table import read_result
from recon_fast.viz.embedding_map import embedding_map
from recon_fast.viz.html import page, table, write_page
from recon_fast.viz.run_log import Run, curve, curve_names, differences, read_run

_SILENT = 900  # seconds without a line after which a run may be dead
_CURVES = """
<div class="controls"><span id="legend"></span>
<label><input type="checkbox" id="log"> logarithmic</label>
<label>smoothing <input type="range" id="smooth" min="0" max="0.95" step="0.05" value="0"></label></div>
<div class="grid" id="curves" style="--cell:340px;--tall:230px"></div>
"""
_MAP = """
<h2>Map of embeddings</h2><p class="soft" id="map-note"></p>
<div class="controls"><label>layout <select id="layout"></select></label>
<label>class <select id="class"></select></label>
<label>shape <input type="range" id="shape" min="0" value="0" step="1"></label></div>
<div class="card">
<div class="plot" id="map" style="--tall:520px" role="img" aria-label="map of embeddings"></div></div>
<p id="shape-name" aria-live="polite"></p>
<figure class="card float" id="hover" aria-hidden="true"><canvas></canvas><figcaption></figcaption></figure>
"""


def report(paths: Sequence[Path], config: ReportConfig, console: Console) -> Path:
    """Write the page, with `follow` again and again until all runs have ended; returns its path.

    Raises:
        InputError: a folder is of no run, or the page cannot be written.
    """
    maps = _Maps(paths[0].expanduser(), config, console)
    while True:
        runs = [read_run(path) for path in paths]
        going = [run.name for run in runs if run.ended is None]
        reload = config.follow if going else 0
        written = write_page(config.out, run_page(runs, maps.newest(), maps.problem, reload))
        if not reload:
            return written
        steps = ", ".join(f"{run.name} at step {run.step}" for run in runs)
        say(console, f"wrote {written}: {steps}; again in {config.follow:g} s, Ctrl-C ends")
        time.sleep(config.follow)


class _Maps:
    """The map of embeddings by a run's newest checkpoint, made again when there is a newer one."""

    def __init__(self, run: Path, config: ReportConfig, console: Console) -> None:
        self.run, self.config, self.console = run, config, console
        self.checkpoint: Path | None = None
        self.data: dict[str, Any] | None = None
        self.problem: str | None = None

    def newest(self) -> dict[str, Any] | None:
        """Data for run.js; None without `data`, or where there is a `problem`."""
        checkpoints = list_checkpoints(self.run) if self.config.data is not None else []
        if self.config.data is not None and not checkpoints:
            self.problem = "No map of embeddings: the run has no checkpoint yet."
        elif checkpoints and checkpoints[-1] != self.checkpoint:
            self.checkpoint = checkpoints[-1]
            say(self.console, f"embedding shapes of {self.config.data} by {self.checkpoint}")
            try:
                self.data, self.problem = embedding_map(self.checkpoint, self.config), None
            except InputError as error:
                self.data, self.problem = None, f"No map of embeddings: {error}"
                say(self.console, self.problem, style="yellow")
        return self.data


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
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    parts = [f'<p class="soft">Written {now}. <span id="reload"></span></p>', _overview(runs)]
    parts += ["<h2>Curves</h2>", _CURVES if curves else "<p>Nothing is logged yet.</p>"]
    parts += [_probes(runs, names), _results(runs)]
    if places is not None:
        parts.append(_MAP)
    elif problem is not None:
        parts.append(f'<p class="note">{escape(problem)}</p>')
    confused = [run for run in runs if run.classes]
    if confused:
        parts += ["<h2>Confusion</h2>", '<div class="grid" id="confusion" style="--cell:460px"></div>']
    parts += [_settings(runs), _hardware(runs)]
    data = {
        "runs": [run.name for run in runs],
        "curves": curves,
        "map": places,
        "reload": reload,
        "confusion": [{"run": run.name, "classes": run.classes, "counts": run.confusion} for run in confused],
    }
    title = "Run " + runs[0].name if len(runs) == 1 else f"{len(runs)} runs"
    scripts = ["thumbs.js", "run.js"]
    return page(title, "".join(parts), data=data, scripts=scripts, plotly=True)


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


def _overview(runs: Sequence[Run]) -> str:
    rows = []
    for run in runs:
        last = run.starts[-1] if run.starts else {}
        losses = [row["loss"] for row in run.rows if isinstance(row.get("loss"), int | float)]
        speed = [row["clouds_per_s"] for row in run.rows if "clouds_per_s" in row]
        rows.append(
            (
                run.name,
                _state(run),
                run.step,
                f"{losses[-1]:.4g}" if losses else "",
                f"{sorted(speed)[len(speed) // 2]:.0f}" if speed else "",
                _seconds(sum(start.get("wall_seconds") or 0 for start in run.starts)) if run.starts else "",
                last.get("data", {}).get("name", ""),
                "random" if last.get("teacher", {}).get("weights") == "random" else "",
            )
        )
    header = ("run", "state", "step", "loss", "clouds/s, median", "time", "data", "teachers")
    return table(header, rows, numbers=(2, 3, 4))


def _probes(runs: Sequence[Run], names: Sequence[str]) -> str:
    names = [name for name in names if name.startswith("probe_")]
    if not names:
        return ""
    rows = [
        (run.name, row["step"], *(f"{row[n]:.1f}" if row.get(n) is not None else "" for n in names))
        for run in runs
        for row in run.rows
        if any(name in row for name in names)
    ]
    header = ("run", "step", *(f"{name.removeprefix('probe_').replace('_', ' ')}, %" for name in names))
    return "<h2>Probes over time</h2>" + table(header, rows, numbers=range(1, len(header)))


def _results(runs: Sequence[Run]) -> str:
    rows = []
    for run in runs:
        if run.result is not None:
            try:
                rows += [(row.task, *row.cells) for row in read_result(run.path)]
            except InputError:  # of another version, or being written
                continue
    header = ("task", "data", "result", "chosen by", "note", "run")
    return "<h2>Results</h2>" + table(header, rows, numbers=(2,)) if rows else ""


def _settings(runs: Sequence[Run]) -> str:
    names = [run.name for run in runs]
    parts = ["<h2>Settings</h2>"]
    if len(runs) > 1:
        rows = [(key, *values) for key, values in differences(runs)]
        parts.append(table(("differs", *names), rows) if rows else "<p>All runs have the same settings.</p>")
    for run in runs:
        rows = [(key, "null" if value is None else value) for key, value in run.config.items()]
        parts.append(
            f"<details><summary>all settings of {escape(run.name)}</summary>"
            f"{table(('setting', 'value'), rows)}</details>"
        )
    return "".join(parts)


def _hardware(runs: Sequence[Run]) -> str:
    columns = []
    for run in runs:
        last = run.starts[-1] if run.starts else {}
        machine, git = last.get("machine") or {}, last.get("git") or {}
        energy = last.get("energy_joules") or {}
        gpus = [f"{gpu.get('name')}, {gpu.get('memory_gib')} GiB" for gpu in machine.get("gpus") or []]
        commit = str(git.get("commit", ""))[:12] + (" with changes" if git.get("changed") else "")
        columns.append(
            {
                "device": machine.get("device"),
                "GPUs": "; ".join(gpus) or "none",
                "processor": machine.get("processor"),
                "cores, threads": f"{machine.get('cores')}, {machine.get('threads')}",
                "processes": machine.get("processes"),
                "system": machine.get("system"),
                "peak memory, MiB": last.get("peak_memory_mib"),
                "energy, J": "; ".join(f"{k} {v:.0f}" for k, v in energy.items() if v is not None) or None,
                "versions": ", ".join(f"{k} {v}" for k, v in (last.get("versions") or {}).items() if v),
                "commit": commit,
                "starts": "; ".join(
                    f"{start.get('began', '')[:19]} steps {start.get('from_step')} to {start.get('to_step')}"
                    f" ({start.get('end') or 'going on'})"
                    for start in run.starts
                ),
            }
        )
    rows = [(key, *(column[key] for column in columns)) for key in columns[0]]
    return "<h2>Hardware and versions</h2>" + table(("", *(run.name for run in runs)), rows)
