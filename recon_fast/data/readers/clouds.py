"""Clouds out of files: .npy arrays, .ply clouds and meshes, .off and .obj meshes, tables in .txt, and rows of
files that hold many, .h5 and pickles (.dat, .pkl).

Whatever is wrong with a file becomes one `BadFile` that names it. Nothing that a pickle names is run, and a
mesh file never makes another file be read (textures and materials are left alone).
"""

import io
import re
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recon_fast.data.shapes import BadFile
from recon_fast.errors import InputError
from recon_fast.schema import hdf5_array, instead, open_hdf5

SUFFIXES = (".npy", ".ply", ".off", ".obj", ".h5")
FILES = (".npy", ".ply", ".off", ".obj", ".txt")  # one cloud each, where a user names them
SURFACE_POINTS = 8192  # as many as ShapeNet55's own clouds have
_FAR = 256.0  # widths from the origin, from which on a cloud is moved there
_COARSE = 0.01  # of a cloud's width: where a file's floats lie so far apart, its shape is gone
_EXTENTS = 1e-15, 1e15  # of coordinates whose squares float32 holds


def key_seed(key: str, seed: int = 0) -> int:
    """A seed that depends on a shape's key alone, not on its place in the data set."""
    return int.from_bytes(blake2b(f"{seed} {key}".encode(), digest_size=8).digest(), "little")


class Loaded(NamedTuple):
    """One cloud in the precision of its file."""

    points: NDArray[np.floating]  # [N, 3] float32 or float64, finite, not too far from the origin for float32
    more: bool = False  # the file has more of each point, such as normals and colours
    far: float = 0.0  # how many of its widths the cloud was from the origin, if it was moved there


def read_cloud(
    path: Path,
    row: int | None = None,
    *,
    num_surface_points: int = SURFACE_POINTS,
    min_points: int = 1,
    seed: int = 0,
) -> NDArray[np.float32]:
    """The cloud in one file; one that lies far from the origin is moved there, see `check_points`.

    Args:
        path, row, num_surface_points, min_points, seed: as `load_cloud` takes them.

    Returns:
        Finite points float32 [N, 3].

    Raises:
        BadFile: the file is missing, truncated, of another kind or shape, not finite, or too small.
    """
    loaded = load_cloud(path, row, num_surface_points=num_surface_points, min_points=min_points, seed=seed)
    return loaded.points.astype(np.float32, copy=False)


def load_cloud(
    path: Path,
    row: int | None = None,
    *,
    num_surface_points: int = SURFACE_POINTS,
    min_points: int = 1,
    seed: int = 0,
) -> Loaded:
    """The cloud in one file, in the precision of the file.

    Args:
        path: .npy [N, 3 or more], .ply, .off, .obj, .txt (rows of numbers), .h5 with `data`
            [S, N, 3 or more], .dat or .pkl; of more than three columns the first three are taken.
        row: which cloud of a file of many.
        num_surface_points: points sampled uniformly on the surface of a mesh.
        min_points: fewer points than this are an error.
        seed: of the sampling.

    Raises:
        BadFile: as `read_cloud`.
    """
    suffix = path.suffix.lower()
    more = False
    if row is not None:
        points = read_rows(path, [row])[0]
    elif suffix == ".h5":
        raise BadFile(path, "of an .h5 file one row of `data` is read, got no row")
    elif suffix == ".npy":
        points = _read_npy(path)
    elif suffix == ".txt":
        from recon_fast.data.readers.text import read_table  # numba takes a moment to load

        points, columns = read_table(path)
        more = columns > 3
    elif suffix in SUFFIXES:
        points, more = _read_mesh(path, suffix, num_surface_points, seed)
    else:
        raise BadFile(path, f"a cloud must be one of {' '.join(SUFFIXES)}")
    return check_points(path, points, min_points, more)


def check_points(path: Path, points: NDArray, min_points: int = 1, more: bool = False) -> Loaded:
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
        raise BadFile(path, f"must have at least {least} points, got {len(points)}")
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
        return Loaded(points, more)
    extent = float(np.ptp(points, 0).max())
    if (extent and not _EXTENTS[0] < extent < _EXTENTS[1]) or largest > _EXTENTS[1]:
        what = f"an extent of {extent:.3g}, coordinates up to {largest:.3g}"
        raise BadFile(path, f"must be of a size that float32 can square, 1e-15 to 1e15, got {what}")
    if not extent or largest <= _FAR * extent:
        return Loaded(points, more)
    if small and (step := float(np.spacing(stored.type(largest)))) > _COARSE * extent:
        got = f"coordinates up to {largest:.3g} in steps of {step:.3g} for an extent of {extent:.3g}"
        raise BadFile(path, f"must be stored in float64 or nearer to the origin, got {stored} {got}")
    exact = points.astype(np.float64)
    return Loaded(exact - exact.mean(0), more, largest / extent)


def looks_transposed(rows: int, columns: int) -> bool:
    """Whether an array [rows, columns] has the coordinates of its points in columns: 3 to 9 rows, which may
    be normals and colours too, and far more columns.
    """
    return 3 <= rows <= 9 and columns >= 16 * rows // 3


def read_parts(path: Path, allowed: range, min_points: int = 1) -> tuple[Loaded, NDArray[np.uint8]]:
    """The cloud of a .txt file, and of each point the part [N] that its last column names.

    Raises:
        BadFile: as `read_cloud`, or a part is not an allowed one.
    """
    from recon_fast.data.readers.text import read_table

    table, columns = read_table(path, last=True)
    loaded, parts = check_points(path, table[:, :3], min_points, columns > 4), table[:, 3]
    wrong = ~np.isin(parts, allowed)
    if wrong.any():
        got = f"{parts[wrong][0]:g} in {wrong.sum()} of {len(parts)} points"
        raise BadFile(path, f"parts must be {allowed[0]} to {allowed[-1]}, got {got}")
    return loaded, parts.astype(np.uint8)


def read_rows(path: Path, rows: Sequence[int]) -> list[NDArray]:
    """Some clouds of a file of many; rows of an .h5 file's `data` that follow each other are read at once."""
    if path.suffix.lower() != ".h5":
        from recon_fast.data.readers.pickled import read_pickled

        clouds = read_pickled(path).clouds
        if max(rows) >= len(clouds):
            raise BadFile(path, f"must have cloud {max(rows)}, got {len(clouds)} clouds")
        return [clouds[row] for row in rows]
    try:
        with open_hdf5(path) as file:
            data = hdf5_clouds(path, file)
            if max(rows) >= len(data):
                raise BadFile(path, f"`data` must have row {max(rows)}, got {len(data)} rows")
            if list(rows) == list(range(rows[0], rows[0] + len(rows))):
                return list(data[rows[0] : rows[0] + len(rows)])
            return [data[row] for row in rows]
    except BadFile:
        raise
    except InputError as error:
        raise BadFile(path, str(error).removeprefix(f"{path} ").removesuffix(instead(path))) from error


def hdf5_clouds(path: Path, file: Any) -> Any:
    """The dataset `data` [S, N, 3 or more] of an open .h5 file. Raises InputError."""
    data = hdf5_array(file, "data", ("S", "N", "3 or more"))
    hint = ": it looks transposed" if looks_transposed(*data.shape[1:]) else ""
    if hint or data.shape[2] < 3:
        raise BadFile(path, f"must have data [S, N, 3 or more], got {list(data.shape)}{hint}")
    return data


def _read_npy(path: Path) -> NDArray:
    try:
        with path.open("rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except OSError as error:
        raise BadFile(path, f"cannot be read: {error.strerror or error}") from error
    except (ValueError, EOFError, SyntaxError, MemoryError) as error:  # truncated, pickled, or no .npy
        raise BadFile(path, f"must be a whole .npy array of numbers: {error}") from error


def _read_mesh(path: Path, suffix: str, num_points: int, seed: int) -> tuple[NDArray, bool]:
    """Points of a .ply, or on the surface of a mesh, and whether the file has more of each point."""
    import trimesh

    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadFile(path, f"cannot be read: {error.strerror or error}") from error
    if suffix != ".ply":  # a comment or a name in an old encoding is nothing to a cloud
        content = content.decode("utf-8-sig", "replace").encode()
    if suffix == ".off":
        # ModelNet glues the counts to the word, others write it small.
        content = re.sub(
            rb"\A\s*([a-z]*off)\b|\A\s*(C?OFF)(?=[-\d])", _off_header, content, flags=re.IGNORECASE
        )
        if not re.match(rb"\w*OFF\b", content):
            raise BadFile(path, "must begin with the word OFF, got another first line")
    expected = _stated_counts(content, suffix)
    try:
        if suffix == ".obj" and re.search(rb"(?m)^\s*f\s[^\n]*-\d", content):
            content = _absolute_faces(content)
        # From memory and without a resolver, so that no other file can be opened.
        mesh: Any = trimesh.load(
            io.BytesIO(content), file_type=suffix[1:], process=False, maintain_order=True, skip_materials=True
        )
        if isinstance(mesh, trimesh.Scene):
            mesh = mesh.to_mesh()
        vertices = np.asarray(mesh.vertices)
        faces = np.asarray(getattr(mesh, "faces", np.empty((0, 3))))
        if expected is not None and (len(vertices) < expected[0] or (expected[1] and not len(faces))):
            raise ValueError(f"{expected[0]} vertices announced, {len(vertices)} found")
        if len(faces):
            if not np.isfinite(vertices).all() or not mesh.area > 0:
                raise ValueError("its surface must have an area above 0 and finite vertices")
            return trimesh.sample.sample_surface(mesh, num_points, seed=seed % 2**32)[0], False
    except Exception as error:  # a parser fails in any way on a broken file; all of them mean the same
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise BadFile(path, f"must be a whole {suffix} file: {what}{_hint(content, suffix)}") from error
    if suffix != ".ply":
        raise BadFile(path, f"must be a mesh with faces, got {len(vertices)} vertices and no face")
    return vertices, len(_vertex_properties(content)) > 3


def _off_header(found: re.Match[bytes]) -> bytes:
    return (found[1] or found[2]).upper() + b"\n"


def _hint(content: bytes, suffix: str) -> str:
    """What may be the reason why a file cannot be read, for the end of a message."""
    if suffix == ".ply":
        lists = [name for kind, name in _vertex_properties(content) if kind == b"list"]
        return (
            f" (its vertices have a list, {lists[0].decode(errors='replace')}: save it without)"
            if lists
            else ""
        )
    commas = re.search(rb"(?m)^\s*v?\s*-?\d+,\d+\s+-?\d+,\d+", content)
    return " (it has decimal commas: write points)" if commas else ""


def _vertex_properties(content: bytes) -> list[tuple[bytes, bytes]]:
    """(type, name) of all that a .ply has of each vertex, by its header."""
    header = content.split(b"end_header", 1)[0]
    found = re.search(rb"element\s+vertex\s[^\n]*\n(.*?)(?=element\s|\Z)", header, re.DOTALL)
    lines = re.findall(rb"property\s+(\w+)[^\n]*?(\w+)\s*(?:\n|\Z)", found[1]) if found else []
    return [(kind, name) for kind, name in lines]


def _absolute_faces(content: bytes) -> bytes:
    """An .obj whose faces count vertices from 1; trimesh counts -1 back from the last vertex of the file, not
    from the last before the face.
    """
    count, lines = 0, []
    for line in content.splitlines():
        word, *corners = line.split() or [b""]
        if word == b"v":
            count += 1
        elif word == b"f":
            numbers = [int(corner.split(b"/")[0]) for corner in corners]
            line = b"f " + b" ".join(b"%d" % (n if n > 0 else count + 1 + n) for n in numbers)
        lines.append(line)
    return b"\n".join(lines) + b"\n"


def _stated_counts(content: bytes, suffix: str) -> tuple[int, int] | None:
    """(vertices, faces) that the header announces; a parser may take a cut file for a smaller one."""
    if suffix == ".ply":
        header = content.split(b"end_header", 1)[0]
        counts = dict(re.findall(rb"element\s+(vertex|face)\s+(\d+)", header))
        return int(counts.get(b"vertex", 0)), int(counts.get(b"face", 0))
    if suffix == ".off":
        found = re.match(rb"\s*\w*OFF\s+(?:#[^\n]*\s+)*(\d+)\s+(\d+)", content)
        return (int(found[1]), int(found[2])) if found else None
    return None
