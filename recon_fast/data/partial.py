"""What waits beside the output of a packing until it is whole: shards, and notes of what they were made of.

Each shard in `OUT.partial/` is a packed file with a note in JSON beside it, so the same command continues
after an interruption and reads again what has changed since.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, field, replace
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import TypedDict

import numpy as np

from recon_fast.data.loading import DataProblems, Progress, Reading, Tally
from recon_fast.data.packed import read_packed
from recon_fast.data.shapes import Problem, Source
from recon_fast.errors import InputError
from recon_fast.schema import read_json, write_json

_READING = 4  # version of reading: shards of another one are read again


def partial_folder(out: Path) -> Path:
    """Where the work of an interrupted packing waits."""
    return out.with_name(f"{out.name}.partial")


@contextmanager
def collecting(out: Path, what: str) -> Iterator[Path]:
    """The folder where shards wait; it goes again where problems stop the first call, or nothing is in it."""
    partial = partial_folder(out)
    new = not partial.exists()
    try:
        partial.mkdir(exist_ok=True)
        yield partial
    except DataProblems:
        if new:
            shutil.rmtree(partial, ignore_errors=True)
        raise
    except OSError as error:
        _remove_empty(partial)
        hint = f"; the same command continues from {partial}" if partial.exists() else ""
        reason = error.strerror or str(error)
        raise InputError(f"out must be {what} that can be written, got {out}: {reason}{hint}") from error
    finally:
        _remove_empty(partial)


def _remove_empty(folder: Path) -> None:
    if folder.exists() and not any(folder.iterdir()):
        folder.rmdir()


class _ProblemText(TypedDict):
    """A `Problem` in JSON."""

    key: str
    file: str
    what: str


class Note(TypedDict):
    """What is noted of a finished shard."""

    rows: int
    size: int  # bytes
    problems: list[_ProblemText]
    tally: tuple[int, float, int]


class _NoteMadeOf(Note):
    """A note as it lies on the disk."""

    made_of: str


def note_of(rows: int, file: Path, problems: list[Problem], tally: Tally) -> Note:
    """The note of a shard that was just written, or of one of which nothing is left."""
    texts: list[_ProblemText] = [{"key": p.key, "file": str(p.file), "what": p.what} for p in problems]
    size = file.stat().st_size if rows else 0
    return {"rows": rows, "size": size, "problems": texts, "tally": astuple(tally)}


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

    def fill(self, make: Callable[[Source, Path, int], Note]) -> None:
        """Make what is not there; `make` gets a shard's part of the source, its file, how many are done."""
        entries, stat = self.source.entries, cache(_file_state)
        found: dict[str, list[Problem]] = {}
        for problem in self.source.problems:
            found.setdefault(problem.key, []).append(problem)
        listed = {entry.key for entry in entries}
        self.problems = [problem for problem in self.source.problems if problem.key not in listed]
        for start in range(0, len(entries), self.size):
            part = entries[start : start + self.size]
            of_part = [problem for entry in part for problem in found.get(entry.key, [])]
            shard = replace(self.source, entries=part, problems=of_part)
            file = self.folder / f"shard-{start // self.size:05d}.h5"
            made_of = self._made_of(shard, stat)
            noted = self._noted(file, made_of)
            if noted is None:
                file.with_suffix(".json").unlink(missing_ok=True)  # it is written after the shard
                noted = make(shard, file, start)
                write_json(file.with_suffix(".json"), {"made_of": made_of, **noted})
            else:
                self.reused += 1
            self.problems += [Problem(p["key"], Path(p["file"]), p["what"]) for p in noted["problems"]]
            self.tally += Tally(*noted["tally"])
            self.rows += noted["rows"]
            if noted["rows"]:
                self.files.append(file)
            if self.progress is not None:
                self.progress(start + len(part), len(entries))

    def _noted(self, file: Path, made_of: str) -> Note | None:
        """What was noted of a shard, if it is there, whole and made of the same."""
        try:
            found: _NoteMadeOf = read_json(file.with_suffix(".json"), _NoteMadeOf, "the note of a shard")
            size = file.stat().st_size if file.exists() else 0
            if found["made_of"] != made_of or found["size"] != size:
                return None
            if self.verify and found["rows"] and len(read_packed(file, mapped=True)) != found["rows"]:
                return None
        except InputError:
            return None
        return found

    def _made_of(self, shard: Source, stat: Callable[[Path], tuple[int, int] | None]) -> str:
        """Hex digest of what a shard depends on."""
        settings = asdict(self.reading) | {"dtype": np.dtype(self.reading.dtype).name, "version": _READING}
        of_all = [settings, self.state, shard.up, shard.class_names, shard.class_parts]
        digest = blake2b(json.dumps(of_all, sort_keys=True).encode(), digest_size=16)
        digest.update(json.dumps([str(problem) for problem in shard.problems]).encode())
        for entry in shard.entries:
            files = [(str(f.absolute()), stat(f)) for f in (entry.cloud, entry.picture) if f is not None]
            allowed = None if entry.parts is None else list(entry.parts)
            about = [entry.label, entry.caption, entry.held_out, entry.validation]
            digest.update(json.dumps([entry.key, entry.row, files, allowed, about]).encode())
        return digest.hexdigest()


def _file_state(path: Path) -> tuple[int, int] | None:
    """Size and time of a file, None if it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns
