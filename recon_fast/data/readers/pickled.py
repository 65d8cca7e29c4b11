"""Pickles of arrays and plain values, read without running anything that they name.

A pickle is a program: it may call any function by name. Here it gets none of Python's or numpy's own, only
stand-ins for the few that rebuild an array, a dtype or a number. Arrays are views of the mapped file, so that
opening a pickle of gigabytes costs its small parts alone, and nothing is allocated on the word of the file.

Two kinds of them hold clouds: the cache of ModelNet's text files, and the folds of few-shot classification.

    <name>_8192pts_fps.dat   [clouds [N, 3 or more] each, labels [1] each]
    <fold>.pkl               {"train": [(cloud, label, class)], "test": the same}
"""

import math
import mmap
import pickle
import re
import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recon_fast.data.shapes import BadFile, Entry, Problem
from recon_fast.files import open_regular

_LARGE = 1024  # bytes from which a text of data stays a view of the file
_SLACK = 1 << 16  # bytes of small arrays and numbers that a small file may make
_DTYPE = re.compile(r"[<>=|]?([biuf]\d{1,2}|\?|[SU]\d{1,4})")


def read_pickle(path: Path) -> Any:
    """What a pickle of any protocol holds: numpy arrays, numpy numbers, texts, numbers, and lists, tuples,
    dicts and sets of them; arrays are read-only views of the file. Texts of Python 2 are read as latin-1.

    Raises:
        BadFile: the file is missing, cut or no pickle; it names anything else, or holds an array of objects.
    """
    try:
        with open_regular(path) as file:
            memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError as error:
        raise BadFile(path, "must be a whole pickle, got an empty file") from error
    except OSError as error:
        raise BadFile(path, f"cannot be read: {error.strerror or error}") from error
    try:
        return _resolved(_Unpickler(memoryview(memory)).load(), {})
    except _Refused as error:
        raise BadFile(path, f"must be a pickle of arrays and plain values alone, got {error}") from error
    except Exception as error:  # a broken pickle fails in any way; all of them mean the same
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise BadFile(path, f"must be a whole pickle: {what}") from error


class _Refused(pickle.UnpicklingError):
    """What a pickle asked for and does not get."""


class _Reader:
    """A file in memory; asking for more bytes than are left is an error before anything is allocated."""

    def __init__(self, memory: memoryview) -> None:
        self.memory = memory
        self.at = 0

    def view(self, count: int) -> memoryview:
        if not 0 <= count <= len(self.memory) - self.at:
            raise EOFError(f"{count} bytes announced, {len(self.memory) - self.at} left")
        self.at += count
        return self.memory[self.at - count : self.at]

    def read(self, count: int) -> bytes:
        return bytes(self.view(count))

    def readline(self) -> bytes:
        start, stop = self.at, self.at
        while True:
            piece = bytes(self.memory[stop : stop + 256])
            found = piece.find(b"\n")
            stop += len(piece) if found < 0 else found + 1
            if found >= 0 or not piece:
                return self.read(stop - start)


class _Dtype:
    """A dtype on its way."""

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or not _DTYPE.fullmatch(code):
            raise _Refused(f"the numpy dtype {code!r:.60}")
        self.dtype = np.dtype(code)

    def build(self, state: Any) -> None:
        _version, order, *rest = state
        if rest[:3] != [None, None, None] or order not in ("<", ">", "=", "|"):
            raise _Refused("a structured numpy dtype")
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """An array on its way: empty until its state has come."""

    def __init__(self, *_: Any) -> None:
        self.array: NDArray | None = None

    def build(self, state: Any) -> None:
        shape, dtype, fortran, data = state[-4:]
        self.array = _as_array(data, dtype, shape, fortran)


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> _Array:
    made = _Array()
    made.array = _as_array(data, dtype, shape, order == "F")
    if order == "K" and axes is not None:
        made.array = made.array.transpose(axes)
    return made


def _scalar(dtype: Any, data: Any) -> Any:
    return _as_array(data, dtype, (), False)[()]


def _as_array(data: Any, dtype: Any, shape: Any, fortran: Any) -> NDArray:
    """A view of `data` as an array, whose size must be just that of the data."""
    if not isinstance(dtype, _Dtype):
        raise _Refused(f"an array of {type(dtype).__name__} in place of a dtype")
    if not isinstance(shape, tuple) or len(shape) > 32 or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError("an array must have a shape of whole numbers")
    view = memoryview(data.encode("latin-1") if isinstance(data, str) else data)
    size, item = math.prod(shape), dtype.dtype.itemsize
    if size * item != view.nbytes or not item:
        raise ValueError(f"an array {list(shape)} of {dtype.dtype} in {view.nbytes} bytes")
    flat = np.frombuffer(view, dtype.dtype) if size else np.empty(0, dtype.dtype)
    return flat.reshape(shape, order="F" if fortran else "C")


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """What Python 3 writes for bytes in the protocols of Python 2."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise _Refused(f"_codecs.encode to {encoding!r:.40}")
    return text.encode("latin-1")


def _no_bytes(*arguments: Any) -> bytes:
    if arguments:
        raise _Refused("bytes of something")
    return b""


class _Global:
    """A stand-in for a function or class, which a pickle can call and pass on and cannot change."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = call

    def __call__(self, *arguments: Any) -> Any:
        return self.call(*arguments)


_NDARRAY = _Global(_Array)
_GLOBALS = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Global(_Dtype),
    ("_codecs", "encode"): _Global(_encode),
    ("__builtin__", "bytes"): _Global(_no_bytes),
    ("builtins", "bytes"): _Global(_no_bytes),
}
for _core in ("numpy.core", "numpy._core"):  # before and since numpy 2
    _GLOBALS[f"{_core}.multiarray", "_reconstruct"] = _NDARRAY
    _GLOBALS[f"{_core}.multiarray", "scalar"] = _Global(_scalar)
    _GLOBALS[f"{_core}.numeric", "_frombuffer"] = _Global(_from_buffer)


_Python: Any = pickle._Unpickler


class _Unpickler(_Python):
    """Python's own unpickler in Python, less every instruction that makes or changes an object.

    The one in C allocates tables and texts of whatever size a file claims.
    """

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(_Python.dispatch)

    def __init__(self, memory: memoryview) -> None:
        self.reader = _Reader(memory)
        self.left = (
            2 * len(memory) + _SLACK
        )  # bytes: data that is encoded counts twice, as bytes and as array
        super().__init__(self.reader, encoding="latin-1")

    def count(self, made: Any) -> None:
        """A file may hold its data once; calling for copies of one text again and again is refused."""
        value = made.array if isinstance(made, _Array) else made
        self.left -= len(value) if isinstance(value, bytes) else getattr(value, "nbytes", 0)
        if self.left < 0:
            raise _Refused("copies of its data, more than it holds")

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _GLOBALS[module, name]
        except KeyError:
            raise _Refused(f"{module}.{name}, which could run code") from None

    def load_frame(self) -> None:  # frames only help to read from a pipe
        self.reader.view(8)

    def load_build(self) -> None:
        state, made = self.stack.pop(), self.stack[-1]
        if not isinstance(made, _Dtype | _Array):
            raise _Refused(f"a change of a {type(made).__name__}")
        made.build(state)
        self.count(made)

    def load_reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack[-1]
        if not isinstance(function, _Global):
            raise _Refused(f"a call of a {type(function).__name__}")
        self.stack[-1] = function(*arguments)
        self.count(self.stack[-1])

    def load_text(self, form: str) -> None:
        (count,) = struct.unpack(form, self.reader.view(struct.calcsize(form)))
        data = self.reader.view(count)
        small = bytes(data) if count < _LARGE else data
        is_text = form == "<i" and count < _LARGE  # long texts of Python 2 are data of arrays
        self.append(str(small, "latin-1") if is_text else small)

    def load_instance(self) -> None:
        module, name = (self.readline()[:-1].decode("latin-1") for _ in range(2))
        raise _Refused(f"{module}.{name}, which could run code")


def _refuse(opcode: bytes) -> Callable[[Any], None]:
    def load(_: Any) -> None:
        raise _Refused(f"the instruction {opcode!r}, which could run code")

    return load


def _into(kind: type, opcode: bytes, depth: int) -> None:
    """Let an opcode change a list, dict or set alone, which lies `depth` below, or before a mark for 0."""
    load_any = _Python.dispatch[opcode[0]]

    def load(self: Any) -> None:
        target = self.stack[-1 - depth] if depth else self.metastack[-1][-1]
        if type(target) is not kind:
            raise _Refused(f"a change of a {type(target).__name__}")
        load_any(self)

    _Unpickler.dispatch[opcode[0]] = load


_Unpickler.dispatch |= {
    pickle.FRAME[0]: _Unpickler.load_frame,
    pickle.BUILD[0]: _Unpickler.load_build,
    pickle.REDUCE[0]: _Unpickler.load_reduce,
    pickle.INST[0]: _Unpickler.load_instance,
    pickle.BINSTRING[0]: lambda self: self.load_text("<i"),
    pickle.BINBYTES[0]: lambda self: self.load_text("<I"),
    pickle.BINBYTES8[0]: lambda self: self.load_text("<Q"),
    pickle.BYTEARRAY8[0]: lambda self: self.load_text("<Q"),
}
for _opcode in (
    *(pickle.OBJ, pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.EXT1, pickle.EXT2, pickle.EXT4),
    *(pickle.PERSID, pickle.BINPERSID, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER),
):
    _Unpickler.dispatch[_opcode[0]] = _refuse(_opcode)
_into(list, pickle.APPEND, 1)
_into(list, pickle.APPENDS, 0)
_into(dict, pickle.SETITEM, 2)
_into(dict, pickle.SETITEMS, 0)
_into(set, pickle.ADDITEMS, 0)


def _resolved(value: Any, seen: dict[int, tuple[Any, Any]]) -> Any:
    """A value with arrays for what stood in for them, lists and dicts changed in place."""
    if isinstance(value, _Array):
        if value.array is None:
            raise ValueError("an array without its data")
        return value.array
    if isinstance(value, _Global | _Dtype):
        raise _Refused("a function or a type as a value")
    if not isinstance(value, list | tuple | dict | memoryview):
        return value
    if id(value) in seen:
        return seen[id(value)][1]
    if isinstance(value, tuple | memoryview):
        copy = bytes(value) if isinstance(value, memoryview) else tuple(_resolved(v, seen) for v in value)
        seen[id(value)] = value, copy  # both are kept, so that no other object gets the id
        return copy
    seen[id(value)] = value, value
    for key, part in list(value.items() if isinstance(value, dict) else enumerate(value)):
        value[key] = _resolved(part, seen)
    return value


class PickledCloud(NamedTuple):
    """One shape of a pickle; its cloud is a view of the file and not checked."""

    cloud: NDArray
    label: int
    held_out: bool = False
    class_name: str = ""  # empty where the file names none


def read_pickled(path: Path) -> list[PickledCloud]:
    """The shapes of a .dat or .pkl file; a file that has not changed since is not read again.

    Raises:
        BadFile: it cannot be read, is hostile, or of another layout.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise BadFile(path, f"cannot be read: {error.strerror or error}") from error
    return _read_pickled(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=2)  # both sides of a cache: listed once, then read block by block
def _read_pickled(path: Path, _size: int, _time: int) -> list[PickledCloud]:
    content = read_pickle(path)
    return _fold(path, content) if path.suffix.lower() == ".pkl" else _cache(path, content)


def _cache(path: Path, content: Any) -> list[PickledCloud]:
    pair = isinstance(content, list | tuple) and [type(part) for part in content] == [list, list]
    if not pair or len(content[0]) != len(content[1]):
        raise BadFile(path, "must be [list of clouds, list of as many labels], got something else")
    rows = enumerate(zip(*content, strict=True))
    return [PickledCloud(_cloud(path, i, cloud), _whole(path, i, label)) for i, (cloud, label) in rows]


def _fold(path: Path, content: Any) -> list[PickledCloud]:
    if not isinstance(content, dict) or not {"train", "test"} <= content.keys():
        raise BadFile(path, 'must be {"train": [(cloud, label, class)], "test": ...}, got something else')
    found: list[PickledCloud] = []
    for split in ("train", "test"):
        rows = content[split]
        if not isinstance(rows, list | tuple):
            raise BadFile(path, f"{split} must be a list of (cloud, label, class), got {type(rows).__name__}")
        for row in rows:
            i = len(found)
            if not isinstance(row, list | tuple) or len(row) != 3:
                raise BadFile(path, f"row {i}: must be (cloud, label, class), got {type(row).__name__}")
            name = row[2] if isinstance(row[2], str) else str(_whole(path, i, row[2], "class"))
            label = _whole(path, i, row[1])
            found.append(PickledCloud(_cloud(path, i, row[0]), label, split == "test", name))
    return found


def _cloud(path: Path, row: int, cloud: Any) -> NDArray:
    if not isinstance(cloud, np.ndarray):
        raise BadFile(path, f"row {row}: must be an array of points, got {type(cloud).__name__}")
    return cloud


def _whole(path: Path, row: int, value: Any, what: str = "label") -> int:
    whole = isinstance(value, int | np.integer)
    if not whole and not (isinstance(value, np.ndarray) and value.size == 1 and value.dtype.kind in "iu"):
        raise BadFile(path, f"row {row}: {what} must be one whole number, got {type(value).__name__}")
    return int(value if whole else value.reshape(-1)[0])


def pickled_entries(
    path: Path, found: Sequence[PickledCloud], classes: int
) -> tuple[list[Entry], list[Problem]]:
    """An entry for each cloud of the pickle `path`, and a problem for each label of no class."""
    entries, problems = [], []
    for row, (_, label, held_out, _) in enumerate(found):
        entries.append(Entry(f"{path.stem}/{row}", path, row, label=label, held_out=held_out))
        if not 0 <= label < classes:
            what = f"row {row}: label must be below {classes}, got {label}"
            problems.append(Problem(entries[-1].key, path, what))
    return entries, problems
