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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_fast.errors import InputError

SUFFIXES = (".npy", ".ply", ".off", ".obj", ".h5")
FILES = (".npy", ".ply", ".off", ".obj", ".txt")  # one cloud each, where a user names them
SURFACE_POINTS = 8192  # as many as ShapeNet55's own clouds have


class BadFile(InputError):
    """A file that cannot be used.

    Attributes:
        file: which one.
        what: what was wanted and what came, without the file's name.
    """

    def __init__(self, file: Path, what: str) -> None:
        what = " ".join(what.split())
        super().__init__(f"{file}: {what}")
        self.file = file
        self.what = what


def key_seed(key: str, seed: int = 0) -> int:
    """A seed that depends on a shape's key alone, not on its place in the data set."""
    return int.from_bytes(blake2b(f"{seed} {key}".encode(), digest_size=8).digest(), "little")


def read_cloud(
    path: Path,
    row: int | None = None,
    *,
    num_surface_points: int = SURFACE_POINTS,
    min_points: int = 1,
    seed: int = 0,
) -> NDArray[np.float32]:
    """The cloud in one file.

    Args:
        path: .npy [N, 3 or more], .ply, .off, .obj, .txt (rows of numbers), .h5 with `data`
            [S, N, 3 or more], .dat or .pkl; of more than three columns the first three are taken.
        row: which cloud of a file of many.
        num_surface_points: points sampled uniformly on the surface of a mesh.
        min_points: fewer points than this are an error.
        seed: of the sampling.

    Returns:
        Finite points float32 [N, 3].

    Raises:
        BadFile: the file is missing, truncated, of another kind or shape, not finite, or too small.
    """
    suffix = path.suffix.lower()
    if row is not None:
        points = read_rows(path, [row])[0]
    elif suffix == ".h5":
        raise BadFile(path, "of an .h5 file one row of `data` is read, got no row")
    elif suffix == ".npy":
        points = _read_npy(path)
    elif suffix == ".txt":
        from recon_fast.data.text import read_table  # numba takes a moment to load

        points = read_table(path)
    elif suffix in SUFFIXES:
        points = _read_mesh(path, suffix, num_surface_points, seed)
    else:
        raise BadFile(path, f"a cloud must be one of {' '.join(SUFFIXES)}")
    return check_points(path, points, min_points)


def check_points(path: Path, points: NDArray, min_points: int = 1) -> NDArray[np.float32]:
    """Points [N, 3 or more] of any number type as finite float32 [N, 3], or BadFile."""
    if points.ndim != 2 or points.shape[1] < 3 or points.dtype.kind not in "fiu":
        raise BadFile(path, f"must be numbers [N, 3 or more], got {points.dtype} {list(points.shape)}")
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes inf, which is reported below
        points = np.ascontiguousarray(points[:, :3], np.float32)
    if len(points) < max(1, min_points):
        raise BadFile(path, f"must have at least {max(1, min_points)} points, got {len(points)}")
    finite = np.isfinite(points)
    if not finite.all():
        raise BadFile(
            path, f"must be finite, got NaN or inf in {(~finite).any(1).sum()} of {len(points)} points"
        )
    return points


def read_parts(
    path: Path, allowed: range, min_points: int = 1
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Points [N, 3] of a .txt file, and of each the part [N] that its last column names.

    Raises:
        BadFile: as `read_cloud`, or a part is not an allowed one.
    """
    from recon_fast.data.text import read_table

    table = read_table(path, last=True)
    points, parts = check_points(path, table, min_points), table[:, 3]
    wrong = ~np.isin(parts, allowed)
    if wrong.any():
        got = f"{parts[wrong][0]:g} in {wrong.sum()} of {len(parts)} points"
        raise BadFile(path, f"parts must be {allowed[0]} to {allowed[-1]}, got {got}")
    return points, parts.astype(np.uint8)


def read_rows(path: Path, rows: Sequence[int]) -> list[NDArray]:
    """Some clouds of a file of many; rows of an .h5 file's `data` that follow each other are read at once."""
    if path.suffix.lower() != ".h5":
        from recon_fast.data.pickled import read_pickled

        clouds = read_pickled(path).clouds
        if max(rows) >= len(clouds):
            raise BadFile(path, f"must have cloud {max(rows)}, got {len(clouds)} clouds")
        return [clouds[row] for row in rows]
    import h5py

    try:
        with h5py.File(path, "r") as file:
            data = hdf5_data(path, file)
            if max(rows) >= len(data):
                raise BadFile(path, f"`data` must have row {max(rows)}, got {len(data)} rows")
            if list(rows) == list(range(rows[0], rows[0] + len(rows))):
                return list(data[rows[0] : rows[0] + len(rows)])
            return [data[row] for row in rows]
    except OSError as error:
        raise BadFile(path, f"cannot be read: {error}") from error


def hdf5_data(path: Path, file: Any) -> Any:
    """The dataset `data` [S, N, 3 or more] of an open .h5 file, or BadFile."""
    data = file.get("data")
    shape = getattr(data, "shape", None)
    if shape is None:
        raise BadFile(
            path, f"must have an array `data` [S, N, 3 or more], got {', '.join(file) or 'nothing'}"
        )
    if len(shape) != 3 or shape[2] < 3:
        raise BadFile(path, f"`data` must be [S, N, 3 or more], got {list(shape)}")
    return data


def _read_npy(path: Path) -> NDArray:
    try:
        with path.open("rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except OSError as error:
        raise BadFile(path, f"cannot be read: {error.strerror or error}") from error
    except (ValueError, EOFError, SyntaxError, MemoryError) as error:  # truncated, pickled, or no .npy
        raise BadFile(path, f"must be a whole .npy array of numbers: {error}") from error


def _read_mesh(path: Path, suffix: str, num_points: int, seed: int) -> NDArray:
    import trimesh

    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadFile(path, f"cannot be read: {error.strerror or error}") from error
    if suffix != ".ply":  # a comment or a name in an old encoding is nothing to a cloud
        content = content.decode("utf-8-sig", "replace").encode()
    if suffix == ".off":
        content = re.sub(
            rb"\A\s*(C?OFF)(?=[-\d])", rb"\1\n", content
        )  # ModelNet glues the counts to the word
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
            return trimesh.sample.sample_surface(mesh, num_points, seed=seed % 2**32)[0]
    except Exception as error:  # a parser fails in any way on a broken file; all of them mean the same
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise BadFile(path, f"must be a whole {suffix} file: {what}") from error
    if suffix != ".ply":
        raise BadFile(path, f"must be a mesh with faces, got {len(vertices)} vertices and no face")
    return vertices


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
        found = re.match(rb"\s*C?OFF\s+(?:#[^\n]*\s+)*(\d+)\s+(\d+)", content)
        return (int(found[1]), int(found[2])) if found else None
    return None
