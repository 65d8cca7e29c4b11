"""Clouds out of files of one cloud each, and rows of files that hold many.

    .npy                                  an array [N, 3 or more]; one of [S, N, 3 or more] is a file of many
    .txt .xyz .pts .csv                   rows of numbers
    .ply .off .obj .stl .glb .gltf        meshes and scenes, of which points on the surface are drawn; those
                                          without a face are clouds
    .pcd .las .laz                        scans
    .h5 .hdf5 .npz .dat .pkl              many clouds

Whatever is wrong with a file becomes one `BadFile` that names it. Nothing that a pickle names is run.
"""

import io
import tokenize
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recon_fast.data.readers.arrays import HDF5, holds_one_cloud, looks_transposed, read_array_rows
from recon_fast.data.readers.meshes import read_mesh
from recon_fast.data.readers.scans import read_las, read_pcd
from recon_fast.data.readers.text import read_table
from recon_fast.data.shapes import BadFile, Up, read_bytes

SURFACE_POINTS = 8192  # as many as ShapeNet55's own clouds have
MIXED = "formats state different axes that are up"  # begins a note
TOO_FEW = "must have at least"  # begins the message about a small cloud
_FAR = 256.0  # widths from the origin, from which on a cloud is moved there
_COARSE = 0.01  # of a cloud's width: where a file's floats lie so far apart, its shape is gone
_EXTENTS = 1e-15, 1e15  # of coordinates whose squares float32 holds


def key_seed(key: str) -> int:
    """A seed that depends on a shape's key alone, not on its place in the data set."""
    return int.from_bytes(blake2b(f"0 {key}".encode(), digest_size=8).digest(), "little")


class Cloud(NamedTuple):
    """One cloud in the precision of its file."""

    points: NDArray[np.floating]  # [N, 3] float32 or float64, finite, not too far from the origin for float32
    more: bool = False  # the file has more of each point than is used, such as normals and colours
    far: float = 0.0  # how many of its widths the cloud was from the origin, if it was moved there
    parts: NDArray[np.uint8] | None = None  # [N]: the part that each point belongs to
    repeated: bool = False  # the file has fewer points


def read_cloud(path: Path, row: int | None = None, **how: Any) -> NDArray[np.float32]:
    """The cloud in one file, finite points float32 [N, 3]; takes and raises what `load_cloud` does."""
    return load_cloud(path, row, **how).points.astype(np.float32, copy=False)


def load_cloud(
    path: Path,
    row: int | None = None,
    *,
    num_surface_points: int = SURFACE_POINTS,
    min_points: int = 1,
    seed: int = 0,
) -> Cloud:
    """The cloud in one file; one that lies far from the origin is moved there, see `check_points`.

    Args:
        path: a file; of more than three columns the first three are taken.
        row: which cloud of a file of many.
        num_surface_points: points sampled uniformly on the surface of a mesh.
        min_points: fewer points than this are an error.
        seed: of the sampling.

    Raises:
        BadFile: the file is missing, truncated, of another kind or shape, not finite, or too small.
    """
    suffix = path.suffix.lower()
    if row is not None:
        return check_points(path, read_rows(path, [row])[0], min_points)
    if suffix in HDF5:
        raise BadFile(path, "of an .h5 file one row of `data` is read, got no row")
    if suffix not in _READERS:
        raise BadFile(path, f"a cloud must be one of {' '.join(FILES)}")
    points, more = _READERS[suffix](path, num_surface_points, seed)
    return check_points(path, points, min_points, more)


def check_points(path: Path, points: NDArray, min_points: int = 1, more: bool = False) -> Cloud:
    """Points [N, 3 or more] of any real type, of which the first three columns are taken, or BadFile.

    Points of float64 and of whole numbers become float64, all others float32. A cloud that is more than 256
    times as far from the origin as it is wide, such as one in metres of a map, has its mean subtracted in
    float64: float32 would keep less than 16 bits of its shape.
    """
    if points.ndim != 2 or points.shape[1] < 3 or points.dtype.kind not in "fiu":
        raise BadFile(path, f"must be numbers [N, 3 or more], got {points.dtype} {list(points.shape)}")
    if looks_transposed(*points.shape):
        raise BadFile(path, f"must be [N, 3 or more], got {list(points.shape)}: it looks transposed")
    least = max(1, min_points)
    if len(points) < least:
        raise BadFile(path, f"{TOO_FEW} {least} points, got {len(points)}")
    more = more or points.shape[1] > 3
    stored = points.dtype
    small = stored.kind == "f" and stored.itemsize <= 4
    points = np.ascontiguousarray(points[:, :3], np.float32 if small else np.float64)
    largest = float(max(-points.min(), points.max()))
    if not np.isfinite(largest):
        bad = int((~np.isfinite(points)).any(1).sum())
        raise BadFile(path, f"must be finite, got NaN or inf in {bad} of {len(points)} points")
    extent = float(np.ptp(points[:: len(points) // 64 + 1], 0).max())  # of some points, which mostly tells
    if largest <= _FAR * extent and _EXTENTS[0] < extent and largest < _EXTENTS[1]:
        return Cloud(points, more)
    extent = float(np.ptp(points, 0).max())
    if (extent and not _EXTENTS[0] < extent < _EXTENTS[1]) or largest > _EXTENTS[1]:
        what = f"an extent of {extent:.3g}, coordinates up to {largest:.3g}"
        raise BadFile(path, f"must be of a size that float32 can square, 1e-15 to 1e15, got {what}")
    if not extent or largest <= _FAR * extent:
        return Cloud(points, more)
    if small and (step := float(np.spacing(stored.type(largest)))) > _COARSE * extent:
        got = f"coordinates up to {largest:.3g} in steps of {step:.3g} for an extent of {extent:.3g}"
        raise BadFile(path, f"must be stored in float64 or nearer to the origin, got {stored} {got}")
    exact = points.astype(np.float64)
    return Cloud(exact - exact.mean(0), more, largest / extent)


def read_parts(path: Path, allowed: range, min_points: int = 1) -> Cloud:
    """The cloud of a .txt file, and of each point the part that its last column names.

    Raises:
        BadFile: as `load_cloud`, or a part is not an allowed one.
    """
    table, columns = read_table(path, last=True)
    return with_parts(path, check_points(path, table[:, :3], min_points, columns > 4), table[:, 3], allowed)


def with_parts(path: Path, cloud: Cloud, parts: NDArray, allowed: range) -> Cloud:
    """A cloud and the part [N] of each of its points. Raises BadFile where a part is not an allowed one."""
    if parts.shape != (len(cloud.points),):
        raise BadFile(path, f"must have a part of each point, got {list(parts.shape)} parts")
    wrong = ~np.isin(parts, allowed)
    if wrong.any():
        got = f"{parts[wrong][0]:g} in {wrong.sum()} of {len(parts)} points"
        raise BadFile(path, f"parts must be {allowed[0]} to {allowed[-1]}, got {got}")
    return cloud._replace(parts=parts.astype(np.uint8))


def read_rows(path: Path, rows: Sequence[int], array: str | None = None) -> list[NDArray]:
    """Some clouds of a file of many, not checked.

    Args:
        path: .h5, .hdf5, .npy, .npz, .dat or .pkl.
        rows: which.
        array: name of the array of a file of arrays.

    Raises:
        BadFile: the file is damaged, or has fewer clouds.
    """
    if path.suffix.lower() not in (".dat", ".pkl"):
        return read_array_rows(path, array, rows)
    from recon_fast.data.readers.pickled import read_pickled

    found = read_pickled(path)
    if max(rows) >= len(found):
        raise BadFile(path, f"must have cloud {max(rows)}, got {len(found)} clouds")
    return [found[row].cloud for row in rows]


def _read_text(path: Path, _num_points: int, _seed: int) -> tuple[NDArray, bool]:
    table, columns = read_table(path)
    return table, columns > 3


def _read_npy(path: Path, _num_points: int, _seed: int) -> tuple[NDArray, bool]:
    try:
        return np.lib.format.read_array(io.BytesIO(read_bytes(path)), allow_pickle=False), False
    except (ValueError, EOFError, SyntaxError, MemoryError, tokenize.TokenError) as error:
        # truncated, pickled, or no .npy
        raise BadFile(path, f"must be a whole .npy array of numbers: {error}") from error


def _scan(read: Callable[[bytes], tuple[NDArray, bool]]) -> "Reader":
    def reader(path: Path, _num_points: int, _seed: int) -> tuple[NDArray, bool]:
        content = read_bytes(path)
        try:
            return read(content)
        except Exception as error:  # a parser fails in any way on a broken file; all of them mean the same
            what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise BadFile(path, f"must be a whole {path.suffix.lower()} file: {what}") from error

    return reader


# From a path, the number of points on a surface and a seed to points [N, 3 or more] of any real type, and
# whether the file has more of each point.
Reader = Callable[[Path, int, int], tuple[NDArray, bool]]
# How files of one cloud are read, by suffix.
_READERS: dict[str, Reader] = {
    ".npy": _read_npy,
    **dict.fromkeys((".ply", ".off", ".obj", ".stl", ".glb", ".gltf"), read_mesh),
    ".pcd": _scan(read_pcd),
    **dict.fromkeys((".las", ".laz"), _scan(read_las)),
    **dict.fromkeys((".xyz", ".pts", ".txt", ".csv"), _read_text),
}
FILES = tuple(_READERS)  # one cloud each, where a user names them
PERHAPS = (".txt", ".csv")  # clouds in a folder where they hold rows of numbers
# The axis that points up in all files of a format, by its definition or by custom.
_UP: dict[str, Up] = {".glb": "y", ".gltf": "y", ".las": "z", ".laz": "z"}


def up_of(files: Iterable[Path]) -> tuple[Up, str | None]:
    """The axis that is up in all of some files by what their formats say; where that differs, also a note."""
    suffixes = sorted({file.suffix.lower() for file in files})
    stated = {suffix: _UP.get(suffix, "unknown") for suffix in suffixes}
    if len(set(stated.values())) == 1:
        return stated[suffixes[0]], None
    listed = ", ".join(f"{up} in {suffix}" for suffix, up in stated.items())
    return "unknown", f"{MIXED}: {listed}" if listed else None


def is_one_cloud(path: Path) -> bool:
    """Whether a file is of a kind that holds one cloud."""
    suffix = path.suffix.lower()
    return suffix in FILES and path.is_file() and (suffix != ".npy" or holds_one_cloud(path))
