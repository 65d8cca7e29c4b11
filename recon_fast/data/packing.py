"""Packing: a source is read shard by shard, and becomes one packed file or a folder of such shards.

A set that is to be one file is read in shards of clouds alone, which are then joined. Shards wait in
`OUT.partial/` until all are there (`recon_fast.data.partial`), so the same command continues.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_fast.config import StatedUp
from recon_fast.data.conventions import state_up
from recon_fast.data.hdf5 import put, put_parts, put_texts
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
    FORMAT,
    MANIFEST,
    SHARDS_FORMAT,
    SHARDS_VERSION,
    VERSION,
    Manifest,
    Shard,
    dataset_checksums,
    is_sharded,
    read_packed,
)
from recon_fast.data.partial import Note, Shards, collecting, note_of
from recon_fast.data.readers.pictures import FilePictures
from recon_fast.data.shapes import Conventions, Features, Problem, Shapes, Source, blocks
from recon_fast.errors import InputError
from recon_fast.files import whole_file
from recon_fast.schema import write_json

_SHARD = 512  # shapes in a shard that will be joined to one file
_ROWS = 1 << 20  # points written at once


@dataclass(frozen=True)
class Packed:
    """What a packed file got."""

    file: Path
    shapes: Shapes  # without clouds
    points: int
    size: int  # bytes
    problems: list[Problem]  # of shapes that were left out
    reused: int  # shards that an interrupted call had left
    tally: Tally  # what was changed or left out of clouds

    @property
    def notes(self) -> list[str]:
        """What of the files was changed or is not in the packed one, a line each."""
        return self.shapes.notes

    def summary(self) -> str:
        """One line for people."""
        shapes = self.shapes
        parts = [f"{len(shapes)} shapes", f"{int(shapes.held_out.sum())} of them held out"]
        if shapes.class_names:
            parts.append(f"{len(shapes.class_names)} classes")
        if shapes.captions is not None:
            parts.append("captions")
        if shapes.features is not None:
            parts.append("features of the teachers")
        elif shapes.pictures is not None:
            parts.append("pictures")
        return f"{self.file}: {', '.join(parts)}; {self.points} points, {self.size / 1e6:.1f} MB"


@dataclass(frozen=True)
class PackedShards:
    """What a sharded set got."""

    folder: Path
    shards: int
    shapes: int
    held_out: int
    size: int  # bytes
    problems: list[Problem]  # of shapes that were left out
    reused: int  # shards that an interrupted call had left
    notes: list[str]  # what of the files was changed or is not in the shards, a line each

    def summary(self) -> str:
        """One line for people."""
        return (
            f"{self.folder}: {self.shapes} shapes in {self.shards} shards, {self.held_out} of them held out, "
            f"{self.size / 1e6:.1f} MB"
        )


def pack(
    source: Source,
    out: Path,
    *,
    dtype: Any = np.float16,
    num_points: int = 1024,
    max_points: int = 8192,
    on_problem: str = "stop",
    up: StatedUp = "auto",
    workers: int | None = None,
    progress: Progress | None = None,
    features_fn: Callable[[Shapes], Features | None] | None = None,
    overwrite: bool = False,
) -> Packed:
    """Read a source and write it as one file, which is whole or absent at any moment.

    What was read is kept in `OUT.partial/` until the file is written, so an interrupted call continues.

    Args:
        source: from `open_source`.
        out: the file to write; its folder must exist.
        dtype, num_points, max_points, on_problem, workers, progress: as `load` takes them.
        up: the axis that points up, x, y or z, which the file then states; "auto" takes the layout's word.
        features_fn: from the shapes (without clouds) to features, which are packed instead of the pictures.
        overwrite: replace `out` if it exists.

    Raises:
        DataProblems: something is wrong and on_problem is "stop", or no shape is left.
        InputError: `out` exists, or cannot be written.
    """
    check_file(out, overwrite)
    reading = Reading(num_points, max_points, dtype)

    def read(part: Source, file: Path, done: int) -> Note:
        shapes, problems, tally = read_clouds(part, reading, workers)
        if len(shapes):
            write_packed(file, replace(shapes, pictures=None))
        return note_of(len(shapes), file, problems, tally)

    with collecting(out, "a file") as partial:
        shards = Shards(source, partial, _SHARD, reading, "", progress, verify=True)
        shards.fill(read)
        stop_at_problems(source, shards.rows, shards.problems, on_problem, "--on_problem")
        bad = {problem.key for problem in shards.problems}
        shapes = without_clouds(source, [entry for entry in source.entries if entry.key not in bad])
        shapes.points = np.empty((0, 3), dtype)
        _take_layout(shapes, shards.files)
        shapes = state_up(shapes, up)
        shapes.notes += shards.tally.notes()
        if features_fn is not None:
            shapes.features = features_fn(shapes)
        for abandoned in partial.glob("writing-*"):
            abandoned.unlink(missing_ok=True)
        write_packed(out, shapes, _clouds(shards.files), partial / f"writing-{os.getpid()}")
        shutil.rmtree(partial, ignore_errors=True)
        points, size = int(shapes.offsets[-1]), out.stat().st_size
        return Packed(out, shapes, points, size, shards.problems, shards.reused, shards.tally)


def pack_shards(
    source: Source,
    out: Path,
    shard_size: int,
    *,
    dtype: Any = np.float16,
    num_points: int = 1024,
    max_points: int = 8192,
    on_problem: str = "stop",
    up: StatedUp = "auto",
    workers: int | None = None,
    progress: Progress | None = None,
    features_fn: Callable[[Shapes], Features | None] | None = None,
    state: str = "",
    overwrite: bool = False,
) -> PackedShards:
    """Read a source and write it as a folder of shards, which is whole or absent at any moment.

    Shards are collected in `OUT.partial/`, so an interrupted call continues.

    Args:
        source: from `open_source`.
        out: the folder to write; the folder it lies in must exist.
        shard_size: shapes in a shard, at most.
        dtype, num_points, max_points, on_problem, up, workers, progress, features_fn: as `pack` takes them.
        state: what features depend on; shards that a call with another state left are packed again.
        overwrite: replace `out` if it is a set of shards.

    Raises:
        DataProblems: something is wrong and on_problem is "stop", or no shape is left.
        InputError: `out` exists, or cannot be written.
    """
    check_folder(out, overwrite)
    source = source if up == "auto" else replace(source, up=up)
    reading = Reading(num_points, max_points, dtype)

    def make(part: Source, file: Path, done: int) -> Note:
        """Pack a shard; problems do not stop it: those of all are shown at once."""
        total = len(source.entries)
        try:
            packed = pack(
                part,
                file,
                dtype=dtype,
                num_points=num_points,
                max_points=max_points,
                on_problem="skip",
                workers=workers,
                progress=None if progress is None else lambda count, _: progress(done + count, total),
                features_fn=features_fn,
                overwrite=True,
            )
        except DataProblems as error:  # nothing is left of it
            file.unlink(missing_ok=True)
            return note_of(0, file, error.problems, Tally())
        return note_of(len(packed.shapes), file, packed.problems, packed.tally)

    with collecting(out, "a folder") as partial:
        shards = Shards(source, partial, shard_size, reading, state, progress, verify=False)
        shards.fill(make)
        stop_at_problems(source, shards.rows, shards.problems, on_problem, "--on_problem")
        return _finish(source, out, partial, shards)


def check_file(out: Path, overwrite: bool) -> None:
    """Raise InputError unless `out` may become a file."""
    if not out.parent.is_dir():
        raise InputError(f"out must lie in a folder that exists, got {out}")
    if out.is_dir() or (out.exists() and not overwrite):
        what = "it is a folder" if out.is_dir() else "it exists (--overwrite true replaces it)"
        raise InputError(f"out must be a new file, got {out}: {what}")


def check_folder(out: Path, overwrite: bool) -> None:
    """Raise InputError unless `out` may become a folder."""
    if not out.parent.is_dir():
        raise InputError(f"out must lie in a folder that exists, got {out}")
    if out.exists() and not (overwrite and is_sharded(out)):
        hint = " (--overwrite true replaces it)" if is_sharded(out) else ""
        raise InputError(f"out must be a new folder, got {out}: it exists{hint}")


def _take_layout(shapes: Shapes, files: list[Path]) -> None:
    """Give shapes what their shards say of clouds: sizes, the parts of points, and the scale."""
    sizes, parts, scales = [], [], set()
    for file in files:  # one at a time: a mapped file is an open one
        found = read_packed(file, mapped=True, verify=False)
        sizes.append(np.diff(found.offsets))
        scales.add(found.conventions.scale)
        if found.parts is not None:
            parts.append(found.parts)
    np.cumsum(np.concatenate(sizes), out=shapes.offsets[1:])
    shapes.parts = np.concatenate(parts) if parts else None
    shapes.conventions = Conventions(shapes.conventions.up, scales.pop() if len(scales) == 1 else "raw")


def _clouds(files: list[Path]) -> Iterator[NDArray]:
    """Points of shards, one shard after another."""
    for file in files:
        yield from blocks(read_packed(file, mapped=True, verify=False).points, _ROWS)


def write_packed(
    out: Path, shapes: Shapes, clouds: Iterable[NDArray] | None = None, aside: Path | None = None
) -> None:
    """Write shapes as a packed file, which is whole or as it was; features instead of pictures.

    Args:
        out: the file.
        shapes: what it gets.
        clouds: the points in pieces, of the dtype of `shapes.points`; None takes these.
        aside: as `whole_file` takes it.
    """
    import h5py

    sizes = np.diff(shapes.offsets)
    with whole_file(out, aside) as aside, h5py.File(aside, "w") as file:
        file.attrs.update({"format": FORMAT, "version": VERSION, "name": shapes.name})
        file.attrs.update({"up": shapes.conventions.up, "scale": shapes.conventions.scale})
        file.attrs["notes"] = json.dumps(shapes.notes)
        file.attrs["points_per_cloud"] = [int(sizes.min()), int(sizes.max())]
        clouds = blocks(shapes.points, _ROWS) if clouds is None else clouds
        put_parts(file, "points", (int(shapes.offsets[-1]), 3), shapes.points.dtype, clouds)
        if shapes.class_parts is not None and shapes.parts is not None:
            put_texts(file, "class_parts", [json.dumps(parts) for parts in shapes.class_parts])
            put(file, "parts", shapes.parts)
        for name in ("offsets", "held_out", "validation", "labels"):
            if getattr(shapes, name) is not None:
                put(file, name, getattr(shapes, name))
        for name in ("keys", "class_names", "captions"):
            if getattr(shapes, name) is not None:
                put_texts(file, name, getattr(shapes, name))
        if shapes.features is not None:
            file.create_group("features").attrs["teacher"] = json.dumps(shapes.features.teacher)
            for name in ("image", "text", "caption_index", "class_text"):
                array = getattr(shapes.features, name)
                if array is not None:
                    put(file, f"features/{name}", np.asarray(array))
        elif isinstance(shapes.pictures, FilePictures):
            pictures = shapes.pictures
            lengths = [path.stat().st_size for path in pictures.paths]
            offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
            put(file, "picture_offsets", offsets)
            parts = (np.frombuffer(pictures.content(i), np.uint8) for i in range(len(pictures)))
            put_parts(file, "pictures", (int(offsets[-1]),), np.dtype(np.uint8), parts)


def _finish(source: Source, out: Path, partial: Path, found: Shards) -> PackedShards:
    """Write the manifest and let the folder appear."""
    shards: list[Shard] = []
    held_out = 0
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
        file.rename(partial / name)
    # A shard without shapes for validation has no list of them.
    if len({tuple(name for name in shard["blake2b"] if name != "validation") for shard in shards}) > 1:
        raise InputError(f"{source.root} must have pictures, captions and labels of all shapes or of none")
    notes, size = source.notes + found.tally.notes(), sum(shard["bytes"] for shard in shards)
    manifest: Manifest = {
        "format": SHARDS_FORMAT,
        "version": SHARDS_VERSION,
        "name": source.name,
        "rows": found.rows,
        "dtype": str(shapes.points.dtype),
        "class_names": shapes.class_names,
        "teacher": shapes.features.teacher if shapes.features else None,
        "notes": notes,
        "shards": shards,
    }
    for left in partial.iterdir():
        if left.name not in {shard["file"] for shard in shards}:
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    write_json(partial / MANIFEST, manifest)
    if out.exists():
        replaced = out.rename(out.with_name(f".{out.name}.replaced"))
        partial.rename(out)
        shutil.rmtree(replaced, ignore_errors=True)
    else:
        partial.rename(out)
    return PackedShards(out, len(shards), found.rows, held_out, size, found.problems, found.reused, notes)
