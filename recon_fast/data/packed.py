"""One HDF5 file for a whole data set: clouds, labels, captions, and teacher features or pictures.

    points [T, 3] float16 or float32, offsets [S + 1]   shape i is points[offsets[i]:offsets[i + 1]]
    keys, captions [S], class_names [C]                 UTF-8 texts
    held_out, validation [S] bool, labels [S] int64
    parts [T] uint8, class_parts [C]                    the part of each point; as JSON, those of each class
    pictures [B] uint8, picture_offsets [S + 1]         picture files as they were, without features
    features/image, text, caption_index, class_text     see `recon_fast.data.shapes.Features`

What a set does not have is absent. Attributes of the file state how its clouds lie: `up` (x, y, z or
unknown), `scale` ("unit sphere" or "raw") and `points_per_cloud` [smallest, largest]. Each dataset carries
the attribute `blake2b` of its bytes (of texts, of their JSON), which reading verifies.
"""

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from operator import itemgetter
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from recon_fast.config import StatedUp
from recon_fast.data.chunks import Chunk, Chunks
from recon_fast.data.conventions import radii, scale_of, state_up
from recon_fast.data.loading import Progress, Reading, stop_at_problems, without_clouds
from recon_fast.data.pictures import FilePictures, PackedPictures
from recon_fast.data.shapes import Conventions, Entry, Features, Problem, Scale, Shapes, Source, Up
from recon_fast.errors import InputError

FORMAT = "recon-fast packed shapes"
VERSION = 1
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_BLOCK_BYTES = 1 << 24  # read at once
_ARRAYS = ("image", "text", "caption_index", "class_text")


@dataclass(frozen=True)
class Packed:
    """What a packed file got."""

    file: Path
    shapes: Shapes  # without clouds
    points: int
    size: int  # bytes
    problems: list[Problem]  # of shapes that were left out
    reused: int  # chunks that an interrupted call had left

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


def is_packed(path: Path) -> bool:
    """Is the file one that `pack` wrote?

    Raises:
        InputError: it is an HDF5 file, but damaged, so that nobody can tell.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(_SIGNATURE)) != _SIGNATURE:
                return False
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    with _opened(path) as file:
        return file.attrs.get("format") == FORMAT


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
    check_out(out, overwrite)
    reading = Reading(num_points, max_points, dtype)
    partial = partial_folder(out)
    new = not partial.exists()
    try:
        partial.mkdir(exist_ok=True)
        chunks = Chunks(source.entries, reading, partial, workers)
        kept, problems, scale = _read(source, chunks, progress)
        try:
            stop_at_problems(source, kept, problems, on_problem, "--on_problem")
        except InputError:
            if new:
                shutil.rmtree(partial, ignore_errors=True)
            raise
        shapes = without_clouds(source, kept)
        shapes.conventions = Conventions(source.up, scale)
        shapes = state_up(shapes, up)
        if features_fn is not None:
            shapes.features = features_fn(shapes)
        total = _write(out, shapes, chunks, {problem.key for problem in problems}, dtype)
        shutil.rmtree(partial, ignore_errors=True)
        return Packed(out, shapes, total, out.stat().st_size, problems, chunks.reused)
    except OSError as error:
        if partial.exists() and not any(partial.iterdir()):
            partial.rmdir()
        what = error.strerror or str(error)
        hint = f"; the same command continues from {partial}" if partial.exists() else ""
        raise InputError(f"out must be a file that can be written, got {out}: {what}{hint}") from error


def partial_folder(out: Path) -> Path:
    """Where the work of an interrupted `pack` waits."""
    return out.with_name(f"{out.name}.partial")


def check_out(out: Path, overwrite: bool) -> None:
    """Raise InputError unless `out` may become a file."""
    if not out.parent.is_dir():
        raise InputError(f"out must lie in a folder that exists, got {out}")
    if out.is_dir() or (out.exists() and not overwrite):
        what = "it is a folder" if out.is_dir() else "it exists (--overwrite true replaces it)"
        raise InputError(f"out must be a new file, got {out}: {what}")


def _read(
    source: Source, chunks: Chunks, progress: Progress | None
) -> tuple[list[Entry], list[Problem], Scale]:
    """Fill the chunks; (entries that can be packed, all problems, the scale of what can be packed)."""
    problems = list(source.problems)
    radius: dict[str, float] = {}
    done = 0
    for chunk in chunks.fill():
        problems += chunk.problems
        radius |= zip(chunk.keys, radii(chunk.points, np.array(chunk.sizes)).tolist(), strict=True)
        done += len(chunk.keys)
        if progress is not None:
            progress(done, len(source.entries))
    bad = {problem.key for problem in problems}
    kept = [entry for entry in source.entries if entry.key not in bad]
    return kept, problems, scale_of(np.array([radius[entry.key] for entry in kept], np.float32))


def _write(out: Path, shapes: Shapes, chunks: Chunks, bad: set[str], dtype: Any) -> int:
    """Write the file aside and rename it; returns the number of points."""
    import h5py

    sizes = {key: size for key, size in chunks.sizes.items() if key not in bad}
    np.cumsum([sizes[key] for key in shapes.keys], out=shapes.offsets[1:])
    total = int(shapes.offsets[-1])
    partial = partial_folder(out)
    for abandoned in partial.glob("writing-*"):
        abandoned.unlink(missing_ok=True)
    aside = partial / f"writing-{uuid.uuid4().hex}"
    try:
        with h5py.File(aside, "w") as file:
            file.attrs.update({"format": FORMAT, "version": VERSION, "name": shapes.name})
            file.attrs.update({"up": shapes.conventions.up, "scale": shapes.conventions.scale})
            file.attrs["points_per_cloud"] = [min(sizes.values()), max(sizes.values())]
            points = (part for chunk in chunks for part in _pieces(chunk, chunk.points, bad))
            _put_parts(file, "points", (total, 3), np.dtype(dtype), points)
            if shapes.class_parts is not None:
                _put_texts(file, "class_parts", [json.dumps(parts) for parts in shapes.class_parts])
                labels = (part for chunk in chunks for part in _pieces(chunk, chunk.parts, bad))
                _put_parts(file, "parts", (total,), np.dtype(np.uint8), labels)
            _put(file, "offsets", shapes.offsets)
            _put(file, "held_out", shapes.held_out)
            if shapes.validation is not None:
                _put(file, "validation", shapes.validation)
            _put_texts(file, "keys", shapes.keys)
            _put_texts(file, "class_names", shapes.class_names)
            if shapes.labels is not None:
                _put(file, "labels", shapes.labels)
            if shapes.captions is not None:
                _put_texts(file, "captions", shapes.captions)
            if shapes.features is not None:
                file.create_group("features").attrs["teacher"] = json.dumps(shapes.features.teacher)
                for name in _ARRAYS:
                    array = getattr(shapes.features, name)
                    if array is not None:
                        _put(file, f"features/{name}", np.asarray(array))
            elif isinstance(shapes.pictures, FilePictures):
                pictures = shapes.pictures
                lengths = [path.stat().st_size for path in pictures.paths]
                offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
                _put(file, "picture_offsets", offsets)
                parts = (np.frombuffer(pictures.content(i), np.uint8) for i in range(len(pictures)))
                _put_parts(file, "pictures", (int(offsets[-1]),), np.dtype(np.uint8), parts)
        with aside.open("r+b") as written:  # Windows flushes only what is open for writing
            os.fsync(written.fileno())
        aside.replace(out)
    finally:
        aside.unlink(missing_ok=True)
    return total


def _pieces(chunk: Chunk, array: NDArray, bad: set[str]) -> Iterable[NDArray]:
    """What the chunk's packed clouds have of `array` (points or parts), in as few pieces as possible."""
    if bad.isdisjoint(chunk.keys):
        yield array
        return
    ends = np.cumsum(chunk.sizes)
    for key, size, end in zip(chunk.keys, chunk.sizes, ends, strict=True):
        if key not in bad:
            yield array[end - size : end]


def _put(file: Any, name: str, array: NDArray) -> None:
    array = np.ascontiguousarray(array)
    file.create_dataset(name, data=array).attrs["blake2b"] = _digest(array)


def _put_texts(file: Any, name: str, texts: Sequence[str]) -> None:
    import h5py

    dataset = file.create_dataset(name, data=list(texts), shape=(len(texts),), dtype=h5py.string_dtype())
    dataset.attrs["blake2b"] = _digest_texts(texts)


def _put_parts(
    file: Any, name: str, shape: tuple[int, ...], dtype: np.dtype, parts: Iterable[NDArray]
) -> None:
    """One dataset from parts that follow each other; in memory there is one at a time."""
    dataset = file.create_dataset(name, shape, dtype)
    state = blake2b(digest_size=16)
    start = 0
    for part in parts:
        part = np.ascontiguousarray(part)
        if len(part):
            dataset[start : start + len(part)] = part
        state.update(part.data)
        start += len(part)
    if start != shape[0]:
        raise OSError(f"{name} changed while it was packed: {shape[0]} expected, {start} found")
    dataset.attrs["blake2b"] = state.hexdigest()


def _digest(array: NDArray) -> str:
    return blake2b(array.reshape(-1).view(np.uint8).data, digest_size=16).hexdigest()


def _digest_texts(texts: Sequence[str]) -> str:
    return blake2b(json.dumps(list(texts)).encode(), digest_size=16).hexdigest()


def read_packed(path: Path, *, num_points: int = 1, mapped: bool = False, verify: bool = True) -> Shapes:
    """Shapes of a packed file.

    Args:
        path: a file that `pack` wrote.
        num_points: what each cloud must have at least.
        mapped: clouds, features and pictures are not read into memory, but mapped from the file. Other
            programs must not write into it meanwhile; it may be replaced.
        verify: compare the checksums of what is mapped, for which all of it is read once.

    Raises:
        InputError: the file is damaged (it names the dataset), of a newer version, or has smaller clouds.
    """
    with _opened(path) as file:
        if file.attrs.get("format") != FORMAT:
            raise InputError(f"{path} must be a file that `recon-fast pack` wrote, got another HDF5 file")
        if int(file.attrs.get("version", 0)) != VERSION:
            raise InputError(f"{path} must be of format version {VERSION}, got {file.attrs.get('version')}")
        get = _Getter(path, file)
        big = get if not mapped else partial(get.mapped, verify=verify)
        offsets = get("offsets")
        features = None
        if "features" in file:
            arrays = {
                name: (big if name in ("image", "text") else get)(f"features/{name}", optional=True)
                for name in _ARRAYS
            }
            features = Features(**arrays, teacher=json.loads(file["features"].attrs["teacher"]))
        pictures = None
        if "pictures" in file:
            pictures = PackedPictures(big("pictures"), get("picture_offsets"), path)
        shapes = Shapes(
            name=str(file.attrs.get("name", path.stem)),
            keys=get.texts("keys"),
            points=big("points"),
            offsets=offsets,
            held_out=get("held_out"),
            labels=get("labels", optional=True),
            class_names=get.texts("class_names"),
            captions=get.texts("captions") if "captions" in file else None,
            validation=get("validation", optional=True),
            parts=get("parts", optional=True),
            class_parts=[json.loads(parts) for parts in get.texts("class_parts")]
            if "parts" in file
            else None,
            conventions=_conventions(path, file),
            pictures=pictures,
            features=features,
            checksum=str(file["points"].attrs.get("blake2b")),
        )
    smallest = int(np.diff(offsets).min()) if len(offsets) > 1 else 0
    if smallest < num_points:
        raise InputError(f"{path} must have clouds of at least {num_points} points, got one of {smallest}")
    return shapes


def dataset_checksums(path: Path) -> dict[str, str]:
    """The checksums that a packed file carries, by dataset; what they are of is not read.

    Raises:
        InputError: the file is damaged, or not one that `pack` wrote.
    """
    found: dict[str, str] = {}

    def note(name: str, item: Any) -> None:
        if hasattr(item, "dtype"):  # not a group
            found[name] = str(item.attrs.get("blake2b"))

    with _opened(path) as file:
        if file.attrs.get("format") != FORMAT:
            raise InputError(f"{path} must be a file that `recon-fast pack` wrote, got another HDF5 file")
        try:
            file.visititems(note)
        except (OSError, RuntimeError) as error:
            raise InputError(f"{path} is damaged: {error}") from error
    return found


def _conventions(path: Path, file: Any) -> Conventions:
    up, scale = (file.attrs.get(name, "unknown") for name in ("up", "scale"))
    if up not in get_args(Up) or scale not in get_args(Scale):
        raise InputError(f"{path} is damaged: it states {up} as the up axis and {scale} as the scale")
    return Conventions(up, scale)


class _Getter:
    """Datasets of an open file, verified."""

    def __init__(self, path: Path, file: Any) -> None:
        self.path = path
        self.file = file
        self.whole: NDArray[np.uint8] | None = None

    def __call__(self, name: str, optional: bool = False) -> Any:
        if optional and name not in self.file:
            return None
        array = self._read(name, lambda dataset: dataset[()])
        self._verify(name, _digest(np.ascontiguousarray(array)))
        return array

    def mapped(self, name: str, optional: bool = False, verify: bool = True) -> Any:
        """The dataset as a read-only memory map; in memory where it cannot be mapped."""
        if optional and name not in self.file:
            return None
        dataset = self._read(name, lambda dataset: dataset)
        offset = dataset.id.get_offset()  # None if it is empty, in chunks or compressed
        if offset is None:
            return self(name)
        if verify:
            state = blake2b(digest_size=16)
            rows = max(1, _BLOCK_BYTES // max(1, dataset[:1].nbytes))
            for start in range(0, len(dataset), rows):
                part = self._read(name, itemgetter(slice(start, start + rows)))
                state.update(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
            self._verify(name, state.hexdigest())
        try:
            if self.whole is None:
                self.whole = np.memmap(self.path, np.uint8, "r")  # once, as each map keeps a file open
            return self.whole[offset : offset + dataset.nbytes].view(dataset.dtype).reshape(dataset.shape)
        except (OSError, ValueError) as error:
            raise InputError(f"{self.path} is damaged: its {name} cannot be read ({error})") from error

    def texts(self, name: str) -> list[str]:
        texts = self._read(name, lambda dataset: dataset.asstr()[()].tolist() if len(dataset) else [])
        self._verify(name, _digest_texts(texts))
        return texts

    def _read(self, name: str, read: Callable[[Any], Any]) -> Any:
        try:
            return read(self.file[name])
        except (OSError, KeyError, ValueError, RuntimeError, TypeError) as error:
            raise InputError(f"{self.path} is damaged: its {name} cannot be read ({error})") from error

    def _verify(self, name: str, found: str) -> None:
        if self.file[name].attrs.get("blake2b") != found:
            raise InputError(
                f"{self.path} is damaged: the checksum of its {name} does not match; pack it again"
            )


def _opened(path: Path) -> Any:
    """The open HDF5 file, or InputError that says it is damaged."""
    import h5py

    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path} is damaged or not an HDF5 file: {error}") from error
