"""From a source to shapes in memory: every file is read once, and everything broken is reported at once."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from recon_fast.data.conventions import radii, scale_of
from recon_fast.data.readers.arrays import PARTS
from recon_fast.data.readers.clouds import (
    SURFACE_POINTS,
    TOO_FEW,
    Cloud,
    check_points,
    key_seed,
    load_cloud,
    read_parts,
    read_rows,
    with_parts,
)
from recon_fast.data.readers.pictures import FilePictures, check_picture
from recon_fast.data.shapes import BadFile, Conventions, Entry, Problem, Shapes, Source
from recon_fast.errors import InputError

_BLOCK = 32  # shapes that one thread reads in a row
_ROWS_BLOCK = 512  # clouds for which a file of many is opened once
_TABLE_ROWS = 50

Progress = Callable[[int, int], None]
T = TypeVar("T")
R = TypeVar("R")


class DataProblems(InputError):
    """Files that cannot be used, all of them.

    Attributes:
        problems: one for each file.
        table: the same as text, for people.
    """

    def __init__(self, message: str, problems: Sequence[Problem]) -> None:
        super().__init__(message)
        self.problems = list(problems)
        self.table = problem_table(problems)


def problem_table(problems: Sequence[Problem]) -> str:
    """Key, file and what is wrong in columns, the first 50."""
    rows = [("shape", "file", "problem")]
    rows += [(p.key, str(p.file), " ".join(p.what.split())) for p in problems[:_TABLE_ROWS]]
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    lines = [f"{key:<{widths[0]}}  {file:<{widths[1]}}  {what}" for key, file, what in rows]
    if len(problems) > _TABLE_ROWS:
        lines.append(f"and {len(problems) - _TABLE_ROWS} more")
    return "\n".join(lines)


@dataclass(frozen=True)
class Reading:
    """How a cloud becomes an array: clouds below `num_points` are problems, larger than `max_points` are cut
    to a random subset, and meshes are sampled with 8192 points, or as many as these two allow. With `repeat`,
    clouds below `num_points` get points of their own again, each as often as any other, until they have them.

    With dtype float16 a cloud is centred and scaled into the unit sphere first, so that it neither overflows
    nor loses its digits to an offset; training does the same to every cloud it draws.
    """

    num_points: int
    max_points: int
    dtype: Any = np.float32
    repeat: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.num_points <= self.max_points:
            raise InputError(
                "max_points must be at least num_points, and that at least 1, "
                f"got {self.max_points} and {self.num_points}"
            )

    def fit(self, cloud: Cloud, key: str) -> Cloud:
        """A valid cloud cut to size and cast, and its parts with it."""
        points, parts = cloud.points, cloud.parts
        if len(points) > self.max_points:
            rng = np.random.default_rng(key_seed(key))
            kept = np.sort(rng.choice(len(points), self.max_points, replace=False))
            points, parts = points[kept], None if parts is None else parts[kept]
        small = len(points) < self.num_points
        if small:
            rng = np.random.default_rng(key_seed(key))
            rounds, rest = divmod(self.num_points, len(points))
            again = np.concatenate([*[np.arange(len(points))] * rounds, rng.permutation(len(points))[:rest]])
            points, parts = points[again], None if parts is None else parts[again]
        if np.dtype(self.dtype) == np.float16:
            centred = points.astype(np.float64)
            centred -= centred.mean(0)
            radius = np.sqrt((centred**2).sum(1).max())
            points = centred / radius if radius > 0 else centred
        return cloud._replace(points=points.astype(self.dtype, copy=False), parts=parts, repeated=small)

    def load(self, entry: Entry, row: NDArray | None, parts: NDArray | None = None) -> Cloud:
        """The cloud of an entry as it is, or of a row that was read, and its parts. Raises BadFile."""
        least = 1 if self.repeat else self.num_points
        if row is not None:
            cloud = check_points(entry.cloud, row, least)
            if parts is None or entry.parts is None:
                return cloud
            return with_parts(entry.cloud, cloud, parts, entry.parts)
        if entry.parts is not None:
            return read_parts(entry.cloud, entry.parts, least)
        seed = key_seed(entry.key)
        points = max(self.num_points, min(SURFACE_POINTS, self.max_points))
        return load_cloud(entry.cloud, num_surface_points=points, min_points=least, seed=seed)


Read = Cloud | list[Problem]  # a shape, or what is wrong with it


def read_block(entries: Sequence[Entry], reading: Reading) -> list[Read]:
    """Cloud or problems of each entry; pictures are checked, not kept. Entries with rows share one file."""
    rows: Sequence[NDArray | None] = [None] * len(entries)
    parts = rows
    first = entries[0]
    if first.row is not None:
        wanted = [entry.row or 0 for entry in entries]
        try:
            rows = read_rows(first.cloud, wanted, first.array)
            parts = parts if first.parts is None else read_rows(first.cloud, wanted, PARTS)
        except BadFile as error:
            return [[Problem(e.key, error.file, f"row {e.row}: {error.what}")] for e in entries]
    found: list[Read] = []
    for entry, row, part in zip(entries, rows, parts, strict=True):
        problems: list[Problem] = []
        try:
            cloud = reading.load(entry, row, part)
        except BadFile as error:
            what = error.what if entry.row is None else f"row {entry.row}: {error.what}"
            problems.append(Problem(entry.key, error.file, what))
        try:
            if entry.picture is not None:
                check_picture(entry.picture)
        except BadFile as error:
            problems.append(Problem(entry.key, error.file, error.what))
        found.append(problems or reading.fit(cloud, entry.key))
    return found


def _blocks(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Entries in order, in blocks for `read_block`; a block of rows is of one file."""
    cut = []
    for file, group in groupby(entries, lambda entry: None if entry.row is None else entry.cloud):
        size, of_file = _BLOCK if file is None else _ROWS_BLOCK, list(group)
        if file is not None and file.suffix.lower() == ".npz":  # whose arrays are read whole
            size = len(of_file)
        cut += [of_file[i : i + size] for i in range(0, len(of_file), size)]
    return cut


def in_order(
    work: Callable[[T], R], items: Iterable[T], workers: int | None = None
) -> Generator[R, None, None]:
    """`work` of each item in order, done by threads that run only a little ahead of the consumer.

    With n workers at most 2 n items are done before they are wanted; None takes one worker per core, and 0
    does each item when it is wanted.
    """
    if workers == 0:
        yield from map(work, items)
        return
    count = workers or os.cpu_count() or 1
    with ThreadPoolExecutor(count) as pool:
        pending: deque[Future[R]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) > 2 * count:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def read_each(
    entries: Sequence[Entry], reading: Reading, workers: int | None = None, progress: Progress | None = None
) -> Iterator[tuple[Entry, Read]]:
    """Each entry in order, with its cloud or what is wrong with it; threads read a little ahead."""
    cut, done = _blocks(entries), 0
    for block, found in zip(cut, in_order(lambda b: read_block(b, reading), cut, workers), strict=True):
        yield from zip(block, found, strict=True)
        done += len(block)
        if progress is not None:
            progress(done, len(entries))


@dataclass
class Tally:
    """Counts what reading changed or left out of clouds, for a line each to people."""

    moved: int = 0  # clouds that were far from the origin
    farthest: float = 0.0  # of them, in widths
    more: int = 0  # clouds whose points had more than coordinates
    repeated: int = 0  # clouds that had too few points

    def add(self, cloud: Cloud) -> None:
        """One cloud more."""
        self.moved += cloud.far > 0
        self.farthest = max(self.farthest, cloud.far)
        self.more += cloud.more
        self.repeated += cloud.repeated

    def __iadd__(self, other: "Tally") -> "Tally":
        self.moved += other.moved
        self.farthest = max(self.farthest, other.farthest)
        self.more += other.more
        self.repeated += other.repeated
        return self

    def notes(self) -> list[str]:
        """The lines."""
        found = []
        if self.moved:
            found.append(
                "moved to the origin in float64, since float32 would lose their shape: "
                f"{_clouds(self.moved)}, up to {self.farthest:.3g} times their width away"
            )
        if self.more:
            found.append(
                f"not used: what points have beside x, y, z (normals, colours), of {_clouds(self.more)}"
            )
        if self.repeated:
            found.append(f"points were repeated, since there were too few, in {_clouds(self.repeated)}")
        return found


def _clouds(count: int) -> str:
    return f"{count} cloud" if count == 1 else f"{count} clouds"


class _Points:
    """Clouds appended to one array that is allocated for the expected total, so that memory is used once."""

    def __init__(self, expected: int, dtype: Any) -> None:
        self.expected, self.clouds, self.used = expected, 0, 0
        self.buffer = np.empty((0, 3), dtype)

    def append(self, cloud: NDArray[np.floating]) -> None:
        end, self.clouds = self.used + len(cloud), self.clouds + 1
        if end > len(self.buffer):
            expected = int(end / self.clouds * max(self.expected, self.clouds)) + 1
            grown = np.empty((max(end, expected), 3), self.buffer.dtype)
            grown[: self.used] = self.buffer[: self.used]
            self.buffer = grown
        self.buffer[self.used : end] = cloud
        self.used = end


def load(
    source: Source,
    *,
    num_points: int,
    max_points: int,
    dtype: Any = np.float32,
    on_problem: str = "stop",
    repeat: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> tuple[Shapes, list[Problem]]:
    """Read all clouds of a source into memory, and check all its pictures.

    Args:
        source: from `open_source`.
        num_points: smaller clouds are problems, or, with `repeat`, get points again.
        max_points: larger clouds are cut to this many random points, the same ones each time.
        dtype: float32 keeps coordinates; float16 brings each cloud into the unit sphere first (`Reading`).
        on_problem: "stop" raises if anything is wrong, "skip" leaves those shapes out.
        workers: threads; None takes one per core.
        progress: gets (done, total) shapes.

    Returns:
        The shapes, and the problems of those that were left out.

    Raises:
        DataProblems: something is wrong and on_problem is "stop", or no shape is left.
    """
    reading = Reading(num_points, max_points, dtype, repeat)
    shapes, problems, _ = read_clouds(source, reading, workers, progress)
    stop_at_problems(source, len(shapes), problems, on_problem, "--data.on_problem")
    return shapes, problems


def read_clouds(
    source: Source,
    reading: Reading,
    workers: int | None = None,
    progress: Progress | None = None,
    keep: bool = True,
) -> tuple[Shapes, list[Problem], Tally]:
    """All shapes that can be used, perhaps none, what is wrong with the others, and what was changed.

    Without `keep` clouds are only checked, and the shapes have no points.
    """
    problems = list(source.problems)
    bad = {problem.key for problem in problems}
    points, tally = _Points(len(source.entries), reading.dtype), Tally()
    sizes: list[int] = []
    parts: list[NDArray[np.uint8]] = []
    kept: list[Entry] = []
    for entry, read in read_each(source.entries, reading, workers, progress):
        if isinstance(read, list):
            problems += read
        elif entry.key not in bad:
            kept.append(entry)
            sizes.append(len(read.points))
            tally.add(read)
            if keep:
                points.append(read.points)
                parts += [] if read.parts is None else [read.parts]
    shapes = without_clouds(source, kept)
    np.cumsum(sizes, out=shapes.offsets[1:])
    shapes.notes += tally.notes()
    if keep:
        shapes.points = points.buffer[: points.used]
        shapes.parts = np.concatenate(parts) if parts and len(parts) == len(kept) else None
        scale = scale_of(radii(shapes.points, np.diff(shapes.offsets)))
        shapes.conventions = Conventions(source.up, scale)
    return shapes, problems, tally


def stop_at_problems(
    source: Source, kept: int, problems: Sequence[Problem], on_problem: str, flag: str
) -> None:
    """Raise DataProblems unless they may be skipped and some shapes were kept."""
    if problems and (on_problem != "skip" or not kept):
        bad = {problem.key for problem in problems}
        total = len({entry.key for entry in source.entries} | bad)
        raise DataProblems(
            f"{len(bad)} of {total} shapes in {source.root} cannot be used: fix them, "
            f"{_small_hint(problems, flag)}or leave those shapes out with {flag} skip",
            problems,
        )
    if not kept:
        raise InputError(f"data must have at least one cloud, got none in {source.root}")


def _small_hint(problems: Sequence[Problem], flag: str) -> str:
    small = any(TOO_FEW in problem.what for problem in problems)
    return f"fill small clouds up with {flag.replace('on_problem', 'on_small')} repeat, " if small else ""


def without_clouds(source: Source, kept: Sequence[Entry]) -> Shapes:
    """Shapes of `kept` with everything but their clouds, which are empty."""

    def of_all(name: str) -> list[Any] | None:
        found = [getattr(entry, name) for entry in kept]
        return None if not kept or None in found else found

    labels, pictures = of_all("label"), of_all("picture")
    validation = np.array([entry.validation for entry in kept], np.bool_)
    return Shapes(
        name=source.name,
        keys=[entry.key for entry in kept],
        points=np.empty((0, 3), np.float32),
        offsets=np.zeros(len(kept) + 1, np.int64),
        held_out=np.array([entry.held_out for entry in kept], np.bool_),
        labels=None if labels is None else np.array(labels, np.int64),
        class_names=list(source.class_names),
        captions=of_all("caption"),
        pictures=None if pictures is None else FilePictures(pictures),
        validation=validation if validation.any() else None,
        class_parts=source.class_parts,
        conventions=Conventions(source.up),
        notes=list(source.notes),
    )
