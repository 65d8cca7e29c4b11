"""`recon-fast inspect`: a data set as one page."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from recon_fast.config import InspectConfig
from recon_fast.console import ProgressBars, say
from recon_fast.data.open import say_notes
from recon_fast.data.shapes import Shapes, turned
from recon_fast.viz.clouds import spread
from recon_fast.viz.embedding_map import thumbnails
from recon_fast.viz.html import page, scrolling, table, write_page
from recon_fast.viz.inspection import Inspection, class_counts, inspect_data

_HOW = (
    "each shape votes for the axis along which it is least like its mirror image: {votes}. This is a guess, "
    "--data.up states it"
)
_MOST_ROWS = 200  # of a table
_BARS = 12  # of a histogram
_WALL = """
<h2>Wall</h2><p class="soft">{shown} of {total} shapes. Drag one to turn it, or the arrow keys.</p>
<div class="controls"><label>class <select id="class"></select></label></div>
<div class="grid" id="wall" style="--cell:110px"></div>
"""


def inspect(name: str, config: InspectConfig, console: Console) -> Path:
    """Look at a data set and write its page; returns the page's path.

    Raises:
        InputError: there is no such data set, or the page cannot be written.
    """
    with ProgressBars(console) as bars:
        found = inspect_data(name, config.kind, config.workers, bars.bar("reading shapes"))
    written = write_page(config.out, data_page(found, config.thumbnails))
    shapes = 0 if found.shapes is None else len(found.shapes)
    broken = len({problem.key for problem in found.problems})
    copies = sum(len(group) - 1 for group in found.duplicates)
    if found.shapes is not None:
        say_notes(found.shapes, console)
    say(console, f"{found.name}: {shapes} shapes, {broken} cannot be used, {copies} equal to another")
    return written


def data_page(found: Inspection, most: int = 240) -> str:
    """The HTML of an inspection, with at most `most` thumbnails."""
    shapes = found.shapes
    parts = [_warnings(found)]
    data: dict[str, Any] = {}
    if shapes is not None:
        parts.append(_overview(found))
    parts += [_problems(found), _duplicates(found)]
    if shapes is not None:
        parts += [_classes(shapes), "<h2>Points of a shape</h2>", histogram(found.sizes, "points")]
        parts += ["<h2>Radius</h2>", '<p class="soft">Distance of the farthest point from the origin.</p>']
        parts.append(histogram(found.radius, "radius"))
    if shapes is not None and most:
        rows = spread(np.arange(len(shapes)), most)
        parts.append(_WALL.format(shown=len(rows), total=len(shapes)))
        labels = None if shapes.labels is None else shapes.labels[rows]
        data = {
            "names": [shapes.keys[i] for i in rows],
            "captions": None if shapes.captions is None else [shapes.captions[i] for i in rows],
            "classes": None if labels is None else [shapes.class_names[label] for label in labels],
            "thumbnails": thumbnails([_upright(found, np.asarray(shapes.cloud(int(i)))) for i in rows]),
        }
    title = f"Data: {found.name}"
    return page(title, "".join(parts), data=data, scripts=["thumbs.js", "data.js"])


def _upright(found: Inspection, cloud: NDArray[np.floating]) -> NDArray[np.floating]:
    """A cloud with the axis that is up, as stated or else as guessed, turned to y."""
    stated = found.shapes.conventions.up if found.shapes is not None else "unknown"
    up = found.up if stated == "unknown" else stated
    return turned(cloud, "xyz".index(up), 1) if up in ("x", "z") else cloud


def _range(values: NDArray[Any]) -> str:
    return f"{values.min():.6g} to {values.max():.6g}, median {np.median(values):.6g}"


def _overview(found: Inspection) -> str:
    shapes = found.shapes
    assert shapes is not None
    validation = 0 if shapes.validation is None else int(shapes.validation.sum())
    held = int(shapes.held_out.sum())
    sizes, radius = found.sizes, found.radius
    shares = zip("xyz", found.up_votes, strict=True)
    votes = ", ".join(f"{axis} {100 * share:.0f} %" for axis, share in shares)
    split = f"{len(shapes) - held - validation} to train on, {validation} for validation, {held} held out"
    middle, most = 100 * np.median(found.offset), 100 * found.offset.max()
    rows = [
        ("shapes", f"{len(shapes)}: {split}"),
        ("points of a shape", _range(sizes)),
        ("radius", f"{_range(radius)} ({shapes.conventions.scale})"),
        ("centre", f"off the origin by {middle:.1f} % of the radius (median), at most {most:.0f} %"),
        ("up axis, stated", shapes.conventions.up),
        ("up axis, guessed", f"{found.up or 'none, the shapes do not agree'}; {_HOW.format(votes=votes)}"),
        ("classes", len(shapes.class_names) if shapes.labels is not None else "no labels"),
        ("captions", "none" if shapes.captions is None else f"{len(set(shapes.captions))} different"),
        ("pictures", "none" if shapes.pictures is None else "of every shape"),
        ("parts", "none" if shapes.parts is None else "of every point"),
    ]
    return table(("what", "found"), rows)


def _warnings(found: Inspection) -> str:
    """What to look at before training."""
    notes = []
    if found.problems:
        notes.append(f"{len({p.key for p in found.problems})} shapes cannot be used, see below.")
    if across := found.across():
        notes.append(f"{len(across)} groups of equal shapes lie on both sides of the split, see below.")
    shapes = found.shapes
    notes += [] if shapes is None else [f"{note[:1].upper()}{note[1:]}." for note in shapes.notes]
    if shapes is not None and found.up and shapes.conventions.up not in ("unknown", found.up):
        notes.append(f"{shapes.conventions.up} is stated to be up, the shapes look as if {found.up} were.")
    if shapes is not None and shapes.conventions.up == "unknown":
        notes.append("Which axis is up is not known; training and checkpoints want to know it: --data.up.")
    return "".join(f'<p class="note">{escape(note)}</p>' for note in notes)


def histogram(values: NDArray[Any], what: str) -> str:
    """A table of at most 12 ranges with bars; single values where there are few."""
    values = np.asarray(values)
    single = np.unique(values)
    if len(single) <= _BARS:
        rows = [(f"{value:.6g}", int((values == value).sum())) for value in single]
    else:
        edges = np.histogram_bin_edges(values, _BARS)
        if values.min() > 0 and values.max() > 100 * values.min():
            edges = np.geomspace(values.min(), values.max(), _BARS + 1)
        edges[0], edges[-1] = values.min(), values.max()
        counts = np.histogram(values, edges)[0]
        rows = [
            (f"{low:.4g} to {high:.4g}", int(count))
            for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
        ]
    return bars((what, "shapes"), [(name, (count,)) for name, count in rows])


def bars(header: Sequence[str], rows: Sequence[tuple[str, Sequence[int]]]) -> str:
    """A table with a bar for the sum of each row's counts."""
    most = max((sum(counts) for _, counts in rows), default=1) or 1
    lines = []
    for name, counts in rows:
        cells = "".join(f'<td class="number">{count}</td>' for count in counts)
        share = sum(counts) / most
        bar = f'<td><span class="bar" style="width:calc({share:.4f} * var(--wide-bar))"></span></td>'
        lines.append(f"<tr><td>{escape(name)}</td>{cells}{bar}</tr>")
    head = "".join(
        f'<th scope="col"{" class=number" if i else ""}>{escape(text)}</th>' for i, text in enumerate(header)
    )
    return scrolling(f"{head}<th></th>", "".join(lines), "table with bars")


def _classes(shapes: Shapes) -> str:
    counts = class_counts(shapes)
    if not counts:
        return ""
    rows = [(name, (train, test)) for name, train, test in counts]
    return "<h2>Classes</h2>" + bars(("class", "to train on", "held out"), rows)


def _more(count: int) -> str:
    return f"<p>and {count - _MOST_ROWS} more</p>" if count > _MOST_ROWS else ""


def _duplicates(found: Inspection) -> str:
    shapes = found.shapes
    if shapes is None:
        return ""
    if not found.duplicates:
        return "<h2>Equal shapes</h2><p>None: no two are equal to the bit.</p>"
    rows = []
    for group in found.duplicates[:_MOST_ROWS]:
        held = {bool(shapes.held_out[i]) for i in group}
        side = "both sides of the split" if len(held) > 1 else "held out" if True in held else "to train on"
        names = ", ".join(shapes.keys[i] for i in group[:8])
        more = f" and {len(group) - 8} more" if len(group) > 8 else ""
        rows.append((len(group), side, names + more))
    head = f"<h2>Equal shapes</h2><p>{len(found.duplicates)} groups that are equal to the bit.</p>"
    return head + table(("shapes", "where", "which"), rows, numbers=(0,)) + _more(len(found.duplicates))


def _problems(found: Inspection) -> str:
    if not found.problems:
        return "<h2>Broken files</h2><p>None.</p>"
    rows = [(problem.key, problem.file, problem.what) for problem in found.problems[:_MOST_ROWS]]
    head = f"<h2>Broken files</h2><p>{len(found.problems)} problems.</p>"
    return head + table(("shape", "file", "problem"), rows) + _more(len(found.problems))
