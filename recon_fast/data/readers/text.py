"""Tables of numbers in text files, read by a compiled loop that other threads need not wait for."""

import codecs
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from recon_fast.data.shapes import BadFile

_POWERS = 10.0 ** np.arange(23)  # the powers of ten that float64 holds exactly
_OK, _NOT_A_NUMBER, _COLUMNS = 0, 1, 2
_BLANK, _COMMA, _COMMA_BLANK = 1, 2, 3


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
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadFile(path, f"cannot be read: {error.strerror or error}") from error
    content = content.removeprefix(codecs.BOM_UTF8)
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise BadFile(path, "must be text in UTF-8 or ASCII, got UTF-16")
    table = np.empty((content.count(b"\n") + 1, 4 if last else 3), np.float64)
    status, rows, columns, line, mixed, varied = _parse(np.frombuffer(content, np.uint8), table)
    least = table.shape[1]
    if mixed or (varied and b"." not in content):
        got = _line(content, mixed or varied)
        raise BadFile(path, f"must separate numbers in one way, got commas that may be decimal ones: {got}")
    if status == _NOT_A_NUMBER:
        raise BadFile(path, f"must be rows of numbers, got {_line(content, line)}")
    if status == _COLUMNS or (rows and columns < least):
        wanted = f"{columns} columns as in the first row" if columns >= least else f"{least} or more columns"
        raise BadFile(path, f"must have {wanted}, got another number in line {line}")
    return table[:rows], columns


def _line(content: bytes, number: int) -> str:
    """The beginning of a line, counted from 1, for a message."""
    text = content.split(b"\n")[number - 1].strip()[:40].decode(errors="replace")
    return f"{text!r} in line {number}"


@njit(nogil=True, cache=True)
def _parse(text: Any, table: Any) -> Any:
    """Fill `table` [rows, 3 or 4] from bytes.

    Returns:
        The status, rows, columns of the first row, the last line read, and the first lines whose numbers are
        separated in several ways: by commas and blanks between x, y and z; in any way up to what follows z.
    """
    end, width = len(text), table.shape[1]
    at, row, columns, line, mixed, varied = 0, 0, 0, 0, 0, 0
    while at < end:
        line += 1
        column = separator = 0
        while True:
            while at < end and (text[at] == 32 or text[at] == 9 or text[at] == 13):
                at += 1
            if at >= end or text[at] == 10:
                break
            if column < 3 or (width == 4 and column + 1 == columns) or (width == 4 and row == 0):
                value, at = _number(text, at)
                if at < 0:
                    return _NOT_A_NUMBER, row, columns, line, mixed, varied
                table[row, min(column, width - 1)] = value
            else:
                while at < end and text[at] != 44 and text[at] > 32:
                    at += 1
            column += 1
            start = at
            while at < end and (text[at] == 32 or text[at] == 9 or text[at] == 13):
                at += 1
            comma = at < end and text[at] == 44
            if comma:
                at += 1
            if column <= 3 and at < end and text[at] != 10:
                found = _BLANK
                if comma:
                    found = _COMMA_BLANK if at - start > 1 or text[at] <= 32 else _COMMA
                if separator and found != separator:
                    varied = varied or line
                    if column == 2 and (found == _BLANK or separator == _BLANK):
                        mixed = mixed or line
                separator = separator or found
        at += 1
        if column == 0:
            continue
        if row == 0:
            columns = column
        if column != columns or column < width:
            return _COLUMNS, row, columns, line, mixed, varied
        row += 1
    return _OK, row, columns, line, mixed, varied


@njit(nogil=True, cache=True)
def _number(text: Any, at: Any) -> Any:
    """(value, position behind it) of the decimal number at a position; position -1 where there is none."""
    end = len(text)
    negative = text[at] == 45
    if negative or text[at] == 43:
        at += 1
    mantissa, digits, exponent = np.uint64(0), np.int64(0), np.int64(0)
    found = point = False
    while at < end:
        c = text[at]
        if c == 46 and not point:
            point = True
        elif 48 <= c <= 57:
            found = True
            if digits < 19:
                mantissa = mantissa * np.uint64(10) + np.uint64(c - 48)
                digits += mantissa > 0
                exponent -= point
            else:
                exponent += not point
        else:
            break
        at += 1
    if not found:
        return 0.0, -1
    if at < end and (text[at] == 101 or text[at] == 69):
        at += 1
        down = at < end and text[at] == 45
        if at < end and (text[at] == 45 or text[at] == 43):
            at += 1
        power, start = np.int64(0), at
        while at < end and 48 <= text[at] <= 57:
            power = min(10 * power + np.int64(text[at]) - 48, np.int64(9999))
            at += 1
        if at == start:
            return 0.0, -1
        exponent += -power if down else power
    if at < end and text[at] != 44 and text[at] > 32:
        return 0.0, -1
    value = np.float64(mantissa)
    if exponent < 0:
        value = value / _POWERS[-exponent] if exponent >= -22 else value * 10.0**exponent
    elif exponent > 0:
        value = value * _POWERS[exponent] if exponent <= 22 else value * 10.0**exponent
    return -value if negative else value, at
