"""Files inside a .zip, named as if the archive were a folder: `clouds.zip/chair/a.ply`."""

import zipfile
import zlib
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO

from recon_fast.errors import InputError
from recon_fast.files import open_regular

_MOST_BYTES = 1 << 30  # of a file in an archive, unpacked
# Reading from an archive that is cut, encrypted or packed in an unknown way.
BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


def archive_of(path: Path) -> Path | None:
    """The .zip file that `path` leads into, None where it is an ordinary path."""
    return next((up for up in path.parents if up.suffix.lower() == ".zip" and up.is_file()), None)


def open_binary(path: Path) -> IO[bytes]:
    """A file opened for reading, which may lie in a .zip. Raises OSError, or one of `BROKEN`."""
    try:
        return open_regular(path)
    except (NotADirectoryError, FileNotFoundError):
        if (archive := archive_of(path)) is None:
            raise
    opened, member = _member(archive, path)
    if member.file_size > _MOST_BYTES:
        what = f"{member.file_size:,} bytes are too many for a file in an archive: unpack it"
        raise zipfile.BadZipFile(what)
    return opened.open(member)


def size_and_time(path: Path) -> tuple[int, int]:
    """Bytes of a file, which may lie in a .zip, and when it or the .zip was changed, in ns.

    Raises OSError, or one of `BROKEN`.
    """
    archive = archive_of(path)
    stat = (archive or path).stat()
    return stat.st_size if archive is None else _member(archive, path)[1].file_size, stat.st_mtime_ns


def members(archive: Path) -> list[Path]:
    """All files of a .zip in order, hidden ones and those of macOS aside.

    Raises:
        InputError: it is no archive, or names files outside of itself.
    """
    try:
        names = list(_open(archive)[1])
    except (OSError, ValueError, *BROKEN) as error:
        raise InputError(f"{archive} must be a whole .zip: {error}") from error
    if outside := next((name for name in names if name.is_absolute() or ".." in name.parts), None):
        raise InputError(f"{archive} must hold files under relative names, got {outside}")
    shown = [name for name in names if not any(part[0] == "." or part == "__MACOSX" for part in name.parts)]
    return [archive / name for name in sorted(shown)]


_Opened = tuple[zipfile.ZipFile, dict[PurePosixPath, zipfile.ZipInfo]]


def _member(archive: Path, path: Path) -> tuple[zipfile.ZipFile, zipfile.ZipInfo]:
    opened, found = _open(archive)
    member = found.get(PurePosixPath(path.relative_to(archive).as_posix()))
    if member is None:
        raise FileNotFoundError(2, "no such file in the archive", str(path))
    return opened, member


def _open(archive: Path) -> _Opened:
    stat = archive.stat()
    return _open_once(archive, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=4)  # its list of files is read once, not once a file
def _open_once(archive: Path, _size: int, _time: int) -> _Opened:
    opened = zipfile.ZipFile(archive)
    files = [member for member in opened.infolist() if not member.is_dir()]
    return opened, {PurePosixPath(member.filename.replace("\\", "/")): member for member in files}
