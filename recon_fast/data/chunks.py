"""The chunks that an interrupted packing leaves: what was read so far, with checksums, in a folder."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, TypedDict

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from recon_fast.data.loading import Reading, Tally, blocks, in_order, read_block
from recon_fast.data.shapes import Entry, Problem
from recon_fast.schema import parse_json

_VERSION = 3  # of reading: chunks of another one are read again


@dataclass(frozen=True)
class Chunk:
    """Some shapes that were read."""

    keys: list[str]
    points: NDArray[np.floating]  # [T, 3], clouds one after another
    sizes: list[int]  # points of each shape, 0 where it has problems
    problems: list[Problem]
    parts: NDArray[np.uint8]  # [T], or empty where shapes have none
    tally: Tally


class Chunks:
    """Entries in chunks of `size`, each in a file once it was read; a chunk's name depends on its entries,
    on their files' sizes and times and on the settings, so what has changed since is read again.

    Args:
        entries: all of them.
        reading: settings.
        folder: where chunks are kept.
        workers: threads; None takes one per core.
        size: shapes in a chunk.
    """

    def __init__(
        self, entries: Sequence[Entry], reading: Reading, folder: Path, workers: int | None, size: int = 512
    ) -> None:
        self.reading = reading
        self.workers = workers
        self.parts = [entries[i : i + size] for i in range(0, len(entries), size)]
        stat = cache(file_state)
        self.files = [folder / f"chunk-{files_fingerprint(part, reading, stat)}.npz" for part in self.parts]
        self.sizes: dict[str, int] = {}  # points by key, known once filled
        self.reused = 0
        self.tally = Tally()  # of all, once filled

    def fill(self) -> Iterator[Chunk]:
        """Read what is not there yet, chunk by chunk."""
        for part, file in zip(self.parts, self.files, strict=True):
            chunk = _load(file, self.reading.dtype)
            if chunk is None:
                chunk = self._read(part)
                _save(file, chunk)
            else:
                self.reused += 1
            self.sizes.update(zip(chunk.keys, chunk.sizes, strict=True))
            self.tally += chunk.tally
            yield chunk

    def __iter__(self) -> Iterator[Chunk]:
        """All chunks in order, from their files."""
        for file in self.files:
            chunk = _load(file, self.reading.dtype)
            if chunk is None:
                raise OSError(f"{file} was removed or damaged while packing")
            yield chunk

    def _read(self, part: Sequence[Entry]) -> Chunk:
        clouds: list[NDArray[np.floating]] = []
        parts: list[NDArray[np.uint8]] = []
        sizes: list[int] = []
        problems: list[Problem] = []
        tally = Tally()
        for found in in_order(lambda b: read_block(b, self.reading), blocks(part), self.workers):
            for read in found:
                if isinstance(read, list):
                    problems += read
                    sizes.append(0)
                else:
                    clouds.append(read.points)
                    sizes.append(len(read.points))
                    tally.add(read)
                    if read.parts is not None:
                        parts.append(read.parts)
        points = np.concatenate(clouds) if clouds else np.empty((0, 3), self.reading.dtype)
        labels = np.concatenate(parts) if parts else np.empty(0, np.uint8)
        return Chunk([entry.key for entry in part], points, sizes, problems, labels, tally)


def file_state(path: Path) -> tuple[int, int] | None:
    """Size and time of a file, None if it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def files_fingerprint(
    part: Sequence[Entry], reading: Reading, stat: Callable[[Path], tuple[int, int] | None]
) -> str:
    """Hex digest of what reading some entries depends on; `stat` is `file_state` or a cache of it."""
    settings = asdict(reading) | {"dtype": np.dtype(reading.dtype).name, "version": _VERSION}
    state = blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=16)
    for entry in part:
        files = [(str(f.absolute()), stat(f)) for f in (entry.cloud, entry.picture) if f is not None]
        allowed = None if entry.parts is None else list(entry.parts)
        state.update(json.dumps([entry.key, entry.row, files, allowed]).encode())
    return state.hexdigest()


def _checksum(points: NDArray, parts: NDArray, text: str) -> str:
    state = blake2b(text.encode(), digest_size=16)
    for array in (points, parts):
        state.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return state.hexdigest()


class ProblemText(TypedDict):
    """A `Problem` in JSON."""

    key: str
    file: str
    what: str


class _Text(TypedDict):
    keys: list[str]
    sizes: list[Annotated[int, Meta(ge=0)]]
    problems: list[ProblemText]
    tally: tuple[int, float, int]


def problem_texts(problems: Sequence[Problem]) -> list[ProblemText]:
    """Problems for JSON; `problems_of` reads them."""
    return [{"key": p.key, "file": str(p.file), "what": p.what} for p in problems]


def problems_of(texts: Sequence[ProblemText]) -> list[Problem]:
    """Problems from JSON."""
    return [Problem(p["key"], Path(p["file"]), p["what"]) for p in texts]


def _save(file: Path, chunk: Chunk) -> None:
    stated = {"keys": chunk.keys, "sizes": chunk.sizes, "problems": problem_texts(chunk.problems)}
    text = json.dumps({**stated, "tally": astuple(chunk.tally)})
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with aside.open("wb") as target:
            checksum = _checksum(chunk.points, chunk.parts, text)
            np.savez(target, points=chunk.points, parts=chunk.parts, text=text, checksum=checksum)
        aside.replace(file)
    finally:
        aside.unlink(missing_ok=True)


def _load(file: Path, dtype: Any) -> Chunk | None:
    """The chunk in a file; None if it is absent or damaged."""
    from zipfile import BadZipFile

    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as content:
            points, parts, text = content["points"], content["parts"], str(content["text"])
            checksum = str(content["checksum"])
        if checksum != _checksum(points, parts, text) or points.dtype != dtype:
            return None
        stated = parse_json(text, _Text, f"{file} must state what a chunk holds")
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None
    if len(stated["keys"]) != len(stated["sizes"]) or points.shape != (sum(stated["sizes"]), 3):
        return None
    problems = problems_of(stated["problems"])
    return Chunk(stated["keys"], points, stated["sizes"], problems, parts, Tally(*stated["tally"]))
