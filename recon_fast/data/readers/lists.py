"""Lists of a layout: names in a folder, and lines of a file."""

import os
from pathlib import Path

from recon_fast.errors import InputError


def names_in(folder: Path) -> set[str] | None:
    """Names in a folder, None where there is no such folder."""
    try:
        return {entry.name for entry in os.scandir(folder)}
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}") from error


def read_lines(file: Path, what: str = "clouds") -> list[str]:
    """Lines of a list that are not empty. Raises InputError, which says what it lists, if it is missing."""
    try:
        return [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} must list the {what}, one a line: {error}") from error
