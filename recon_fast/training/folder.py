"""The folder of a run: chosen, locked by the one process that writes into it, with the resolved settings."""

import json
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any, TypedDict

import yaml
from rich.console import Console

from recon_fast.checkpoint.training import find_checkpoint, list_checkpoints
from recon_fast.config import OptimConfig, PretrainConfig, RetrieveConfig, SvmConfig, ZeroShotConfig
from recon_fast.config.compare import settings_but
from recon_fast.config.downstream import DownstreamConfig
from recon_fast.console import warn
from recon_fast.data.batches.stream import VERSION
from recon_fast.distributed import from_first
from recon_fast.errors import InputError
from recon_fast.files import whole_file
from recon_fast.schema import parse_json

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK = ".owner"
# Settings that do not change what is computed, so a resumed run may change them.
_FREE_ON_RESUME = (
    "out", "init", "device", "data.path", "data.workers", "data.on_problem", "data.placement",
    "teacher.store", "save", "probe", "optim.skip_limit", "optim.recompute", "compile", "checkpoint",
)  # fmt: skip
_CONFIG = "config.yaml"


class _Owner(TypedDict):
    process: int
    host: str
    since: str


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Lock the folder of a run, which is made if it is not there; one that stays empty is removed at the end.

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
            number = _lock(file)
        except OSError as error:
            raise _unwritable(run, error) from error
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


def _lock(file: Path) -> int:
    """The open lock, which holds this process's name. Raises InputError if another process has it."""
    while True:
        number = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if not _try_lock(number, file):
                owner = _read(file)
                whose = "another process"
                if owner is not None:
                    whose = f"process {owner['process']} on {owner['host']} since {owner['since']}"
                raise InputError(
                    f"{file.parent} belongs to {whose}, which writes into it: wait, or take another --out"
                )
            mine = False
            with suppress(OSError):  # its owner may just have ended and removed it
                mine = os.path.samestat(os.fstat(number), file.stat())
            if mine:
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
        os.close(number)


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


def check_same_config(
    old: dict[str, Any], new: dict[str, Any], checkpoint: Path, free: Sequence[str] = _FREE_ON_RESUME
) -> None:
    """Raise unless all settings that a result depends on are the same, which are all that are not `free`."""
    old, new = settings_but(free, old), settings_but(free, new)
    changed = [
        f"{key} was {value}, is {new.get(key)}"
        for key, value in old.items()  # a setting that is newer than the checkpoint had its default
        if value != new.get(key)
    ]
    if changed:
        raise InputError(f"resume must keep the settings of {checkpoint}: {'; '.join(changed)}")


@dataclass
class Resumed:
    """What a resumed run starts from."""

    checkpoint: Path
    state: dict[str, Any]  # its state.json
    damaged: list[str]  # what was wrong with newer checkpoints

    @property
    def run(self) -> Path:
        """The folder of the run that left the checkpoint."""
        return self.checkpoint.parent.parent


RunConfig = PretrainConfig | DownstreamConfig | SvmConfig | ZeroShotConfig | RetrieveConfig


def choose_run(config: RunConfig, resume: Path | str | None, console: Console) -> tuple[Path, Resumed | None]:
    """The folder of the run, and what it starts from if it is resumed.

    Raises:
        InputError: the folder holds something and is not resumed, or the checkpoint cannot be used.
    """
    auto = resume == "auto"
    if auto:
        if config.out is None:
            raise InputError("resume auto needs the folder of the run: --out RUN")
        out = Path(config.out).expanduser()
        resume = out if list_checkpoints(out) else None
    resumed = None
    if resume is not None:
        resumed = Resumed(*find_checkpoint(Path(resume)))
        checkpoint = resumed.checkpoint
        for text in resumed.damaged:
            warn(console, f"{text}; continuing from {checkpoint.name}")
        check_same_config(resumed.state["config"], config.to_dict(), checkpoint)
        stream = resumed.state.get("stream", 1)
        if stream != VERSION:
            raise InputError(
                f"{checkpoint} saw batches drawn in another way (stream {stream}, here {VERSION}); "
                "continue it with the version of recon-fast that began it, or start anew from its weights: "
                f"--init {checkpoint / 'model.safetensors'}"
            )
    return _choose_folder(config, resumed, auto), resumed


@contextmanager
def open_run(
    config: RunConfig, resume: Path | str | None, console: Console
) -> Iterator[tuple[Path, Resumed | None]]:
    """The folder of a run, locked by the first process of the job meanwhile, and what it starts from.

    Raises:
        InputError: as `choose_run` and `locked`.
    """
    with ExitStack() as stack:

        def choose() -> tuple[Path, Resumed | None]:
            run, resumed = choose_run(config, resume, console)
            stack.enter_context(locked(run))
            return run, resumed

        yield from_first(choose)


def _choose_folder(config: RunConfig, resumed: Resumed | None, auto: bool) -> Path:
    """The folder that the run goes to, which may not hold anything yet unless it is resumed."""
    if config.out is not None:
        if not config.out.strip():
            raise InputError(f"out must name a folder, got {config.out!r}")
        run = Path(config.out).expanduser()
    elif resumed is not None:
        run = resumed.run
    else:
        name, number = f"{config.command}-{datetime.now():%Y%m%d-%H%M%S}", 1
        while (run := Path("runs") / (name if number == 1 else f"{name}-{number}")).exists():
            number += 1
    if resumed is not None and run.resolve() == resumed.run.resolve():
        newest = list_checkpoints(run)[-1 - len(resumed.damaged)]
        if newest.resolve() != resumed.checkpoint.resolve():
            raise InputError(
                f"resume must name the run's newest checkpoint, {newest}, or get a new --out; "
                f"got {resumed.checkpoint}"
            )
    elif run.exists() and (not run.is_dir() or any(file.name != LOCK for file in run.iterdir())):
        if auto and any((run / name).is_file() for name in (_CONFIG, f".{_CONFIG}.tmp")):
            return run  # it ended before its first checkpoint
        hint = f" (or use --resume {run} to continue)" if run.is_dir() and list_checkpoints(run) else ""
        raise InputError(f"out must be a new or empty folder{hint}, got {run}")
    return run


def features_beside(path: str | Path | None) -> Path | None:
    """The folder beside a set where teacher features are kept; None for the procedural set."""
    if path is None:
        return None
    data = Path(path).expanduser()
    return (data.parent if data.is_file() else data) / ".recon_fast"


def check_batch(config: OptimConfig, processes: int) -> None:
    """Raise unless each process gets the same part of each micro-batch."""
    if config.batch_size % (config.accumulate * processes):
        raise InputError(
            "optim.batch_size must be a multiple of optim.accumulate times the processes, "
            f"got {config.batch_size}, {config.accumulate} and {processes}"
        )


@contextmanager
def keep_config(run: Path, config: RunConfig, **more: str) -> Iterator[None]:
    """Put the resolved config, and more, into the folder of the run when the block ends; if it fails, leave
    nothing.
    """
    with whole_file(run / _CONFIG) as aside:
        try:
            text = yaml.safe_dump({**config.to_dict(), "out": str(run), **more}, sort_keys=False)
            aside.write_text(text, encoding="utf-8")
        except OSError as error:
            raise _unwritable(run, error) from error
        yield


def _unwritable(run: Path, error: OSError) -> InputError:
    return InputError(f"out must be a folder that can be written, got {run}: {error.strerror or error}")
