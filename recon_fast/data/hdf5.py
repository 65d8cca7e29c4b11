"""One packed file, written; and its datasets, which carry the checksum of their bytes, read.

Each dataset has the attribute `blake2b`: of its bytes, of texts of their JSON. Reading verifies it.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_fast.data.archives import size_and_time
from recon_fast.data.readers.pictures import FilePictures
from recon_fast.data.shapes import Shapes, blocks
from recon_fast.errors import InputError
from recon_fast.files import whole_file
from recon_fast.schema import hdf5_array, hdf5_attribute

FORMAT = "recon-fast packed shapes"
VERSION = 1
_ROWS = 1 << 20  # points written at once
_BLOCK_BYTES = 1 << 24  # read at once


def write_packed(out: Path, shapes: Shapes, aside: Path | None = None) -> None:
    """Write shapes as a packed file, which is whole or as it was; features instead of pictures.

    Args:
        out: the file.
        shapes: what it gets; points that are mapped are read a part at a time.
        aside: as `whole_file` takes it.
    """
    import h5py

    sizes = np.diff(shapes.offsets)
    with whole_file(out, aside) as aside, h5py.File(aside, "w") as file:
        file.attrs.update({"format": FORMAT, "version": VERSION, "name": shapes.name})
        file.attrs.update({"up": shapes.conventions.up, "scale": shapes.conventions.scale})
        file.attrs["notes"] = json.dumps(shapes.notes)
        file.attrs["points_per_cloud"] = [int(sizes.min()), int(sizes.max())]
        points = blocks(shapes.points, _ROWS)
        put_parts(file, "points", (int(shapes.offsets[-1]), 3), shapes.points.dtype, points)
        if shapes.class_parts is not None and shapes.parts is not None:
            put(file, "class_parts", [json.dumps(parts) for parts in shapes.class_parts])
            put(file, "parts", shapes.parts)
        for name in ("offsets", "held_out", "validation", "labels", "keys", "class_names", "captions"):
            put(file, name, getattr(shapes, name))
        if shapes.features is not None:
            file.create_group("features").attrs["teacher"] = json.dumps(shapes.features.teacher)
            for name in ("image", "text", "caption_index", "class_text"):
                put(file, f"features/{name}", getattr(shapes.features, name))
        elif isinstance(shapes.pictures, FilePictures):
            pictures = shapes.pictures
            lengths = [size_and_time(path)[0] for path in pictures.paths]
            offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
            put(file, "picture_offsets", offsets)
            parts = (np.frombuffer(pictures.content(i), np.uint8) for i in range(len(pictures)))
            put_parts(file, "pictures", (int(offsets[-1]),), np.dtype(np.uint8), parts)


def put(file: Any, name: str, value: Any) -> None:
    """Write an array or a list of texts as a dataset; nothing for None."""
    import h5py

    if isinstance(value, list):
        dataset = file.create_dataset(name, data=value, shape=(len(value),), dtype=h5py.string_dtype())
        dataset.attrs["blake2b"] = digest_texts(value)
    elif value is not None:
        put_parts(file, name, value.shape, value.dtype, [np.asarray(value)])


def put_parts(
    file: Any, name: str, shape: tuple[int, ...], dtype: np.dtype, parts: Iterable[NDArray]
) -> None:
    """Write a dataset from parts that follow each other; in memory there is one at a time."""
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


def digest_texts(texts: Sequence[str]) -> str:
    """Hex checksum of texts."""
    return blake2b(json.dumps(list(texts)).encode(), digest_size=16).hexdigest()


class Datasets:
    """Datasets of an open file, verified; real numbers must be finite.

    Args:
        path, file: the file.
        mapped, verify: as `recon_fast.data.packed.read_packed` takes them, of what is big.
    """

    def __init__(self, path: Path, file: Any, mapped: bool, verify: bool) -> None:
        self.path, self.file = path, file
        self.mapped, self.verify = mapped, verify
        self.whole: NDArray[np.uint8] | None = None

    def __call__(
        self,
        name: str,
        shape: tuple[int | str, ...],
        kinds: str = "f",
        optional: bool = False,
        big: bool = False,
    ) -> Any:
        """The array, None where it is optional and absent.

        It lies in memory, or, if it is big, in a read-only memory map where that is wanted and possible.
        """
        dataset = hdf5_array(self.file, name, shape, kinds, optional=optional)
        if dataset is None:
            return None
        offset = dataset.id.get_offset() if big and self.mapped else None
        if offset is None:  # also of what is empty, in chunks or compressed
            array = source = np.ascontiguousarray(self._read(name, lambda: dataset[()]))
        else:
            array, source = self._read(name, lambda: self._map(dataset, offset)), dataset
        if offset is None or self.verify:
            state, finite = blake2b(digest_size=16), True
            rows = max(1, _BLOCK_BYTES // max(1, source[:1].nbytes))
            for start in range(0, len(source), rows):
                part = self._read(name, partial(source.__getitem__, slice(start, start + rows)))
                state.update(np.ascontiguousarray(part).data)
                finite = finite and bool(np.isfinite(part).all())
            self._check(name, dataset, state.hexdigest(), finite)
        return array

    def _map(self, dataset: Any, offset: int) -> NDArray:
        if self.whole is None:
            self.whole = np.memmap(self.path, np.uint8, "r")  # once, as each map keeps a file open
        return self.whole[offset : offset + dataset.nbytes].view(dataset.dtype).reshape(dataset.shape)

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
        self._check(name, dataset, digest_texts(texts), True)
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
