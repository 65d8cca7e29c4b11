"""Files: written whole or not at all, and lists read from them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from recon_fast.errors import InputError


@contextmanager
def whole_file(path: Path, aside: Path | None = None) -> Iterator[Path]:
    """A path to write a file to, which then goes to disk and takes the place of `path` in one step.

    At any moment `path` is whole, old or new, or absent. Where writing fails, nothing is left.

    Args:
        path: the file.
        aside: where it is written, on the same file system; a hidden name beside `path` by default.
    """
    aside = aside or path.with_name(f".{path.name}.tmp")
    try:
        yield aside
        with aside.open("r+b") as written:  # Windows flushes only what is open for writing
            os.fsync(written.fileno())
        aside.replace(path)
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


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
