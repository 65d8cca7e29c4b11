"""The folder of a run: chosen, owned by the one process that writes into it, with the resolved settings."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, TypedDict

import yaml
from rich.console import Console

from recon_fast.checkpoint.training import find_checkpoint, list_checkpoints
from recon_fast.config import OptimConfig
from recon_fast.console import say
from recon_fast.data.batches.stream import VERSION
from recon_fast.errors import InputError
from recon_fast.schema import parse_json
from recon_fast.training.distributed import from_first

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
_CONFIG, _CONFIG_ASIDE = "config.yaml", ".config.yaml.tmp"


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


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as {"optim.lr": ...}."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def check_same_config(old: dict[str, Any], new: dict[str, Any], checkpoint: Path) -> None:
    """Raise unless all settings that a result depends on are the same."""
    old, new = flatten(json.loads(json.dumps(old))), flatten(json.loads(json.dumps(new)))
    changed = [
        f"{key} was {old[key]}, is {new.get(key)}"
        for key in sorted(old)  # a setting that is newer than the checkpoint had its default
        if old[key] != new.get(key) and not any(key == f or key.startswith(f"{f}.") for f in _FREE_ON_RESUME)
    ]
    if changed:
        raise InputError(f"resume must keep the settings of {checkpoint}: {'; '.join(changed)}")


@dataclass
class Start:
    """What a resumed run starts from."""

    checkpoint: Path
    state: dict[str, Any]  # its state.json
    damaged: list[str]  # what was wrong with newer checkpoints


class RunConfig(Protocol):
    """What a run's folder wants to know of the settings of any command that trains."""

    @property
    def command(self) -> str: ...

    @property
    def out(self) -> str | None: ...

    def to_dict(self) -> dict[str, Any]: ...


def choose_run(config: RunConfig, resume: Path | str | None, console: Console) -> tuple[Path, Start | None]:
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
    start = None
    if resume is not None:
        start = Start(*find_checkpoint(Path(resume)))
        for text in start.damaged:
            say(console, f"{text}; continuing from {start.checkpoint.name}", style="yellow")
        check_same_config(start.state["config"], config.to_dict(), start.checkpoint)
        drawn = start.state.get("stream", 1)
        if drawn != VERSION:
            raise InputError(
                f"{start.checkpoint} saw batches drawn in another way (stream {drawn}, here {VERSION}); "
                "continue it with the version of recon-fast that began it, or start anew from its weights: "
                f"--init {start.checkpoint / 'model.safetensors'}"
            )
    return _choose_folder(config, start, auto), start


@contextmanager
def open_run(
    config: RunConfig, resume: Path | str | None, console: Console
) -> Iterator[tuple[Path, Start | None]]:
    """The folder of a run, which the first process of the job owns meanwhile, and what it starts from.

    Raises:
        InputError: as `choose_run` and `owned`.
    """
    with ExitStack() as stack:

        def choose() -> tuple[Path, Start | None]:
            run, start = choose_run(config, resume, console)
            stack.enter_context(owned(run))
            return run, start

        yield from_first(choose)


def _choose_folder(config: RunConfig, start: Start | None, auto: bool) -> Path:
    """The folder that the run goes to, which may not hold anything yet unless it is resumed."""
    resumed = None if start is None else start.checkpoint.parent.parent
    if config.out is not None:
        if not config.out.strip():
            raise InputError(f"out must name a folder, got {config.out!r}")
        run = Path(config.out).expanduser()
    elif resumed is not None:
        run = resumed
    else:
        name, number = f"{config.command}-{datetime.now():%Y%m%d-%H%M%S}", 1
        while (run := Path("runs") / (name if number == 1 else f"{name}-{number}")).exists():
            number += 1
    if start is not None and resumed is not None and run.resolve() == resumed.resolve():
        newest = list_checkpoints(run)[-1 - len(start.damaged)]
        if newest.resolve() != start.checkpoint.resolve():
            raise InputError(
                f"resume must name the run's newest checkpoint, {newest}, or get a new --out; "
                f"got {start.checkpoint}"
            )
    elif run.exists() and (not run.is_dir() or any(file.name != LOCK for file in run.iterdir())):
        if auto and any((run / name).is_file() for name in (_CONFIG, _CONFIG_ASIDE)):
            return run  # it ended before its first checkpoint
        hint = f" (or use --resume {run} to continue)" if run.is_dir() and list_checkpoints(run) else ""
        raise InputError(f"out must be a new or empty folder{hint}, got {run}")
    return run


def check_batch(config: OptimConfig, processes: int) -> None:
    """Raise unless each process gets the same part of each micro-batch."""
    if config.batch_size % (config.accumulate * processes):
        raise InputError(
            "optim.batch_size must be a multiple of optim.accumulate times the processes, "
            f"got {config.batch_size}, {config.accumulate} and {processes}"
        )


@contextmanager
def run_folder(run: Path, config: RunConfig) -> Iterator[None]:
    """Make the folder of the run at the start and put the resolved config into it at the end; if anything in
    between fails, leave nothing.
    """
    made = [folder for folder in (run, *run.parents) if not folder.exists()]
    aside = run / _CONFIG_ASIDE
    try:
        try:
            run.mkdir(parents=True, exist_ok=True)
            text = yaml.safe_dump({**config.to_dict(), "out": str(run)}, sort_keys=False)
            aside.write_text(text, encoding="utf-8")
        except OSError as error:
            reason = error.strerror or error
            raise InputError(f"out must be a folder that can be written, got {run}: {reason}") from error
        yield
        aside.replace(run / _CONFIG)
    except BaseException:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
            for folder in made:
                folder.rmdir()
        raise
