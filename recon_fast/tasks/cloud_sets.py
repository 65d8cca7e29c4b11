"""Clouds of any files, folders and packed sets, one after another, without holding them in memory."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from recon_fast.config.frozen import ReadingConfig
from recon_fast.console import ProgressBars, warn
from recon_fast.data.conventions import turn_up
from recon_fast.data.loading import DataProblems, Reading, read_clouds, read_each, stop_at_problems
from recon_fast.data.open import SETS, open_dataset, say_left_out, say_notes, stated_or_guessed
from recon_fast.data.packed import is_packed
from recon_fast.data.readers.clouds import FILES, is_one_cloud, up_of
from recon_fast.data.shapes import Conventions, Entry, Shapes, Source, join_shapes, turned
from recon_fast.errors import InputError

_FLAG = "--data.on_problem"


@dataclass
class CloudSet:
    """S clouds that are read when they are asked for."""

    shapes: Shapes  # all about them; `points` may be empty where `read` reads files
    read: Callable[[Sequence[int]], Iterator[NDArray]]  # rows -> clouds [N_i, 3] in that order

    def __len__(self) -> int:
        return len(self.shapes)


def open_clouds(paths: Sequence[str | Path], config: ReadingConfig, least: int, console: Console) -> CloudSet:
    """All clouds of the paths; each file is read once to check it before anything is returned.

    Args:
        paths: files of one cloud; folders, packed files, .h5 files with `data`, folders of shards, few-shot
            folds. Files of one cloud are named as they are given and come first. Of several sets the keys get
            the set's path in front.
        config: how to read them.
        least: points that a cloud must have.
        console: where bars and warnings go.

    Raises:
        DataProblems: a table of all broken clouds, unless `config.on_problem` is "skip".
        InputError: no such file, or nothing that can be read.
    """
    given = [Path(path).expanduser() for path in dict.fromkeys(map(str, paths))]
    for path in given:
        if not path.exists():
            raise InputError(f"clouds must be files or folders, got {path}: no such file or folder")
        if path.is_file() and path.suffix.lower() not in (*FILES, *SETS) and not is_packed(path):
            wanted = " ".join(dict.fromkeys((*FILES, *SETS)))
            raise InputError(f"clouds must be files of one kind of {wanted}, or folders, got {path}")
    files = [path for path in given if is_one_cloud(path)]
    found: list[CloudSet] = []
    if files:
        entries = [Entry(path.as_posix(), path) for path in files]
        up, note = up_of(files)
        source = Source("files", Path(), entries, up=up, notes=[] if note is None else [note])
        found.append(_of_source(source, config, least, console))
    for path in given:
        if path not in files:
            one = _of_path(path, config, least, console)
            if len(given) > 1:
                one.shapes.keys = [f"{path.as_posix()}/{key}" for key in one.shapes.keys]
            found.append(one)
    one = found[0] if len(found) == 1 else _joined(found)
    if not len(one):
        raise InputError(f"clouds must be at least one, got none in {', '.join(map(str, given))}")
    return one


def _of_path(path: Path, config: ReadingConfig, least: int, console: Console) -> CloudSet:
    found = open_dataset(
        path,
        config.kind,
        num_points=least,
        held_out_fraction=config.held_out_fraction,
        array=config.array,
    )
    if isinstance(found, Source):
        return _of_source(found, config, least, console)
    upright = turn_up(stated_or_guessed(found, config.up, partial(warn, console)), config.turn_up)
    return CloudSet(upright, lambda rows: (upright.cloud(row) for row in rows))


def _of_source(source: Source, config: ReadingConfig, least: int, console: Console) -> CloudSet:
    """Check all clouds, then read them again as they are wanted: reading is a small part of encoding."""
    reading = Reading(least, config.max_points, repeat=config.on_small == "repeat")
    entries = {entry.key: replace(entry, picture=None) for entry in source.entries}
    classes = len(source.class_names)
    listed = {entry.key for entry in entries.values() if entry.label is None or entry.label < classes}
    # A shape without its caption or picture is a problem for training; here its cloud is what counts.
    known = [problem for problem in source.problems if problem.key not in listed]
    checked = replace(source, entries=list(entries.values()), problems=known)
    with ProgressBars(console) as bars:
        progress = bars.bar("checking clouds")
        shapes, problems, _ = read_clouds(checked, reading, config.workers, progress, keep=False)
    kept = [entries[key] for key in shapes.keys]
    stop_at_problems(source, len(kept), problems, config.on_problem, _FLAG)
    say_left_out(problems, console)
    say_notes(shapes, console)

    def read_rows(rows: Sequence[int]) -> Iterator[NDArray]:
        for _, cloud in read_each([kept[row] for row in rows], reading, config.workers):
            if isinstance(cloud, list):  # it changed since it was checked
                raise DataProblems(f"clouds of {source.root} changed since they were checked", cloud)
            yield cloud.points

    stated = stated_or_guessed(shapes, config.up, partial(warn, console), read_rows)
    upright = turn_up(stated, config.turn_up)
    was, now = stated.conventions.up, upright.conventions.up
    if was == now:
        return CloudSet(upright, read_rows)
    a, b = "xyz".index(was), "xyz".index(now)
    return CloudSet(upright, lambda rows: (turned(cloud, a, b) for cloud in read_rows(rows)))


def _joined(parts: Sequence[CloudSet]) -> CloudSet:
    """Several sets as one; labels, if all have them, by the names of their classes."""
    sets = [part.shapes for part in parts]
    names = list(dict.fromkeys(name for one in sets for name in one.class_names))
    alike = []
    for one in sets:
        place = np.array([names.index(name) for name in one.class_names], np.int64)
        labels = None if one.labels is None else place[one.labels]
        alike.append(
            replace(
                one,
                labels=labels,
                class_names=names,
                parts=None,
                class_parts=None,
                pictures=None,
                features=None,
            )
        )
    shapes = join_shapes(alike, f"{sets[0].name} and {len(sets) - 1} more", [])
    if shapes.labels is None:
        shapes.class_names = []
    if len({one.conventions for one in sets}) > 1:
        shapes.conventions = Conventions()
    ends = np.cumsum([len(part) for part in parts])

    def read(rows: Sequence[int]) -> Iterator[NDArray]:
        at = np.searchsorted(ends, rows, "right")
        cuts = np.flatnonzero(np.diff(at)) + 1  # runs of rows of one set are read together
        for run in np.split(np.arange(len(rows)), cuts):
            if len(run):
                part = int(at[run[0]])
                first = int(ends[part]) - len(parts[part])
                yield from parts[part].read([rows[i] - first for i in run])

    return CloudSet(shapes, read)
