"""Clouds of a pickle: the cache of ModelNet's text files, and the folds of few-shot classification.

<name>_8192pts_fps.dat   [clouds [N, 3 or more] each, labels [1] each]
<fold>.pkl               {"train": [(cloud, label, class)], "test": the same}
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_fast.data.readers.unpickle import read_pickle
from recon_fast.data.shapes import BadFile, Entry, Problem


@dataclass(frozen=True)
class PickledClouds:
    """What one pickle holds; the clouds are views of the file and not checked."""

    clouds: list[NDArray]
    labels: list[int]
    held_out: list[bool]
    classes: list[str]  # the class of each, or none where the file names none


def read_pickled(path: Path) -> PickledClouds:
    """Contents of a .dat or .pkl file; a file that has not changed since is not read again.

    Raises:
        BadFile: it cannot be read, is hostile, or of another layout.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise BadFile(path, f"cannot be read: {error.strerror or error}") from error
    return _read_pickled(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=2)  # both sides of a cache: listed once, then read block by block
def _read_pickled(path: Path, _size: int, _time: int) -> PickledClouds:
    content = read_pickle(path)
    return _fold(path, content) if path.suffix.lower() == ".pkl" else _cache(path, content)


def _cache(path: Path, content: Any) -> PickledClouds:
    if (
        not isinstance(content, list | tuple)
        or len(content) != 2
        or not all(isinstance(part, list) for part in content)
        or len(content[0]) != len(content[1])
    ):
        raise BadFile(path, "must be [list of clouds, list of as many labels], got something else")
    clouds = [_cloud(path, i, cloud) for i, cloud in enumerate(content[0])]
    labels = [_label(path, i, label) for i, label in enumerate(content[1])]
    return PickledClouds(clouds, labels, [False] * len(clouds), [])


def _fold(path: Path, content: Any) -> PickledClouds:
    if not isinstance(content, dict) or not {"train", "test"} <= content.keys():
        raise BadFile(path, 'must be {"train": [(cloud, label, class)], "test": ...}, got something else')
    found = PickledClouds([], [], [], [])
    for split in ("train", "test"):
        rows = content[split]
        if not isinstance(rows, list | tuple):
            raise BadFile(path, f"{split} must be a list of (cloud, label, class), got {type(rows).__name__}")
        for row in rows:
            i = len(found.clouds)
            if not isinstance(row, list | tuple) or len(row) != 3:
                raise BadFile(path, f"row {i}: must be (cloud, label, class), got {type(row).__name__}")
            found.clouds.append(_cloud(path, i, row[0]))
            found.labels.append(_label(path, i, row[1]))
            found.classes.append(_class_name(path, i, row[2]))
            found.held_out.append(split == "test")
    return found


def _cloud(path: Path, row: int, cloud: Any) -> NDArray:
    if not isinstance(cloud, np.ndarray):
        raise BadFile(path, f"row {row}: must be an array of points, got {type(cloud).__name__}")
    return cloud


def _label(path: Path, row: int, label: Any, what: str = "label") -> int:
    if isinstance(label, int | np.integer):
        return int(label)
    if not isinstance(label, np.ndarray) or label.size != 1 or label.dtype.kind not in "iu":
        raise BadFile(path, f"row {row}: {what} must be one whole number, got {type(label).__name__}")
    return int(label.reshape(-1)[0])


def _class_name(path: Path, row: int, name: Any) -> str:
    return name if isinstance(name, str) else str(_label(path, row, name, "class"))


def pickled_entries(path: Path, found: PickledClouds, classes: int) -> tuple[list[Entry], list[Problem]]:
    """An entry for each cloud of the pickle `path`, and a problem for each label of no class."""
    entries, problems = [], []
    for row, (label, held_out) in enumerate(zip(found.labels, found.held_out, strict=True)):
        entries.append(Entry(f"{path.stem}/{row}", path, row, label=label, held_out=held_out))
        if not 0 <= label < classes:
            what = f"row {row}: label must be below {classes}, got {label}"
            problems.append(Problem(entries[-1].key, path, what))
    return entries, problems
