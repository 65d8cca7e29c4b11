"""Files inside a .zip, named as if the archive were a folder: `clouds.zip/chair/a.ply`."""

import zipfile
import zlib
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO

from recon_fast.errors import InputError

_MOST_BYTES = 1 << 30  # of a file in an archive, unpacked
# Reading from an archive that is cut, encrypted or packed in an unknown way.
BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


def archive_of(path: Path) -> Path | None:
    """The .zip file that `path` leads into, None where it is an ordinary path."""
    return next((up for up in path.parents if up.suffix.lower() == ".zip" and up.is_file()), None)


def open_binary(path: Path) -> IO[bytes]:
    """A file opened for reading, which may lie in a .zip. Raises OSError, or one of `BROKEN`."""
    try:
        return path.open("rb")
    except (NotADirectoryError, FileNotFoundError):
        if (archive := archive_of(path)) is None:
            raise
    opened, name = _opened(archive), path.relative_to(archive).as_posix()
    try:
        member = opened.getinfo(name)
    except KeyError as error:
        raise FileNotFoundError(2, "no such file in the archive", str(path)) from error
    if member.file_size > _MOST_BYTES:
        raise zipfile.BadZipFile(
            f"{member.file_size:,} bytes are too many for a file in an archive: unpack it"
        )
    return opened.open(member)


def members(archive: Path) -> list[Path]:
    """All files of a .zip in order, hidden ones and those of macOS aside.

    Raises:
        InputError: it is no archive, or names files outside of itself.
    """
    try:
        names = [
            PurePosixPath(member.filename) for member in _opened(archive).infolist() if not member.is_dir()
        ]
    except (OSError, ValueError, *BROKEN) as error:
        raise InputError(f"{archive} must be a whole .zip: {error}") from error
    if outside := next((name for name in names if name.is_absolute() or ".." in name.parts), None):
        raise InputError(f"{archive} must hold files under relative names, got {outside}")
    shown = [name for name in names if not any(part[0] == "." or part == "__MACOSX" for part in name.parts)]
    return [archive / name for name in sorted(shown)]


def _opened(archive: Path) -> zipfile.ZipFile:
    stat = archive.stat()
    return _open(archive, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=4)  # its list of files is read once, not once a file
def _open(archive: Path, _size: int, _time: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(archive)
