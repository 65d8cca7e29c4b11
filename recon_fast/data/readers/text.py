"""Tables of numbers in text files: .txt, .xyz, .pts and .csv."""

import codecs
import re
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from recon_fast.data.archives import BROKEN, open_binary
from recon_fast.data.shapes import BadFile, read_bytes

_COMMENTS = ("#", "//", "%")
_START = 4096  # bytes by which a table is told from prose
_ROWS = 5  # that a table must have there; a matrix of a camera has 4
_NO_NUMBERS = "must be rows of numbers, got "
_DECIMAL_COMMAS = "must separate numbers in one way, got commas that may be decimal ones: "
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)
_WHOLE = re.compile(r"[-+]?\d+", re.ASCII)
_MEANT_AS_NUMBER = re.compile(r"[-+.]*\d|[-+]?(nan|inf)", re.IGNORECASE)
_FIELD = re.compile(r"[^\s,;]+")
_NO_VALUE = re.compile(r"(?m)^[ \t]*,|,[ \t]*,|\t *\t[ \t]*[^\s]")
# Lines whose commas may be decimal ones: a comma separates x and y and a blank y and z, or the other way
# round; in a table without a decimal point, both separate anything.
_MIXED = re.compile(r"(?m)^[ \t]*[^\s,]+([ \t]*,[ \t]*[^\s,]+[ \t]+[^\s,]|[ \t]+[^\s,]+[ \t]*,)")
_VARIED = re.compile(r"(?m)^(?=[^\n]*\d,\d)[^\n]*[\d,][ \t]+\d")
_COMMA_IN_FIELD = re.compile(r"[^\s;]*,[^\s;]*")
_THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2}(,\d{3})+")
_UNIT = re.compile(r"\s*[\[(].*[\])]$")
_AXES = (("x", "y", "z"), ("points:0", "points:1", "points:2"))  # the second are ParaView's


def is_table(path: Path) -> bool:
    """Whether most of the first lines of a text file, and five at least, begin with three numbers."""
    try:
        with open_binary(path) as file:
            start = file.read(_START)
    except (OSError, *BROKEN):
        return False
    text = start.decode("utf-8-sig", "replace").replace('"', "")
    rows = [
        row for line in text.splitlines() if (row := _FIELD.findall(line)) and row[0][:1] not in ("#", "%")
    ]
    numbers = sum(len(row) >= 3 and all(map(_NUMBER.fullmatch, row[:3])) for row in rows)
    return numbers >= _ROWS and 2 * numbers > len(rows)


def read_table(path: Path, last: bool = False) -> tuple[NDArray[np.float64], int]:
    """The coordinates in a text file of numbers, and the last column too if `last`.

    Columns are separated by commas, semicolons, blanks or tabs, rows by line ends. Empty lines and comments
    (#, //, %) are passed over. Before the rows there may be a line with the number of points, and lines of
    words: where one names columns x, y and z (or Points:0, Points:1, Points:2), perhaps with units in
    brackets, the coordinates are taken from there, else from the first three columns. Commas are decimal ones
    where semicolons separate. What lies between is skipped unread, but every row must have as many columns as
    the first.

    Returns:
        float64 [N, 3], or [N, 4] with the last column, and how many columns the file has.

    Raises:
        BadFile: the file cannot be read, a value is missing or no number, a row has another number of
            columns, there are more or fewer rows than announced; names of more than three columns have no x,
            y and z, or there are no names and the first column numbers the points; commas may be decimal
            ones, as in `1,32 2,39 0,51`.
    """
    content = read_bytes(path).removeprefix(codecs.BOM_UTF8)
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise BadFile(path, "must be text in UTF-8 or ASCII, got UTF-16")
    lines = content.decode(errors="replace").replace('"', "").splitlines()
    count, heads = _take_head(lines)
    text = "\n".join(lines)
    if any(mark in text for mark in _COMMENTS):
        lines = ["" if line.lstrip().startswith(_COMMENTS) else line for line in lines]
        text = "\n".join(lines)

    def refuse(what: str, number: int) -> NoReturn:
        raise BadFile(path, f"{what}{lines[number].strip()[:40]!r} in line {number + 1}")

    def refuse_at(what: str, place: int) -> NoReturn:
        refuse(what, text.count("\n", 0, place))

    semicolons = ";" in text
    if semicolons and "," in text:
        if "." in text or all(map(_THOUSANDS.fullmatch, _COMMA_IN_FIELD.findall(text))):
            refuse_at(_DECIMAL_COMMAS, text.index(","))
        text = text.replace(",", ".")
    text = text.replace(";", ",")
    mixed = "," in text and (" " in text or "\t" in text)
    if (mixed or "\t" in text) and (found := _NO_VALUE.search(text)):
        refuse_at(_NO_NUMBERS, found.start())
    if mixed:
        if found := _MIXED.search(text) or ("." not in text and _VARIED.search(text)) or None:
            refuse_at(_DECIMAL_COMMAS, found.start())
        text = text.replace(",", " ")
    separator = "," if "," in text else None
    rows = [(number, row) for number, row in enumerate(text.split("\n")) if row.strip()]
    if not rows:
        return np.empty((0, 3 + last)), 0
    columns, least = len(rows[0][1].split(separator)), 3 + last
    if columns < least:
        raise BadFile(path, f"must have {least} or more columns, got another number in line {rows[0][0] + 1}")
    fields = [[field.strip() for field in row.split(separator)] for _, row in rows[:50]]
    if len(rows) > 1 and fields[0] == [str(i) for i in range(columns)] and "." in rows[1][1]:
        rows, fields = rows[1:], fields[1:]  # names of columns that have none
    if count is not None and count != len(rows):
        raise BadFile(path, f"must have the {count} points that it announces, got {len(rows)} rows")
    axes = _coordinates(path, heads, columns)
    if axes is None and columns > 3 and all(_WHOLE.fullmatch(row[0]) for row in fields):
        if any("." in field for row in fields for field in row[1:4]):
            refuse("must begin with x, or name its columns x, y and z, got whole numbers first: ", rows[0][0])
        if separator and columns % 2 == 0 and columns > 5 and not semicolons:
            refuse(_DECIMAL_COMMAS, rows[0][0])
    picked = (axes or [0, 1, 2]) + [-1] * last
    for number, row in rows:
        if len(row.split(separator)) != columns:
            wanted = f"must have {columns} columns as in the first row"
            raise BadFile(path, f"{wanted}, got another number in line {number + 1}")
    try:
        numbers = [row for _, row in rows]
        table = np.loadtxt(numbers, delimiter=separator, usecols=picked, comments=None, ndmin=2)
    except ValueError:
        table = np.array([np.nan])
    if not np.isfinite(table).all():
        for number, row in rows:
            values = row.split(separator)
            if not all(_NUMBER.fullmatch(values[i].strip()) for i in picked):
                refuse(_NO_NUMBERS, number)
    return table, columns


class _Head(NamedTuple):
    """A line of words before the rows."""

    names: list[str]  # of columns, perhaps
    is_comment: bool


def _take_head(lines: list[str]) -> tuple[int | None, list[_Head]]:
    """Blank out what stands before the rows; the number of points, and the lines of words."""
    count: int | None = None
    heads: list[_Head] = []
    for number, line in enumerate(lines):
        fields = _FIELD.findall(line)
        is_comment = bool(fields) and fields[0].startswith(_COMMENTS)
        if len(fields) == 1 and fields[0].isdecimal() and count is None:
            count = int(fields[0][:18])
        elif fields and (is_comment or not any(map(_MEANT_AS_NUMBER.match, fields))):
            words = line.lstrip().lstrip("#/%")
            between = next((mark for mark in ",;\t" if mark in words), None)
            names = [_UNIT.sub("", name.strip(" \t'").lower()) for name in words.split(between)]
            heads.append(_Head(names, is_comment))
        elif fields:
            break
        lines[number] = ""
    return count, heads


def _coordinates(path: Path, heads: list[_Head], columns: int) -> list[int] | None:
    """Which columns are x, y and z by their names; None where nothing names them. Raises BadFile."""
    for names, _ in heads:
        for axes in _AXES:
            if len(names) == columns and all(names.count(axis) == 1 for axis in axes):
                return [names.index(axis) for axis in axes]
    for names, is_comment in heads:
        named = {"x", "y", "z"} <= set(names)
        if not is_comment and (named or (len(names) == columns > 3)):
            got = f"{columns} columns and the names {', '.join(names)}"
            raise BadFile(path, f"must name its columns, one x, one y and one z among them, got {got}")
    return None
