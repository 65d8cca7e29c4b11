"""Turn results into a table and a plot: `python -m benchmarks.report FILE... [--out DIR]`.

Reads the JSON of `pytest --benchmark-json` and that of `python -m benchmarks.gpu`. The Markdown table goes
to stdout; with --out, report.md and report.html go into a folder. "ratio" is a provider's median over ours at
the same input: above 1 ours is faster, below 1 it is slower.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.rows import read
from benchmarks.scaling import fit_exponent

OURS = "ours"
Row = dict[str, Any]
_KEY = ("operator", "shape", "data", "pass")


@dataclass
class Results:
    """Rows of one run, with where they come from."""

    head: dict[str, Any]
    rows: list[Row]
    tests: dict[str, Any] | None = None
    left_out: list[str] = field(default_factory=list)


def load(path: Path) -> Results:
    """Results of either kind of file.

    Raises:
        ValueError: the file is neither.
    """
    if path.suffix == ".jsonl":  # of a run of benchmarks.gpu that was ended
        head = json.loads(path.read_text().partition("\n")[0]).get("head", {})
        return Results(head, read(path)[0])
    content = json.loads(path.read_text())
    if not isinstance(content, dict):
        content = {}
    if "rows" in content:
        return Results(content["head"], content["rows"], content.get("tests"), content.get("left_out", []))
    if "benchmarks" not in content:
        raise ValueError(f"{path}: wanted the JSON of pytest-benchmark or of benchmarks.gpu")
    machine, commit = content.get("machine_info", {}), content.get("commit_info", {})
    head = machine.get("recon_fast") or {
        "when": content.get("datetime"),
        "cpu": machine.get("cpu", {}).get("brand_raw"),
        "versions": {"python": machine.get("python_version")},
        "commit": commit.get("id"),
        "dirty": commit.get("dirty"),
    }
    return Results(head, [_from_pytest(entry) for entry in content["benchmarks"]])


def _from_pytest(entry: dict[str, Any]) -> Row:
    stats = entry["stats"]
    row = dict(entry.get("extra_info", {}))
    if "provider" not in row:  # a benchmark without contenders: the training step, reading data
        name = entry["name"].partition("[")[0].removeprefix("test_").replace("_", " ")
        row = {"operator": name, "shape": entry.get("param") or "", "data": "", "pass": ""} | row
        row["provider"] = OURS
    return row | {
        "median": stats["median"],
        "low": stats["q1"],
        "high": stats["q3"],
        "rounds": stats["rounds"],
    }


def groups(rows: list[Row]) -> Iterator[tuple[tuple[str, ...], list[Row]]]:
    """Rows of the same input, in the order they came."""
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(str(row.get(name, "")) for name in _KEY), []).append(row)
    return iter(found.items())


def ratios(rows: list[Row]) -> list[float | None]:
    """Each row's median over ours; None for ours and where ours was not measured."""
    ours = next((row["median"] for row in rows if row["provider"] == OURS), None)
    return [None if ours is None or row["provider"] == OURS else row["median"] / ours for row in rows]


def exponents(rows: list[Row]) -> list[tuple[str, str, float, float, list[int]]]:
    """(series, provider, exponent, worst factor off the fit, sizes) of the rows that belong to a series."""
    series: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.get("series"):
            series.setdefault((row["series"], row["provider"]), []).append(row)
    lines = []
    for (name, provider), members in series.items():
        sizes = [row["size"] for row in members]
        if len(set(sizes)) > 1:
            lines.append((name, provider, *fit_exponent(sizes, [row["median"] for row in members]), sizes))
    return lines


def duration(seconds: float) -> str:
    """Three digits, in µs, ms or s."""
    for factor, unit in ((1e6, "µs"), (1e3, "ms")):
        if seconds * factor < 999.5:
            return f"{seconds * factor:#.3g} {unit}".replace(". ", " ")
    return f"{seconds:#.3g} s".replace(". ", " ")


def headline(head: dict[str, Any]) -> list[str]:
    """Hardware, versions and commit, as lines of text."""
    device = head.get("cpu") or "unknown CPU"
    if head.get("threads"):
        device += f", {head['threads']} threads"
    if (head.get("load") or 0) > 0.5:
        device += f", other work on it at the start (load {head['load']})"
    if head.get("gpu"):
        device = f"{head['gpu']} (driver {head.get('driver')}, CUDA {head.get('cuda')}), {device}"
    versions = ", ".join(f"{name} {number}" for name, number in (head.get("versions") or {}).items())
    commit = str(head.get("commit") or "unknown")[:12]
    dirty = " with uncommitted changes" if head.get("dirty") else ""
    return [device, versions, f"commit {commit}{dirty}, {head.get('when') or 'undated'}"]


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _line(*cells: Any) -> str:
    return f"| {' | '.join(map(_cell, cells))} |"


def markdown(results: Results) -> str:
    """Everything that was measured, losses as plain as wins."""
    lines = [f"{line}  " for line in headline(results.head)]
    if results.tests:
        lines += [f"tests: {results.tests.get('outcome', 'not run')}  "]
    on_gpu = any(row.get("kernel_seconds") for row in results.rows)
    columns = ["operator", "shape", "data", "pass", "provider", "median", "quartiles", "ratio", "memory"]
    columns += ["on the GPU"] if on_gpu else []
    lines += ["", _line(*columns), "|" + "---|" * 5 + "--:|" * (len(columns) - 5)]
    for key, rows in groups(results.rows):
        for row, ratio in zip(rows, ratios(rows), strict=True):
            name = f"{row['provider']} ({row['setting']})" if row.get("setting") else row["provider"]
            memory = row.get("memory_mib")
            cells = [*key, name, duration(row["median"])]
            cells += [f"{duration(row['low'])} to {duration(row['high'])}" if "low" in row else ""]
            cells += ["" if ratio is None else f"{ratio:.2f}", "" if memory is None else f"{memory:.1f} MiB"]
            if on_gpu:
                cells.append(duration(row["kernel_seconds"]) if row.get("kernel_seconds") else "")
            lines.append(_line(*cells))
    lines += ["", *_losses(results.rows)]
    fits = exponents(results.rows)
    if fits:
        lines += ["", _line("series", "provider", "exponent", "off the fit at most", "sizes")]
        lines += ["|---|---|--:|--:|---|"]
        lines += [
            _line(name, provider, f"{p:.2f}", f"{off:.2f} times", f"{min(sizes)} to {max(sizes)}")
            for name, provider, p, off, sizes in fits
        ]
    if results.left_out:
        lines += ["", "left out:", *(f"- {text}" for text in results.left_out)]
    return "\n".join(lines)


def _losses(rows: list[Row]) -> list[str]:
    """Inputs at which someone else is faster."""
    compared, lost, factors = 0, [], []
    # Of a sweep, another launch of ours that is faster is what was looked for.
    for key, members in groups([row for row in rows if not row["operator"].startswith("sweep ")]):
        found = [(r, row) for r, row in zip(ratios(members), members, strict=True) if r is not None]
        if found:
            best, row = min(found, key=lambda pair: pair[0])
            compared += 1
            factors.append(best)
            if best < 1:
                lost.append(f"- {', '.join(filter(None, key))}: {row['provider']}, ratio {best:.2f}")
    if not compared:
        return []
    typical = f"median ratio of the best other {statistics.median(factors):.2f}"
    end = "; slower at:" if lost else ""
    return [f"ours is the fastest at {compared - len(lost)} of {compared} inputs, {typical}{end}", *lost]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Table and plot of benchmark results.")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--out", type=Path, help="folder for report.md and report.html")
    options = parser.parse_args(arguments)
    try:
        every = [load(path) for path in options.files]
    except (OSError, ValueError) as error:
        sys.exit(f"benchmarks.report: {error}")
    text = "\n\n".join(markdown(results) for results in every)
    print(text)
    if options.out:
        from benchmarks.plot import page

        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "report.md").write_text(text + "\n", encoding="utf-8")
        (options.out / "report.html").write_text(page(every), encoding="utf-8")
        print(f"\nwrote {options.out / 'report.md'} and {options.out / 'report.html'}", file=sys.stderr)


if __name__ == "__main__":
    main()
