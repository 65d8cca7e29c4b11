"""Packing: a source is read shard by shard, and becomes one packed file or a folder of such shards.

A set that is to be one file is read in shards of clouds alone, which are then joined. Shards wait in
`OUT.partial/` until all are there. Each is a packed file with a note in JSON beside it, of what it was made
of, so the same command continues after an interruption and reads again what has changed since.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field, replace
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np

from recon_fast.config import StatedUp
from recon_fast.data.archives import BROKEN, size_and_time
from recon_fast.data.hdf5 import write_packed
from recon_fast.data.loading import (
    DataProblems,
    Progress,
    Reading,
    Tally,
    read_clouds,
    stop_at_problems,
    without_clouds,
)
from recon_fast.data.packed import (
    MANIFEST,
    SHARDS_FORMAT,
    SHARDS_VERSION,
    Manifest,
    Shard,
    dataset_checksums,
    is_sharded,
    read_packed,
)
from recon_fast.data.shapes import Features, Problem, Shapes, Source, join_shapes
from recon_fast.errors import InputError
from recon_fast.files import replace_folder
from recon_fast.schema import read_json, write_json

_SHARD = 2048  # shapes in a shard that will be joined to one file: each is an open file when it is
_READING = 6  # version of reading: shards of another one are read again

FeaturesOf = Callable[[Shapes], Features | None]


@dataclass(frozen=True)
class Packed:
    """What became of a source."""

    out: Path  # the file, or the folder of shards
    shapes: int
    held_out: int
    points: int
    size: int  # bytes
    contents: list[str]  # what there is of each shape: "3 classes", "captions"
    problems: list[Problem]  # of shapes that were left out
    reused: int  # shards that an interrupted call had left
    notes: list[str]  # what of the files was changed or is not in the packed set, a line each
    shards: int | None = None  # files of the folder

    def summary(self) -> str:
        """One line for people."""
        shards = "" if self.shards is None else f" in {self.shards} shards"
        parts = [f"{self.shapes} shapes{shards}", f"{self.held_out} of them held out", *self.contents]
        return f"{self.out}: {', '.join(parts)}; {self.points} points, {self.size / 1e6:.1f} MB"


def pack(
    source: Source,
    out: Path,
    *,
    shard_size: int | None = None,
    dtype: Any = np.float16,
    num_points: int = 1024,
    max_points: int = 8192,
    on_problem: str = "stop",
    repeat: bool = False,
    up: StatedUp = "auto",
    workers: int | None = None,
    progress: Progress | None = None,
    features_fn: FeaturesOf | None = None,
    state: str = "",
    overwrite: bool = False,
) -> Packed:
    """Read a source and write it as a file or a folder of shards, which is whole or absent at any moment.

    What was read is kept in `OUT.partial/` until all is written, so an interrupted call continues.

    Args:
        source: from `open_source`.
        out: the file or folder to write; the folder it lies in must exist.
        shard_size: shapes in a shard, at most; None writes one file.
        dtype, num_points, max_points, on_problem, repeat, workers, progress: as `load` takes them.
        up: the axis that points up, x, y or z, which the file then states; "auto" takes the layout's word.
        features_fn: from the shapes, of a shard or of all, to features, which are packed instead of pictures.
        state: what features depend on; shards that a call with another state left are packed again.
        overwrite: replace `out` if it is there, as a folder only if it is a set of shards.

    Raises:
        DataProblems: something is wrong and on_problem is "stop", or no shape is left.
        InputError: `out` exists, or cannot be written.
    """
    one_file = shard_size is None
    check_output(out, not one_file, overwrite)
    source = source if up == "auto" else replace(source, up=up)
    reading = Reading(num_points, max_points, dtype, repeat)

    def make(part: Source, file: Path, done: int) -> Made:
        """Read and pack a shard, of clouds alone where they will be joined to one file."""

        def counted(count: int, of_part: int) -> None:
            if progress is not None and count < of_part:  # the last is when the shard is written
                progress(done + count, len(source.entries))

        shapes, problems, tally = read_clouds(part, reading, workers, counted)
        if len(shapes):
            if one_file:
                shapes.pictures = None
            elif features_fn is not None:
                shapes.features = features_fn(shapes)
            write_packed(file, shapes)
        return Made(len(shapes), problems, tally)

    with _collecting(out, "a file" if one_file else "a folder") as folder:
        # What will be joined is compared with its checksums; shards are when the set is opened.
        shards = Shards(
            source, folder, shard_size or _SHARD, reading, "" if one_file else state, progress, one_file
        )
        shards.fill(make)
        stop_at_problems(source, shards.rows, shards.problems, on_problem, "--on_problem")
        return _join(out, shards, features_fn) if one_file else _finish(out, shards)


def check_output(out: Path, folder: bool, overwrite: bool) -> None:
    """Raise InputError unless `out` may become a file, or a folder of shards."""
    if not out.parent.is_dir():
        raise InputError(f"out must lie in a folder that exists, got {out}")
    replaceable = is_sharded(out) if folder else not out.is_dir()
    if out.exists() and not (overwrite and replaceable):
        what = "it exists" if folder or replaceable else "it is a folder"
        hint = " (--overwrite true replaces it)" if replaceable else ""
        raise InputError(f"out must be a new {'folder' if folder else 'file'}, got {out}: {what}{hint}")


def partial_folder(out: Path) -> Path:
    """Where the work of an interrupted packing waits."""
    return out.with_name(f"{out.name}.partial")


@contextmanager
def _collecting(out: Path, what: str) -> Iterator[Path]:
    """The folder where shards wait; it goes again where problems stop the first call, or nothing is in it."""
    folder = partial_folder(out)
    new = not folder.exists()
    try:
        folder.mkdir(exist_ok=True)
        yield folder
    except DataProblems:
        if new:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    except OSError as error:
        hint = f"; the same command continues from {folder}" if _has_files(folder) else ""
        reason = error.strerror or str(error)
        raise InputError(f"out must be {what} that can be written, got {out}: {reason}{hint}") from error
    finally:
        if folder.exists() and not _has_files(folder):
            folder.rmdir()


def _has_files(folder: Path) -> bool:
    return folder.exists() and any(folder.iterdir())


class Made(NamedTuple):
    """What became of a shard."""

    rows: int
    problems: list[Problem]
    tally: Tally


class _Note(TypedDict):
    """What is noted of a finished shard, in JSON."""

    made_of: str
    rows: int
    size: int  # bytes
    problems: list[tuple[str, str, str]]  # key, file, what
    tally: tuple[int, float, int, int]


@dataclass
class Shards:
    """The shards of a source in a folder, made where an interrupted call has not left them."""

    source: Source
    folder: Path
    size: int  # shapes in a shard
    reading: Reading
    state: str  # what they depend on beside the source and the reading
    progress: Progress | None
    verify: bool  # compare the checksums of shards that are there
    files: list[Path] = field(default_factory=list)  # of those that have shapes
    rows: int = 0
    problems: list[Problem] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    reused: int = 0

    def fill(self, make: Callable[[Source, Path, int], Made]) -> None:
        """Make what is not there; `make` gets a shard's part of the source, its file, how many are done."""
        entries, known, stat = self.source.entries, self.source.problems, cache(_file_state)
        listed = {entry.key for entry in entries}
        self.problems = [problem for problem in known if problem.key not in listed]
        for start in range(0, len(entries), self.size):
            part = entries[start : start + self.size]
            keys = {entry.key for entry in part}
            of_part = [problem for problem in known if problem.key in keys]
            shard = replace(self.source, entries=part, problems=of_part)
            file = self.folder / f"shard-{start // self.size:05d}.h5"
            made_of = self._made_of(shard, stat)
            made = self._left(file, made_of)
            self.reused += made is not None
            if made is None:
                file.with_suffix(".json").unlink(missing_ok=True)  # it is written after the shard
                made = make(shard, file, start)
                note: _Note = {
                    "made_of": made_of,
                    "rows": made.rows,
                    "size": file.stat().st_size if made.rows else 0,
                    "problems": [(p.key, str(p.file), p.what) for p in made.problems],
                    "tally": astuple(made.tally),
                }
                write_json(file.with_suffix(".json"), note)
            self.problems += made.problems
            self.tally += made.tally
            self.rows += made.rows
            self.files += [file] * (made.rows > 0)
            if self.progress is not None:
                self.progress(start + len(part), len(entries))

    def _left(self, file: Path, made_of: str) -> Made | None:
        """What an interrupted call left of a shard, if it is there, whole and made of the same."""
        try:
            note: _Note = read_json(file.with_suffix(".json"), _Note, "the note of a shard")
            size = file.stat().st_size if file.exists() else 0
            if note["made_of"] != made_of or note["size"] != size:
                return None
            if self.verify and note["rows"] and len(read_packed(file, mapped=True)) != note["rows"]:
                return None
        except InputError:
            return None
        problems = [Problem(key, Path(of), what) for key, of, what in note["problems"]]
        return Made(note["rows"], problems, Tally(*note["tally"]))

    def _made_of(self, shard: Source, stat: Callable[[Path], tuple[int, int] | None]) -> str:
        """Hex digest of what a shard depends on."""
        about = (_READING, self.reading, self.state, shard.up, shard.class_names, shard.class_parts)
        files = [stat(f) for e in shard.entries for f in (e.cloud, e.picture) if f is not None]
        everything = repr((about, shard.problems, shard.entries, files))
        return blake2b(everything.encode(errors="surrogateescape"), digest_size=16).hexdigest()


def _file_state(path: Path) -> tuple[int, int] | None:
    """`size_and_time` of a file, None if it is not there."""
    try:
        return size_and_time(path)
    except (OSError, *BROKEN):
        return None


def _join(out: Path, found: Shards, features_fn: FeaturesOf | None) -> Packed:
    """Write the one file that shards are joined to."""
    source, bad = found.source, {problem.key for problem in found.problems}
    sets = [read_packed(file, mapped=True, verify=False) for file in found.files]
    shapes = join_shapes(sets, source.name, source.notes + found.tally.notes())
    shapes.pictures = without_clouds(source, [e for e in source.entries if e.key not in bad]).pictures
    if features_fn is not None:
        shapes.features = features_fn(shapes)
    for abandoned in found.folder.glob("writing-*"):
        abandoned.unlink(missing_ok=True)
    write_packed(out, shapes, found.folder / f"writing-{os.getpid()}")
    shutil.rmtree(found.folder, ignore_errors=True)
    return _packed(out, found, shapes, int(shapes.held_out.sum()), len(shapes.points), out.stat().st_size)


def _packed(out: Path, found: Shards, shapes: Shapes, held_out: int, points: int, size: int) -> Packed:
    """What became of a source, of which `shapes` are some or all."""
    contents = [f"{len(shapes.class_names)} classes"] * bool(shapes.class_names)
    contents += ["captions"] * (shapes.captions is not None)
    if shapes.features is not None:
        contents.append("features of the teachers")
    elif shapes.pictures is not None:
        contents.append("pictures")
    notes = found.source.notes + found.tally.notes()
    return Packed(out, found.rows, held_out, points, size, contents, found.problems, found.reused, notes)


def _finish(out: Path, found: Shards) -> Packed:
    """Write the manifest and let the folder appear."""
    shards: list[Shard] = []
    held_out = 0
    source, folder = found.source, found.folder
    for number, file in enumerate(found.files):
        shapes = read_packed(file, mapped=True, verify=False)
        held_out += int(shapes.held_out.sum())
        name = f"shard-{number:05d}.h5"  # without gaps, should nothing be left of some
        shards.append(
            {
                "file": name,
                "rows": len(shapes),
                "points": len(shapes.points),
                "bytes": file.stat().st_size,
                "blake2b": dataset_checksums(file),
            }
        )
        file.rename(folder / name)
    # A shard without shapes for validation has no list of them.
    if len({tuple(name for name in shard["blake2b"] if name != "validation") for shard in shards}) > 1:
        raise InputError(f"{source.root} must have pictures, captions and labels of all shapes or of none")
    manifest: Manifest = {
        "format": SHARDS_FORMAT,
        "version": SHARDS_VERSION,
        "name": source.name,
        "rows": found.rows,
        "dtype": str(shapes.points.dtype),
        "class_names": shapes.class_names,
        "teacher": shapes.features.teacher if shapes.features else None,
        "notes": source.notes + found.tally.notes(),
        "shards": shards,
    }
    for left in folder.iterdir():
        if left.name not in {shard["file"] for shard in shards}:
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    write_json(folder / MANIFEST, manifest)
    replace_folder(folder, out)
    points, size = (sum(shard[what] for shard in shards) for what in ("points", "bytes"))
    return replace(_packed(out, found, shapes, held_out, points, size), shards=len(shards))
