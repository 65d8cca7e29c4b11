"""Clouds of scanners: .pcd of the Point Cloud Library, .las and .laz of surveys."""

import io
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

_HEADER = re.compile(rb"(?m)^DATA[ \t]+(\w+)[ \t]*\r?\n")
_RECORD_BYTES = 54  # of a .las, at least
_TYPES = {"F": "f", "I": "i", "U": "u"}


def read_pcd(content: bytes) -> tuple[NDArray[np.floating], bool]:
    """The points of a .pcd file, version 0.7 or older, and whether it has more of each point.

    Points that are not finite, where a scanner saw nothing, are left out.

    Returns:
        Points [N, 3] of the file's type, or float64 of text.

    Raises:
        ValueError: the file is cut, or its header says something else than what follows.
    """
    found = _HEADER.search(content)
    if found is None:
        raise ValueError("a header must end with DATA ascii, binary or binary_compressed")
    lines = content[: found.start()].decode("ascii", "replace").splitlines()
    header = {words[0].upper(): words[1:] for line in lines if (words := line.split()) and words[0][0] != "#"}
    names = header.get("FIELDS") or header.get("COLUMNS") or []
    types, sizes = header.get("TYPE", []), [int(size) for size in header.get("SIZE", [])]
    counts = [int(count) for count in header.get("COUNT", ["1"] * len(names))]
    if not len(names) == len(types) == len(sizes) == len(counts):
        raise ValueError("FIELDS, SIZE, TYPE and COUNT must have one entry for each field")
    axes = [names.index(axis) if axis in names else -1 for axis in "xyz"]
    if -1 in axes or any(counts[axis] != 1 for axis in axes) or min(counts) < 0:
        raise ValueError(f"FIELDS must have x, y and z, each with COUNT 1, got {' '.join(names)}")
    number = int(header["POINTS"][0]) if header.get("POINTS") else _product(header)
    if number < 0:
        raise ValueError(f"POINTS must be at least 0, got {number}")
    dtypes = [np.dtype(f"<{_TYPES.get(kind, '?')}{size}") for kind, size in zip(types, sizes, strict=True)]
    kind, body = found[1].lower(), content[found.end() :]
    if kind == b"ascii":
        table = np.loadtxt(io.BytesIO(body), ndmin=2, comments=None) if number else np.empty((0, 3))
        starts = np.cumsum([0, *counts])
        if table.shape != (number, starts[-1]) and number:
            raise ValueError(f"{number} rows of {starts[-1]} numbers announced, got {list(table.shape)}")
        points = table[:, starts[axes]]
    else:
        widths = [dtype.itemsize * count for dtype, count in zip(dtypes, counts, strict=True)]
        total = number * sum(widths)
        if kind == b"binary_compressed":
            body = _decompressed(body, total)
        elif kind != b"binary":
            raise ValueError(f"DATA must be ascii, binary or binary_compressed, got {kind.decode()}")
        if len(body) < total:
            raise ValueError(f"{total} bytes of {number} points announced, {len(body)} found")
        starts = np.cumsum([0, *widths])
        if kind == b"binary":
            rows = np.frombuffer(body[:total], np.uint8).reshape(number, -1)
            columns = [rows[:, starts[i] : starts[i] + widths[i]].copy().view(dtypes[i])[:, 0] for i in axes]
        else:  # field by field
            columns = [np.frombuffer(body, dtypes[i], number, number * int(starts[i])) for i in axes]
        points = np.stack(columns, 1)
    seen = np.isfinite(points).all(1)
    return points if seen.all() else points[seen], len([name for name in names if name != "_"]) > 3


def _product(header: dict[str, list[str]]) -> int:
    return int(header["WIDTH"][0]) * int(header.get("HEIGHT", ["1"])[0]) if header.get("WIDTH") else -1


def _decompressed(body: bytes, size: int) -> bytes:
    """Data compressed by LZF, behind two numbers: how many bytes follow, and how many they were."""
    if len(body) < 8:
        raise ValueError("sizes of the compressed data announced, nothing found")
    packed, unpacked = (int(n) for n in np.frombuffer(body[:8], "<u4"))
    if unpacked != size or len(body) - 8 < packed:
        raise ValueError(f"{packed} bytes, {size} unpacked, announced; {len(body) - 8} and {unpacked} found")
    data, out, at = body[8 : 8 + packed], bytearray(), 0
    try:
        while at < packed:
            control = data[at]
            at += 1
            if control < 32:  # so many bytes and one more as they are
                out += data[at : at + control + 1]
                at += control + 1
                continue
            length = control >> 5
            if length == 7:
                length += data[at]
                at += 1
            start = len(out) - ((control & 31) << 8) - data[at] - 1
            at += 1
            if start < 0 or len(out) > size:
                raise IndexError
            length += 2
            repeated = out[start : start + length]  # a repeat may run into itself
            out += (repeated * (length // len(repeated) + 1))[:length]
    except IndexError:
        raise ValueError("its compressed data are damaged") from None
    if len(out) != size:
        raise ValueError(f"{size} unpacked bytes announced, {len(out)} found")
    return bytes(out)


def read_las(content: bytes) -> tuple[NDArray[np.float64], bool]:
    """The points of a .las or .laz file, [N, 3] in the units of its coordinate system, and True: such files
    have more of each point.

    Raises:
        ValueError: fewer points are in it than its header announces.
        Exception: of the library, where the file is of another kind or cut.
    """
    import laspy

    records = int.from_bytes(content[100:104], "little")
    if content[24:26] >= b"\1\4":
        records += int.from_bytes(content[243:247], "little")
    if _RECORD_BYTES * records > len(content):  # a loop over them would take hours
        raise ValueError(f"{records} records announced in {len(content)} bytes")
    # The parallel reader of compressed points believes damaged sizes and takes all memory.
    with laspy.open(io.BytesIO(content), laz_backend=laspy.LazBackend.Lazrs) as file:
        announced = file.header.point_count
        # Compressed points take a bit or more each, so that a header cannot make memory be filled.
        if announced > 8 * len(content):
            raise ValueError(f"{announced} points announced in {len(content)} bytes")
        read: Any = file.read()
    if len(read) != announced:
        raise ValueError(f"{announced} points announced, {len(read)} found")
    return np.asarray(read.xyz, np.float64), True
