"""Tables of numbers in text files: .txt, .xyz, .pts and .csv."""

import codecs
import re
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from recon_fast.data.archives import BROKEN, open_binary
from recon_fast.data.shapes import BadFile, read_bytes

_COMMENTS = ("#", "//", "%")
_START = 4096  # bytes by which a table is told from prose
_NO_NUMBERS = "must be rows of numbers, got "
_DECIMAL_COMMAS = "must separate numbers in one way, got commas that may be decimal ones: "
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)
_FIELD = re.compile(r"[^\s,;]+")
_NO_VALUE = re.compile(r"(?m)^[ \t]*,|,[ \t]*,")
# Lines whose commas may be decimal ones: a comma separates x and y and a blank y and z, or the other way
# round; in a table without a decimal point, both separate anything.
_MIXED = re.compile(r"(?m)^[ \t]*[^\s,]+([ \t]*,[ \t]*[^\s,]+[ \t]+[^\s,]|[ \t]+[^\s,]+[ \t]*,)")
_VARIED = re.compile(r"(?m)^(?=[^\n]*\d,\d)[^\n]*[\d,][ \t]+\d")
# Names of the columns of coordinates: x, y and z, perhaps with a unit behind, or as ParaView calls them.
_AXES = [re.compile(rf"{axis}([\W_].*)?|points[:_]{i}") for i, axis in enumerate("xyz")]


def is_table(path: Path) -> bool:
    """Whether one of the first lines of a text file has three or more numbers and nothing else."""
    try:
        with open_binary(path) as file:
            start = file.read(_START)
    except (OSError, *BROKEN):
        return False
    rows = (_FIELD.findall(line) for line in start.decode("utf-8-sig", "replace").splitlines()[:20])
    return any(len(row) >= 3 and all(map(_NUMBER.fullmatch, row)) for row in rows)


def read_table(path: Path, last: bool = False) -> tuple[NDArray[np.float64], int]:
    """The coordinates in a text file of numbers, and the last column too if `last`.

    Columns are separated by commas, semicolons, blanks or tabs, rows by line ends. Empty lines and comments
    (#, //, %) are passed over. Before the rows there may be a line with the number of points, and a line of
    words: where these name columns x, y and z, the coordinates are taken from there, else from the first
    three columns. Commas are decimal ones where semicolons separate. What lies between is skipped unread, but
    every row must have as many columns as the first.

    Returns:
        float64 [N, 3], or [N, 4] with the last column, and how many columns the file has.

    Raises:
        BadFile: the file cannot be read, a value is no number, a row has another number of columns, there are
            more or fewer rows than announced, or commas may be decimal ones, as in `1,32 2,39 0,51`.
    """
    content = read_bytes(path).removeprefix(codecs.BOM_UTF8)
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise BadFile(path, "must be text in UTF-8 or ASCII, got UTF-16")
    lines = content.decode(errors="replace").splitlines()
    count, names = _take_head(lines)
    text = "\n".join(lines)

    def refuse(what: str, number: int) -> NoReturn:
        raise BadFile(path, f"{what}{lines[number].strip()[:40]!r} in line {number + 1}")

    if ";" in text:
        if "," in text and "." in text:
            refuse(_DECIMAL_COMMAS, text.count("\n", 0, text.index(",")))
        text = text.replace(",", ".").replace(";", ",")
    if "," in text and (" " in text or "\t" in text):
        decimal = _MIXED.search(text) or ("." not in text and _VARIED.search(text))
        if found := decimal or _NO_VALUE.search(text):
            refuse(_DECIMAL_COMMAS if decimal else _NO_NUMBERS, text.count("\n", 0, found.start()))
        text = text.replace(",", " ")
    separator = "," if "," in text else None
    rows = [(number, row) for number, row in enumerate(text.split("\n")) if row.strip()]
    if count is not None and count != len(rows):
        raise BadFile(path, f"must have the {count} points that it announces, got {len(rows)} rows")
    if not rows:
        return np.empty((0, 3 + last)), 0
    counts = [len(row.split(separator)) for _, row in rows]
    columns, least = counts[0], 3 + last
    picked = _coordinates(names if len(names) == columns else []) + [-1] * last
    if columns < least:
        raise BadFile(path, f"must have {least} or more columns, got another number in line {rows[0][0] + 1}")
    for (number, _), fields_of in zip(rows, counts, strict=True):
        if fields_of != columns:
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


def _take_head(lines: list[str]) -> tuple[int | None, list[str]]:
    """Blank out comments and what stands before the rows; the number of points and the names of columns."""
    count: int | None = None
    names: list[str] = []
    for number, line in enumerate(lines):
        fields = _FIELD.findall(line)
        if fields and not fields[0].startswith(_COMMENTS):
            if len(fields) == 1 and fields[0].isdecimal() and count is None:
                count = int(fields[0][:18])
            elif not any(map(_NUMBER.fullmatch, fields)):
                between = next((mark for mark in ",;\t" if mark in line), None)
                names = [name.strip(" \t\"'").lower() for name in line.split(between)]
            else:
                break
        lines[number] = ""
    if any(line.lstrip().startswith(_COMMENTS) for line in lines):
        lines[:] = ["" if line.lstrip().startswith(_COMMENTS) else line for line in lines]
    return count, names


def _coordinates(names: list[str]) -> list[int]:
    """Which columns are x, y and z by their names; the first three where the names do not say."""
    found = [[i for i, name in enumerate(names) if axis.fullmatch(name)] for axis in _AXES]
    return [places[0] for places in found] if all(len(places) == 1 for places in found) else [0, 1, 2]
