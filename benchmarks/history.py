"""One device's results over commits: how ours and its ratio to the best other moved, input by input."""

from dataclasses import dataclass
from html import escape
from typing import Any

from benchmarks.report import OURS, Results, duration, groups, ratios


@dataclass
class Point:
    """Ours at one input, in one results file."""

    median: float  # seconds
    ratio: float | None  # of the fastest other provider; None where there is none


def device(results: Results) -> str:
    """What results are compared within: the GPU, or the CPU and its threads."""
    head = results.head
    if head.get("gpu"):
        return str(head["gpu"])
    cpu = head.get("cpu") or "unknown CPU"
    return f"{cpu}, {head['threads']} threads" if head.get("threads") else cpu


def by_device(every: list[Results]) -> dict[str, list[Results]]:
    """Results of each device, the oldest first."""
    found: dict[str, list[Results]] = {}
    for results in sorted(every, key=lambda results: str(results.head.get("when") or "")):
        found.setdefault(device(results), []).append(results)
    return found


def points(results: Results) -> dict[tuple[str, ...], Point]:
    """Ours at each input of a results file."""
    found = {}
    for key, rows in groups(results.rows):
        ours = [row["median"] for row in rows if row["provider"] == OURS]
        if ours:
            others = [ratio for ratio in ratios(rows) if ratio is not None]
            found[key] = Point(ours[0], min(others) if others else None)
    return found


def history(every: list[Results]) -> list[tuple[tuple[str, ...], list[Point | None]]]:
    """Inputs that at least two results files of a device have, with ours in each file."""
    columns = [points(results) for results in every]
    keys = dict.fromkeys(key for column in columns for key in column)
    rows = [(key, [column.get(key) for column in columns]) for key in keys]
    return [(key, row) for key, row in rows if sum(point is not None for point in row) > 1]


def commit(results: Results) -> str:
    """Date and commit, as the head of a column."""
    head: dict[str, Any] = results.head
    dirty = "+" if head.get("dirty") else ""
    return f"{str(head.get('when') or 'undated')[:10]} {str(head.get('commit') or 'unknown')[:7]}{dirty}"


def _name(key: tuple[str, ...]) -> str:
    return escape(", ".join(filter(None, key)))


def overview(every: list[Results]) -> str:
    """HTML: the newest ratio of each input of a device, as bars around 1, the losses first."""
    newest: dict[tuple[str, ...], float] = {}
    for results in every:
        newest |= {key: point.ratio for key, point in points(results).items() if point.ratio is not None}
    if not newest:
        return ""
    parts = ['<div class="wide" tabindex="0"><table><thead>']
    parts.append("<tr><th>input</th><th>ratio</th><th></th></tr></thead><tbody>")
    most = max(*newest.values(), 2.0)
    for key, ratio in sorted(newest.items(), key=lambda pair: pair[1]):
        kind = "" if ratio >= 1 else " class='lost'"
        bar = f"<i{kind} style='width:{12 * ratio / most:.2f}rem'></i>"
        parts.append(f"<tr><td>{_name(key)}</td><td>{ratio:.2f}</td><td>{bar}</td></tr>")
    lost = sum(ratio < 1 for ratio in newest.values())
    head = f"<h3>Ratios: the fastest other over ours, slower at {lost} of {len(newest)} inputs</h3>"
    return head + "".join(parts) + "</tbody></table></div>"


def table(every: list[Results]) -> str:
    """HTML: ours over the results files of a device, and the change since the one before; "" for one file."""
    rows = history(every)
    if not rows:
        return ""
    names = "".join(f"<th>{escape(commit(results))}</th>" for results in every)
    parts = ['<h3>History of ours</h3><div class="wide" tabindex="0"><table><thead>']
    parts.append(f"<tr><th>input</th>{names}</tr></thead><tbody>")
    for key, line in rows:
        parts.append(f"<tr><td>{_name(key)}</td>")
        before: Point | None = None
        for point in line:
            parts.append(f"<td>{_cell(point, before)}</td>")
            before = point or before
        parts.append("</tr>")
    return "".join(parts) + "</tbody></table></div>"


def _cell(point: Point | None, before: Point | None) -> str:
    if point is None:
        return ""
    text = duration(point.median)
    if before is not None:
        change = 100 * (point.median / before.median - 1)
        kind = "lost" if change > 5 else "won" if change < -5 else ""
        text += f' <b class="{kind}">{change:+.0f} %</b>'
    return text + ("" if point.ratio is None else f", ratio {point.ratio:.2f}")
