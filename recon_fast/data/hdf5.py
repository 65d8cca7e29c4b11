"""Datasets of an HDF5 file that carry the checksum of their bytes, written and read.

Each has the attribute `blake2b`: of its bytes, of texts of their JSON. Reading verifies it.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_fast.errors import InputError
from recon_fast.schema import hdf5_array, hdf5_attribute

_BLOCK_BYTES = 1 << 24  # read at once


def put(file: Any, name: str, array: NDArray) -> None:
    """Write an array as a dataset."""
    array = np.ascontiguousarray(array)
    file.create_dataset(name, data=array).attrs["blake2b"] = digest(array)


def put_texts(file: Any, name: str, texts: Sequence[str]) -> None:
    """Write texts as a dataset."""
    import h5py

    dataset = file.create_dataset(name, data=list(texts), shape=(len(texts),), dtype=h5py.string_dtype())
    dataset.attrs["blake2b"] = digest_texts(texts)


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


def digest(array: NDArray) -> str:
    """Hex checksum of the bytes of a contiguous array."""
    return blake2b(array.reshape(-1).view(np.uint8).data, digest_size=16).hexdigest()


def digest_texts(texts: Sequence[str]) -> str:
    """Hex checksum of texts."""
    return blake2b(json.dumps(list(texts)).encode(), digest_size=16).hexdigest()


class Datasets:
    """Datasets of an open file, verified; real numbers must be finite.

    Args:
        path, file: the file.
        mapped, verify: as `recon_fast.data.packed.read_packed` takes them, of what is `big`.
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
        self._check(name, dataset, digest(array), bool(np.isfinite(array).all()))
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
