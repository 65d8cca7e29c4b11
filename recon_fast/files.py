"""Files and folders: written whole or not at all, told apart, and lists read from them."""

import errno
import os
import shutil
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

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


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A new folder to write files into, which then go to disk and take the place of `path`.

    At any moment `path` is whole or absent. Where writing fails, nothing is left of the new folder.
    """
    aside = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        yield aside
        for file in aside.iterdir():
            with file.open("r+b") as written:  # Windows flushes only what is open for writing
                os.fsync(written.fileno())
        replace_folder(aside, path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def replace_folder(new: Path, path: Path) -> None:
    """Let the folder `new` take the place of `path`; what was there is removed once the new one stands."""
    replaced = path.rename(path.with_name(f".{path.name}.replaced")) if path.exists() else None
    new.rename(path)
    if replaced is not None:
        shutil.rmtree(replaced, ignore_errors=True)


def open_regular(path: Path) -> IO[bytes]:
    """A file opened for reading. Raises OSError, also where it is a pipe or a device, which may never end."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return path.open("rb")


def is_torchscript(file: Path) -> bool:
    """Whether a file is a TorchScript archive: loading one runs the code it holds."""
    try:
        with zipfile.ZipFile(file) as archive:
            return any("/code/" in name or name.endswith("/constants.pkl") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


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
