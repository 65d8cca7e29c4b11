"""Packing a data set shard by shard; see `recon_fast.data.shards` for what is written."""

import shutil
from collections.abc import Callable
from dataclasses import astuple, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from recon_fast.config import StatedUp
from recon_fast.data.chunks import ProblemText, file_state, files_fingerprint, problem_texts, problems_of
from recon_fast.data.loading import DataProblems, Progress, Reading, Tally, stop_at_problems
from recon_fast.data.packed import dataset_checksums, pack, partial_folder, read_packed
from recon_fast.data.shapes import Features, Problem, Shapes, Source
from recon_fast.data.shards import FORMAT, MANIFEST, VERSION, Manifest, Shard, is_sharded
from recon_fast.errors import InputError
from recon_fast.schema import read_json, write_json


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
    partial = partial_folder(out)
    new = not partial.exists()
    stat = cache(file_state)
    entries = source.entries
    by_key: dict[str, list[Problem]] = {}
    for problem in source.problems:
        by_key.setdefault(problem.key, []).append(problem)
    listed = {entry.key for entry in entries}
    problems = [problem for problem in source.problems if problem.key not in listed]
    files: list[Path] = []
    kept, reused, done = 0, 0, 0
    tally = Tally()
    try:
        partial.mkdir(exist_ok=True)
        for number, start in enumerate(range(0, len(entries), shard_size)):
            part = entries[start : start + shard_size]
            found = [problem for entry in part for problem in by_key.get(entry.key, [])]
            shard = replace(source, entries=part, problems=found)
            file = partial / f"shard-{number:05d}.h5"
            note = file.with_suffix(".json")  # written after the shard, and says what it was made of
            made_of = f"{files_fingerprint(part, reading, stat)} {state} {source.up} {found}"
            noted = _noted(note, made_of)
            if noted is not None:
                reused += 1
            else:
                note.unlink(missing_ok=True)
                of_all = _offset(progress, done, len(entries))
                noted = _pack_one(shard, file, reading, workers, features_fn, of_all)
                write_json(note, {"made_of": made_of, **noted})
            problems += problems_of(noted["problems"])
            tally += Tally(*noted["tally"])
            if noted["rows"]:
                kept += noted["rows"]
                files.append(file)
            done += len(part)
            if progress is not None:
                progress(done, len(entries))
        try:
            stop_at_problems(source, entries[:kept], problems, on_problem, "--on_problem")
        except InputError:
            if new:
                shutil.rmtree(partial, ignore_errors=True)
            raise
        notes = source.notes + tally.notes()
        return _finish(source, out, partial, files, problems, reused, notes)
    except OSError as error:
        hint = f"; the same command continues from {partial}" if partial.exists() else ""
        what = error.strerror or str(error)
        raise InputError(f"out must be a folder that can be written, got {out}: {what}{hint}") from error


def check_folder(out: Path, overwrite: bool) -> None:
    """Raise InputError unless `out` may become a folder."""
    if not out.parent.is_dir():
        raise InputError(f"out must lie in a folder that exists, got {out}")
    if out.exists() and not (overwrite and is_sharded(out)):
        hint = " (--overwrite true replaces it)" if is_sharded(out) else ""
        raise InputError(f"out must be a new folder, got {out}: it exists{hint}")


def _offset(progress: Progress | None, done: int, total: int) -> Progress | None:
    return None if progress is None else lambda count, _of: progress(done + count, total)


class _Note(TypedDict):
    """What is noted of a finished shard."""

    rows: int
    size: int  # bytes
    problems: list[ProblemText]
    tally: tuple[int, float, int]


class _NoteMadeOf(_Note):
    made_of: str


def _noted(note: Path, made_of: str) -> _Note | None:
    """What was noted of a finished shard, if it was made of the same."""
    try:
        found: _NoteMadeOf = read_json(note, _NoteMadeOf, "the note of a shard")
    except InputError:
        return None
    file = note.with_suffix(".h5")
    size = file.stat().st_size if file.exists() else 0
    return found if found["made_of"] == made_of and found["size"] == size else None


def _pack_one(
    shard: Source,
    file: Path,
    reading: Reading,
    workers: int | None,
    features_fn: Callable[[Shapes], Features | None] | None,
    progress: Progress | None,
) -> _Note:
    """Pack a shard; its rows, bytes and problems, which do not stop it: those of all are shown at once."""
    try:
        packed = pack(
            shard,
            file,
            dtype=reading.dtype,
            num_points=reading.num_points,
            max_points=reading.max_points,
            on_problem="skip",
            workers=workers,
            progress=progress,
            features_fn=features_fn,
            overwrite=True,
        )
        rows, size, problems, tally = len(packed.shapes), packed.size, packed.problems, packed.tally
    except DataProblems as error:  # nothing is left of it
        rows, size, problems, tally = 0, 0, error.problems, Tally()
        file.unlink(missing_ok=True)
    return {"rows": rows, "size": size, "problems": problem_texts(problems), "tally": astuple(tally)}


def _finish(
    source: Source,
    out: Path,
    partial: Path,
    files: list[Path],
    problems: list[Problem],
    reused: int,
    notes: list[str],
) -> PackedShards:
    """Write the manifest and let the folder appear."""
    shards: list[Shard] = []
    held_out = 0
    for number, file in enumerate(files):
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
    if len({tuple(shard["blake2b"]) for shard in shards}) > 1:
        raise InputError(f"{source.root} must have pictures, captions and labels of all shapes or of none")
    rows, size = sum(shard["rows"] for shard in shards), sum(shard["bytes"] for shard in shards)
    manifest: Manifest = {
        "format": FORMAT,
        "version": VERSION,
        "name": source.name,
        "rows": rows,
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
    return PackedShards(out, len(shards), rows, held_out, size, problems, reused, notes)
