"""Files of arrays, HDF5 (.h5, .hdf5) and NumPy's (.npy, .npz): which array holds clouds, and its rows.

An array of clouds is [S, N, 3 or more], one cloud is [N, 3 or more]. Where a file has an array `data`, that
one is it; else the only array of such a shape, or the only one of them with a usual name.
"""

import io
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recon_fast.data.archives import BROKEN, open_binary
from recon_fast.data.shapes import BadFile, read_bytes
from recon_fast.errors import InputError
from recon_fast.schema import MOST_SHRUNK, hdf5_array, instead, open_hdf5

HDF5 = (".h5", ".hdf5")
ARRAYS = (*HDF5, ".npz")
PARTS = "pid"  # the array [S, N] with the part that each point belongs to
_NAMES = ("points", "pointcloud", "pointclouds", "point_cloud", "pcd", "xyz", "pos", "x")
_LABELS = ("label", "labels", "y")
_WIDEST = 9  # columns of what is taken for points where nobody names the array: also normals and colours
_NUMPY_ERRORS = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    SyntaxError,
    MemoryError,
    tokenize.TokenError,
    *BROKEN,
)


class Stored(NamedTuple):
    """What a header says of an array."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def looks_transposed(rows: int, columns: int) -> bool:
    """Whether an array [rows, columns] has the coordinates of its points in columns: 3 to 9 rows, which may
    be normals and colours too, and far more columns.
    """
    return 3 <= rows <= 9 and columns >= 16 * rows // 3


class ArrayFile:
    """An open file of arrays.

    Args:
        path: .h5, .hdf5, .npy or .npz.
        content: an h5py.File, or what `np.load` gives of an .npz, or the array of an .npy.
        stored: headers by name, of all arrays that lie in this very file.
    """

    def __init__(self, path: Path, content: Any, stored: Mapping[str, Stored]) -> None:
        self.path, self.content, self.stored = path, content, stored

    def array(self, name: str) -> Any:
        """An array by name; of HDF5 one that is read when it is sliced. Raises InputError."""
        if self.path.suffix.lower() in HDF5:
            return hdf5_array(self.content, name, None)
        if name not in self.stored:
            raise BadFile(self.path, f"must have an array {name}, got {_listed(self.stored)}")
        return self.content if isinstance(self.content, np.ndarray) else self.content[name]

    def clouds(self, name: str | None = None) -> str:
        """The name of the array of clouds, `name` if it is given. Raises InputError."""
        wanted = "[S, N, 3 or more]"
        if name is None and not _may_be_clouds("data", self.stored.get("data"), 3):
            for dims in (3, 2):
                fitting = [name for name, stored in self.stored.items() if _may_be_clouds(name, stored, dims)]
                if dims == 2 and "data" in self.stored:
                    break
                usual = [name for name in fitting if name.lower() in _NAMES]
                fitting = usual if "data" in self.stored else fitting
                if len(found := usual if len(usual) == 1 else fitting) == 1:
                    return found[0]
                if found:
                    several = _listed({name: self.stored[name] for name in fitting})
                    how = "name it (--data.array; --array of pack and inspect)"
                    raise BadFile(self.path, f"must have one array of clouds, got {several}: {how}")
            if "data" not in self.stored:
                raise BadFile(self.path, f"must have an array of clouds {wanted}, got {_listed(self.stored)}")
        name = name or "data"
        found_array = self.array(name)
        shape = found_array.shape
        if len(shape) not in (2, 3) or shape[-1] < 3 or found_array.dtype.kind not in "fiu":
            raise BadFile(self.path, f"must have {name} {wanted}, got {found_array.dtype} {list(shape)}")
        if looks_transposed(*shape[-2:]):
            raise BadFile(self.path, f"must have {name} {wanted}, got {list(shape)}: it looks transposed")
        return name

    def label_name(self, count: int) -> str | None:
        """The name of the array of labels, None where the file has none."""
        if _LABELS[0] in self.stored:
            return _LABELS[0]
        shapes = (count,), (count, 1)
        return next(
            (name for name in _LABELS if name in self.stored and self.stored[name].shape in shapes), None
        )

    def labels(self, count: int) -> NDArray[np.int64] | None:
        """A whole number [S] of each cloud, None where the file has none. Raises InputError."""
        name = self.label_name(count)
        if name is None:
            return None
        found = self.array(name)
        if found.size != count or found.dtype.kind not in "iu":
            raise BadFile(
                self.path, f"`{name}` must be {count} integers, got {found.dtype} {list(found.shape)}"
            )
        return np.asarray(found[()], np.int64).reshape(-1)

    def unread(self, name: str, count: int) -> list[str]:
        """What else it has beside an array of so many clouds and their labels."""
        labels = self.label_name(count)
        names = self.stored if isinstance(self.content, np.ndarray) else self.content
        return [other for other in names if other not in (name, labels)]


def _may_be_clouds(name: str, stored: Stored | None, dims: int) -> bool:
    if stored is None:
        return False
    shape, kinds = stored.shape, "fiu" if name.lower() in ("data", *_NAMES) else "f"
    fits = len(shape) == dims and 3 <= shape[-1] <= _WIDEST and stored.dtype.kind in kinds
    return fits and not looks_transposed(*shape[-2:])


def _listed(stored: Mapping[str, Stored]) -> str:
    return ", ".join(f"{name} {list(array.shape)}" for name, array in stored.items()) or "nothing"


@contextmanager
def open_arrays(path: Path) -> Iterator[ArrayFile]:
    """A file of arrays, open for reading. Raises InputError where it is damaged or of another kind."""
    if path.suffix.lower() in HDF5:
        with open_hdf5(path) as file:
            yield ArrayFile(path, file, dict(_hdf5_stored(file)))
        return
    kind = path.suffix.lower()
    try:
        if kind == ".npy":
            array = _load_npy(path)
            yield ArrayFile(path, array, {"data": Stored(array.shape, array.dtype)})
            return
        with open_binary(path) as binary, np.load(binary, allow_pickle=False) as content:
            yield ArrayFile(path, content, dict(_npz_stored(content)))
    except InputError:
        raise
    except _NUMPY_ERRORS as error:
        raise BadFile(path, f"must be a whole {kind} file of numbers: {error}") from error


def _hdf5_stored(file: Any) -> Iterator[tuple[str, Stored]]:
    for name in file:
        try:
            array = hdf5_array(file, name, None, "fiub")
        except InputError:  # no array, or one that leads out of the file: whoever asks for it is told
            if name in ("data", _LABELS[0]):
                yield name, Stored((), np.dtype("O"))
            continue
        yield name, Stored(array.shape, array.dtype)


def _npz_stored(content: Any) -> Iterator[tuple[str, Stored]]:
    """Headers of the arrays in an .npz; one that claims more than is there raises ValueError."""
    for member in content.zip.infolist():
        with content.zip.open(member) as file:
            stored = read_npy_header(file)
        claimed = stored.dtype.itemsize * int(np.prod(stored.shape, dtype=object))
        if claimed > min(member.file_size, MOST_SHRUNK * member.compress_size + 2**20):
            raise ValueError(f"{member.filename} claims {claimed:,} bytes and stores {member.file_size:,}")
        yield member.filename.removesuffix(".npy"), stored


def read_npy_header(file: IO[bytes]) -> Stored:
    """Shape and dtype of an .npy. Raises ValueError and what else NumPy does where it is none."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return Stored(shape, dtype)


def _load_npy(path: Path) -> NDArray:
    """The array of an .npy, mapped where it does not lie in an archive."""
    if path.is_file():
        return np.load(path, mmap_mode="r", allow_pickle=False)
    return np.load(io.BytesIO(read_bytes(path)), allow_pickle=False)


def holds_one_cloud(path: Path) -> bool:
    """Whether an .npy is one cloud [N, 3 or more], or so broken that reading it must tell."""
    try:
        with open_binary(path) as file:
            return len(read_npy_header(file).shape) != 3
    except _NUMPY_ERRORS:
        return True


def read_array_rows(path: Path, array: str | None, rows: Sequence[int]) -> list[NDArray]:
    """Some clouds of a file of arrays; rows of HDF5 that follow each other are read at once.

    Args:
        path: the file.
        array: name of the array; None takes the one that `ArrayFile.clouds` finds.
        rows: which; 0 of an array [N, 3 or more], which is one cloud.

    Raises:
        BadFile: it is damaged, or has fewer rows.
    """
    try:
        with open_arrays(path) as file:
            data = file.array(array if array == PARTS else file.clouds(array))
            if len(data.shape) == 2 and array != PARTS:
                data = data[()][None]
            if max(rows) >= len(data):
                raise BadFile(path, f"`{array or 'data'}` must have row {max(rows)}, got {len(data)} rows")
            if list(rows) == list(range(rows[0], rows[0] + len(rows))):
                return list(np.asarray(data[rows[0] : rows[0] + len(rows)]))
            return [np.asarray(data[row]) for row in rows]
    except BadFile:
        raise
    except InputError as error:
        raise BadFile(path, str(error).removeprefix(f"{path} ").removesuffix(instead(path))) from error
