"""One HDF5 file for a whole data set: clouds, labels, captions, and teacher features or pictures.

    points [T, 3] float16 or float32, offsets [S + 1]   shape i is points[offsets[i]:offsets[i + 1]]
    keys, captions [S], class_names [C]                 UTF-8 texts
    held_out, validation [S] bool, labels [S] int64
    parts [T] uint8, class_parts [C]                    the part of each point; as JSON, those of each class
    pictures [B] uint8, picture_offsets [S + 1]         picture files as they were, without features
    features/image, text, caption_index, class_text     see `recon_fast.data.shapes.Features`

What a set does not have is absent. Attributes of the file state how its clouds lie: `up` (x, y, z or
unknown), `scale` ("unit sphere" or "raw") and `points_per_cloud` [smallest, largest]; and as JSON `notes`,
what of the files was changed or left out. Each dataset carries the attribute `blake2b` of its bytes (of
texts, of their JSON), which reading verifies.
"""

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, get_args

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from recon_fast.config import StatedUp
from recon_fast.data.chunks import Chunk, Chunks
from recon_fast.data.conventions import radii, scale_of, state_up
from recon_fast.data.loading import Progress, Reading, Tally, stop_at_problems, without_clouds
from recon_fast.data.readers.pictures import FilePictures, PackedPictures
from recon_fast.data.shapes import Conventions, Entry, Features, Problem, Scale, Shapes, Source, Up
from recon_fast.errors import InputError
from recon_fast.schema import hdf5_array, hdf5_attribute, open_hdf5, parse_json

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
    with open_hdf5(path) as file:
        return _has_format(path, file)


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
        shapes.notes += chunks.tally.notes()
        if features_fn is not None:
            shapes.features = features_fn(shapes)
        total = _write(out, shapes, chunks, {problem.key for problem in problems}, dtype)
        shutil.rmtree(partial, ignore_errors=True)
        return Packed(out, shapes, total, out.stat().st_size, problems, chunks.reused, chunks.tally)
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
            file.attrs["notes"] = json.dumps(shapes.notes)
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
        verify: compare the checksums of what is mapped and look for NaN, for which all of it is read once.

    Raises:
        InputError: the file is damaged (it names the dataset), of a newer version, or has smaller clouds.
    """
    with _opened(path) as file:
        get = _Getter(path, file, mapped, verify)
        keys = get.texts("keys", "S")
        count = len(keys)
        if len(set(keys)) < count:
            raise InputError(f"{path} must have keys that differ, got some twice")
        offsets = get.offsets("offsets", count)
        smallest = int(np.diff(offsets).min()) if count else 0
        if smallest < num_points:
            raise InputError(
                f"{path} must have clouds of at least {num_points} points, got one of {smallest}"
            )
        shapes = Shapes(
            name=hdf5_attribute(file, "name", str, str(path)) or path.stem,
            keys=keys,
            points=get.big("points", (int(offsets[-1]), 3)),
            offsets=offsets,
            held_out=get("held_out", (count,), "b"),
            labels=get("labels", (count,), "iu", optional=True),
            class_names=get.texts("class_names", "C"),
            captions=get.texts("captions", count) if "captions" in file else None,
            validation=get("validation", (count,), "b", optional=True),
            conventions=_conventions(path, file),
            features=_features(path, file, get, count),
            checksum=hdf5_attribute(file["points"], "blake2b", str, str(path)),
            notes=parse_json(
                hdf5_attribute(file, "notes", str, str(path)) or "[]",
                list[str],
                f"{path}: notes must be a list",
            ),
        )
        if shapes.labels is not None:
            _check_range(path, "labels", shapes.labels, len(shapes.class_names))
        if "parts" in file:
            _read_parts(path, get, shapes)
        if "pictures" in file:
            starts = get.offsets("picture_offsets", count)
            shapes.pictures = PackedPictures(get.big("pictures", (int(starts[-1]),), "B"), starts, path)
    return shapes


def _features(path: Path, file: Any, get: "_Getter", count: int) -> Features | None:
    if "features" not in file:
        return None
    text = hdf5_attribute(file["features"], "teacher", str, str(path))
    teacher = parse_json(text or "", dict[str, Any], f"{path} must say of which teacher its features are")
    image = get.big("features/image", (count, "V", "D"), "f", optional=True)
    texts = get.big("features/text", ("U", "P", "D"), "f", optional=True)
    index = get("features/caption_index", (count,), "iu", optional=texts is None)
    if texts is not None:
        _check_range(path, "features/caption_index", index, len(texts))
    classes = get("features/class_text", ("C", "D"), "f", optional=True)
    return Features(image=image, text=texts, caption_index=index, class_text=classes, teacher=teacher)


def _read_parts(path: Path, get: "_Getter", shapes: Shapes) -> None:
    """Give shapes their parts, each of which their class must have."""
    wanted = f"{path} must list the parts of each class as whole numbers below 256"
    shapes.class_parts = [
        parse_json(text, list[Annotated[int, Meta(ge=0, lt=256)]], wanted)
        for text in get.texts("class_parts", len(shapes.class_names))
    ]
    shapes.parts = get("parts", (len(shapes.points),), "B")
    if shapes.labels is None:
        raise InputError(f"{path} must have labels, as its points have parts")
    allowed = np.zeros((len(shapes.class_parts), 256), np.bool_)
    for row, parts in zip(allowed, shapes.class_parts, strict=True):
        row[parts] = True
    if not allowed[np.repeat(shapes.labels, np.diff(shapes.offsets)), shapes.parts].all():
        raise InputError(f"{path} must have parts that its classes have, got others")


def _check_range(path: Path, name: str, values: NDArray, count: int) -> None:
    if len(values) and (values.min() < 0 or values.max() >= count):
        raise InputError(
            f"{path} must have {name} from 0 to {count - 1}, got {values.min()} to {values.max()}"
        )


def dataset_checksums(path: Path) -> dict[str, str]:
    """The checksums that a packed file carries, by dataset; what they are of is not read.

    Raises:
        InputError: the file is damaged, or not one that `pack` wrote.
    """
    found: dict[str, str] = {}

    def note(name: str, item: Any) -> None:
        if hasattr(item, "dtype"):  # not a group
            found[name] = str(hdf5_attribute(item, "blake2b", str, str(path)))

    with _opened(path) as file:
        try:
            file.visititems(note)
        except (OSError, RuntimeError) as error:
            raise InputError(f"{path} is damaged: {error}") from error
    return found


def _conventions(path: Path, file: Any) -> Conventions:
    up: Any = hdf5_attribute(file, "up", str, str(path)) or "unknown"
    scale: Any = hdf5_attribute(file, "scale", str, str(path)) or "unknown"
    if up not in get_args(Up) or scale not in get_args(Scale):
        raise InputError(f"{path} is damaged: it states {up} as the up axis and {scale} as the scale")
    return Conventions(up, scale)


class _Getter:
    """Datasets of an open file, verified; real numbers must be finite.

    Args:
        path, file: the file.
        mapped, verify: as `read_packed` takes them, of what is `big`.
    """

    def __init__(self, path: Path, file: Any, mapped: bool, verify: bool) -> None:
        self.path, self.file = path, file
        self.mapped, self.verify = mapped, verify
        self.whole: NDArray[np.uint8] | None = None

    def __call__(
        self, name: str, shape: tuple[int | str, ...], kinds: str = "f", optional: bool = False
    ) -> Any:
        """The array in memory, None where it is optional and absent."""
        dataset = hdf5_array(self.file, name, shape, kinds, optional=optional)
        if dataset is None:
            return None
        array = np.ascontiguousarray(self._read(name, lambda: dataset[()]))
        self._check(name, dataset, _digest(array), bool(np.isfinite(array).all()))
        return array

    def big(self, name: str, shape: tuple[int | str, ...], kinds: str = "f", optional: bool = False) -> Any:
        """The array in memory, or as a read-only memory map where that is wanted and possible."""
        dataset = hdf5_array(self.file, name, shape, kinds, optional=optional)
        if dataset is None:
            return None
        offset = dataset.id.get_offset() if self.mapped else None
        if offset is None:  # also of what is empty, in chunks or compressed
            return self(name, shape, kinds)
        if self.verify:
            state, finite = blake2b(digest_size=16), True
            rows = max(1, _BLOCK_BYTES // max(1, dataset[:1].nbytes))
            for start in range(0, len(dataset), rows):
                part = self._read(name, partial(dataset.__getitem__, slice(start, start + rows)))
                state.update(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
                finite = finite and bool(np.isfinite(part).all())
            self._check(name, dataset, state.hexdigest(), finite)
        try:
            if self.whole is None:
                self.whole = np.memmap(self.path, np.uint8, "r")  # once, as each map keeps a file open
            return self.whole[offset : offset + dataset.nbytes].view(dataset.dtype).reshape(dataset.shape)
        except (OSError, ValueError) as error:
            raise InputError(f"{self.path} is damaged: its {name} cannot be read ({error})") from error

    def offsets(self, name: str, count: int) -> NDArray[np.int64]:
        """Where each of `count` items starts, and the end: from 0 on, never back."""
        found: NDArray[np.int64] = self(name, (count + 1,), "iu").astype(np.int64, copy=False)
        if found[0] != 0 or (np.diff(found) < 0).any():
            raise InputError(f"{self.path} must have {name} that begin with 0 and grow, got others")
        return found

    def texts(self, name: str, count: int | str) -> list[str]:
        """A list of texts."""
        dataset = hdf5_array(self.file, name, (count,), "O")
        texts = self._read(name, lambda: dataset.asstr()[()].tolist() if len(dataset) else [])
        self._check(name, dataset, _digest_texts(texts), True)
        return texts

    def _read(self, name: str, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except (OSError, KeyError, ValueError, RuntimeError, TypeError) as error:
            raise InputError(f"{self.path} is damaged: its {name} cannot be read ({error})") from error

    def _check(self, name: str, dataset: Any, found: str, finite: bool) -> None:
        if hdf5_attribute(dataset, "blake2b", str, str(self.path)) != found:
            raise InputError(
                f"{self.path} is damaged: the checksum of its {name} does not match; pack it again"
            )
        if not finite:
            raise InputError(f"{self.path} must have finite {name}, got NaN or inf; pack it again")


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The open file, of this version of the format. Raises InputError."""
    with open_hdf5(path) as file:
        if not _has_format(path, file):
            raise InputError(f"{path} must be a file that `recon-fast pack` wrote, got another HDF5 file")
        if (version := hdf5_attribute(file, "version", int, str(path))) != VERSION:
            raise InputError(f"{path} must be of format version {VERSION}, got {version}")
        yield file


def _has_format(path: Path, file: Any) -> bool:
    found = file.attrs.get("format")
    return isinstance(found, str) and found == FORMAT
