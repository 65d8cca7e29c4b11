"""Clouds out of files: .npy arrays, .ply clouds and meshes, .off and .obj meshes, tables in .txt, and rows of
files that hold many, .h5 and pickles (.dat, .pkl).

Whatever is wrong with a file becomes one `BadFile` that names it. Nothing that a pickle names is run, and a
mesh file never makes another file be read (textures and materials are left alone).
"""

import codecs
import io
import re
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from recon_fast.data.shapes import BadFile, read_bytes
from recon_fast.errors import InputError
from recon_fast.schema import hdf5_array, instead, open_hdf5

SURFACE_POINTS = 8192  # as many as ShapeNet55's own clouds have
_FAR = 256.0  # widths from the origin, from which on a cloud is moved there
_COARSE = 0.01  # of a cloud's width: where a file's floats lie so far apart, its shape is gone
_EXTENTS = 1e-15, 1e15  # of coordinates whose squares float32 holds
_NO_NUMBERS = "must be rows of numbers, got "
_DECIMAL_COMMAS = "must separate numbers in one way, got commas that may be decimal ones: "
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)
_NO_VALUE = re.compile(r"(?m)^[ \t]*,|,[ \t]*,")
# Lines whose commas may be decimal ones: a comma separates x and y and a blank y and z, or the other way
# round; in a table without a decimal point, both separate anything.
_MIXED = re.compile(r"(?m)^[ \t]*[^\s,]+([ \t]*,[ \t]*[^\s,]+[ \t]+[^\s,]|[ \t]+[^\s,]+[ \t]*,)")
_VARIED = re.compile(r"(?m)^(?=[^\n]*\d,\d)[^\n]*[\d,][ \t]+\d")


def key_seed(key: str) -> int:
    """A seed that depends on a shape's key alone, not on its place in the data set."""
    return int.from_bytes(blake2b(f"0 {key}".encode(), digest_size=8).digest(), "little")


class Cloud(NamedTuple):
    """One cloud in the precision of its file."""

    points: NDArray[np.floating]  # [N, 3] float32 or float64, finite, not too far from the origin for float32
    more: bool = False  # the file has more of each point than is used, such as normals and colours
    far: float = 0.0  # how many of its widths the cloud was from the origin, if it was moved there
    parts: NDArray[np.uint8] | None = None  # [N]: the part that each point belongs to


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
        path: .npy [N, 3 or more], .ply, .off, .obj, .txt (rows of numbers), .h5 with `data`
            [S, N, 3 or more], .dat or .pkl; of more than three columns the first three are taken.
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
    if suffix == ".h5":
        raise BadFile(path, "of an .h5 file one row of `data` is read, got no row")
    if suffix not in _READERS:
        raise BadFile(path, f"a cloud must be one of {' '.join(SUFFIXES)}")
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


def looks_transposed(rows: int, columns: int) -> bool:
    """Whether an array [rows, columns] has the coordinates of its points in columns: 3 to 9 rows, which may
    be normals and colours too, and far more columns.
    """
    return 3 <= rows <= 9 and columns >= 16 * rows // 3


def read_parts(path: Path, allowed: range, min_points: int = 1) -> Cloud:
    """The cloud of a .txt file, and of each point the part that its last column names.

    Raises:
        BadFile: as `load_cloud`, or a part is not an allowed one.
    """
    table, columns = read_table(path, last=True)
    cloud, parts = check_points(path, table[:, :3], min_points, columns > 4), table[:, 3]
    wrong = ~np.isin(parts, allowed)
    if wrong.any():
        got = f"{parts[wrong][0]:g} in {wrong.sum()} of {len(parts)} points"
        raise BadFile(path, f"parts must be {allowed[0]} to {allowed[-1]}, got {got}")
    return cloud._replace(parts=parts.astype(np.uint8))


def read_rows(path: Path, rows: Sequence[int]) -> list[NDArray]:
    """Some clouds of a file of many; rows of an .h5 file's `data` that follow each other are read at once."""
    if path.suffix.lower() != ".h5":
        from recon_fast.data.readers.pickled import read_pickled

        found = read_pickled(path)
        if max(rows) >= len(found):
            raise BadFile(path, f"must have cloud {max(rows)}, got {len(found)} clouds")
        return [found[row].cloud for row in rows]
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


def read_table(path: Path, last: bool = False) -> tuple[NDArray[np.float64], int]:
    """The first three columns of a text file of numbers, and the last one too if `last`.

    Columns are separated by commas, blanks or both, rows by line ends; empty lines are passed over. What lies
    between is skipped unread, but every row must have as many columns as the first.

    Returns:
        float64 [N, 3], or [N, 4] with the last column, and how many columns the file has.

    Raises:
        BadFile: the file cannot be read, a value is no number, a row has another number of columns, or commas
            may be decimal ones, as in `1,32 2,39 0,51`: numbers are separated in several ways.
    """
    content = read_bytes(path).removeprefix(codecs.BOM_UTF8)
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise BadFile(path, "must be text in UTF-8 or ASCII, got UTF-16")
    lines = content.decode(errors="replace").splitlines()
    text = "\n".join(lines)

    def refuse(what: str, number: int) -> NoReturn:
        raise BadFile(path, f"{what}{lines[number].strip()[:40]!r} in line {number + 1}")

    if "," in text and (" " in text or "\t" in text):
        decimal = _MIXED.search(text) or ("." not in text and _VARIED.search(text))
        if found := decimal or _NO_VALUE.search(text):
            refuse(_DECIMAL_COMMAS if decimal else _NO_NUMBERS, text.count("\n", 0, found.start()))
        text = text.replace(",", " ")
    separator = "," if "," in text else None
    rows = [(number, row) for number, row in enumerate(text.split("\n")) if row.strip()]
    picked = [0, 1, 2, -1] if last else [0, 1, 2]
    if not rows:
        return np.empty((0, len(picked))), 0
    counts = [len(row.split(separator)) for _, row in rows]
    columns, least = counts[0], len(picked)
    if columns < least:
        raise BadFile(path, f"must have {least} or more columns, got another number in line {rows[0][0] + 1}")
    for (number, _), count in zip(rows, counts, strict=True):
        if count != columns:
            wanted = f"must have {columns} columns as in the first row"
            raise BadFile(path, f"{wanted}, got another number in line {number + 1}")
    try:
        numbers = [row for _, row in rows]
        table = np.loadtxt(numbers, delimiter=separator, usecols=picked, comments=None, ndmin=2)
    except ValueError:
        table = np.array([np.nan])
    if not np.isfinite(table).all():
        for number, row in rows:
            fields = row.split(separator)
            if not all(_NUMBER.fullmatch(fields[i].strip()) for i in picked):
                refuse(_NO_NUMBERS, number)
    return table, columns


def _read_text(path: Path, _num_points: int, _seed: int) -> tuple[NDArray, bool]:
    table, columns = read_table(path)
    return table, columns > 3


def _read_npy(path: Path, _num_points: int, _seed: int) -> tuple[NDArray, bool]:
    try:
        return np.lib.format.read_array(io.BytesIO(read_bytes(path)), allow_pickle=False), False
    except (ValueError, EOFError, SyntaxError, MemoryError) as error:  # truncated, pickled, or no .npy
        raise BadFile(path, f"must be a whole .npy array of numbers: {error}") from error


def _read_mesh(path: Path, num_points: int, seed: int) -> tuple[NDArray, bool]:
    """Points of a .ply, or on the surface of a mesh, and whether the file has more of each point."""
    import trimesh

    content, suffix = read_bytes(path), path.suffix.lower()
    if suffix != ".ply":  # a comment or a name in an old encoding is nothing to a cloud
        content = content.decode("utf-8-sig", "replace").encode()
    if suffix == ".off":
        # ModelNet glues the counts to the word, others write it small.
        header = re.compile(rb"\A\s*([a-z]*off\b|C?OFF(?=[-\d]))", re.IGNORECASE)
        content = header.sub(lambda found: found[1].upper() + b"\n", content)
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


def _hint(content: bytes, suffix: str) -> str:
    """What may be the reason why a file cannot be read, for the end of a message."""
    if suffix == ".ply":
        lists = [name for kind, name in _vertex_properties(content) if kind == b"list"]
        name = lists[0].decode(errors="replace") if lists else ""
        return f" (its vertices have a list, {name}: save it without)" if lists else ""
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


# How files of one cloud are read, by suffix: from a path, the points on a surface and a seed to points
# [N, 3 or more] of any real type, and whether the file has more of each point.
_READERS: dict[str, Callable[[Path, int, int], tuple[NDArray, bool]]] = {
    ".npy": _read_npy,
    ".ply": _read_mesh,
    ".off": _read_mesh,
    ".obj": _read_mesh,
    ".txt": _read_text,
}
FILES = tuple(_READERS)  # one cloud each, where a user names them
# Those that are clouds wherever they lie in a folder: a .txt beside a cloud is its caption.
SUFFIXES = (*(suffix for suffix in FILES if suffix != ".txt"), ".h5")
