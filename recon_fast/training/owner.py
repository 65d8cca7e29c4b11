"""A run's folder has one owner: the process that writes into it."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import TypedDict

from recon_fast.errors import InputError
from recon_fast.schema import parse_json

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK = ".owner"


class _Owner(TypedDict):
    process: int
    host: str
    since: str


@contextmanager
def owned(run: Path) -> Iterator[None]:
    """Own the folder of a run, which is made if it is not there; one that stays empty is removed at the end.

    The system lets go of a lock when its process ends, however it ends. Where a file system has no locks, a
    process of this host that is gone does not own anything any more.

    Raises:
        InputError: another process owns it, which is named, or the folder cannot be written.
    """
    made = [folder for folder in (run, *run.parents) if not folder.exists()]
    file = run / LOCK
    try:
        try:
            run.mkdir(parents=True, exist_ok=True)
            number = _locked(file)
        except OSError as error:
            reason = error.strerror or error
            raise InputError(f"out must be a folder that can be written, got {run}: {reason}") from error
        try:
            yield
        finally:
            with suppress(OSError):
                file.unlink()  # before it is unlocked, so that nobody locks a file that is gone
            os.close(number)
    finally:
        with suppress(OSError):
            for folder in made:
                folder.rmdir()


def _locked(file: Path) -> int:
    """The open lock, which holds this process's name. Raises InputError if another process has it."""
    while True:
        number = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if not _try_lock(number, file):
                raise InputError(
                    f"{file.parent} {_whose(file)}, which writes into it: wait, or take another --out"
                )
            if not _is(number, file):  # its owner has just ended and removed it
                os.close(number)
                continue
            own: _Owner = {
                "process": os.getpid(),
                "host": socket.gethostname(),
                "since": datetime.now(UTC).isoformat(timespec="seconds"),
            }
            os.truncate(number, 0)
            os.write(number, json.dumps(own).encode())
            return number
        except BaseException:
            with suppress(OSError):
                os.close(number)
            raise


def _try_lock(number: int, file: Path) -> bool:
    """Lock the open file, or tell that another process has it."""
    if fcntl is not None:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks
            pass
    owner = _read(file)
    return owner is None or (owner["host"] == socket.gethostname() and not _lives(owner["process"]))


def _is(number: int, file: Path) -> bool:
    """Whether the open file is the one that lies there."""
    try:
        return os.path.samestat(os.fstat(number), file.stat())
    except OSError:
        return False


def _lives(process: int) -> bool:
    """Whether a process of this host runs."""
    if os.name == "nt":  # where signal 0 would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is somebody else's
        pass
    return True


def _read(file: Path) -> _Owner | None:
    try:
        owner: _Owner = parse_json(file.read_text(encoding="utf-8"), _Owner, "an owner")
        return owner
    except (OSError, ValueError):  # being written, or cut
        return None


def _whose(file: Path) -> str:
    owner = _read(file)
    if owner is None:
        return "belongs to another process"
    return f"belongs to process {owner['process']} on {owner['host']} since {owner['since']}"
