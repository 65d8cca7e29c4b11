"""The command line. Each command imports what it needs, so help and mistakes answer at once."""

import argparse
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from inspect import signature
from typing import Any

from recon_fast import __version__
from recon_fast.commands import COMMANDS
from recon_fast.errors import InputError

# What the extra `train` brings, by the names that are imported.
TRAIN_MODULES = {
    "PIL", "docstring_parser", "h5py", "jsonargparse", "matplotlib", "msgspec", "open_clip", "plotly", "rich",
    "safetensors", "sklearn", "tensorboard", "timm", "trimesh", "yaml",
}  # fmt: skip


def build_parser() -> argparse.ArgumentParser:
    """The outer parser: only names of commands, their own parsers come later."""
    commands = "\n".join(f"  {name:<10}{command.help}" for name, command in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="recon-fast",
        usage="recon-fast [-h] [--version] COMMAND ...",
        description="ReCon for point clouds: fast operators, a compact pretrainer.",
        epilog=f"commands:\n{commands}\n\n`recon-fast COMMAND --help` tells more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"recon-fast {__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=", ".join(COMMANDS))
    rest = parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    rest.required = False  # so that a missing command is all that is complained of
    return parser


@contextmanager
def sigterm_unwinds() -> Iterator[None]:
    """Let SIGTERM unwind the stack as Ctrl-C does, so that nothing is left half-written."""

    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    previous = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 2 for wrong input, 128 + signal where one stopped the run."""
    arguments = build_parser().parse_args(argv)
    processes = os.environ.get("WORLD_SIZE", "1")  # set by torchrun
    if not COMMANDS[arguments.command].distributed and processes != "1":
        if os.environ.get("RANK", "0") == "0":
            what = f"`{arguments.command}` runs in one process, got {processes} of torchrun"
            able = ", ".join(f"`{name}`" for name, command in COMMANDS.items() if command.distributed)
            print(f"recon-fast: error: {what}; these take several: {able}", file=sys.stderr)
        return 2
    # Read by torch when it is imported: large tensors in huge pages made a step on a CPU a tenth faster.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    try:
        with sigterm_unwinds():
            return run_command(arguments.command, arguments.arguments)
    except InputError as error:
        table = getattr(error, "table", None)
        if table:
            print(table, file=sys.stderr)
        rank = os.environ.get("RANK", "0")  # set by torchrun
        who = "recon-fast" if rank == "0" else f"recon-fast (rank {rank})"
        print(f"{who}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in TRAIN_MODULES:
            raise
        print(
            f"recon-fast: error: {arguments.command} needs {module}: pip install 'recon-fast[train]'",
            file=sys.stderr,
        )
        return 2
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        said = " ".join(str(error).split())
        print(
            f"recon-fast: error: out of memory, take smaller batches or a smaller model: {said}",
            file=sys.stderr,
        )
        return 2
    except BrokenPipeError:  # of `recon-fast ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # 128 + SIGPIPE
    except KeyboardInterrupt:
        print("recon-fast: interrupted", file=sys.stderr)
        return 130


def is_out_of_memory(error: BaseException) -> bool:
    """Whether numpy, or torch on any device, got no memory."""
    said = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, MemoryError) or any(words in str(error) for words in said)


def run_command(name: str, argv: list[str]) -> int:
    """Parse the arguments of a command, call its function, and print what came of it; the exit code."""
    from recon_fast.parser import parse

    given = parse(name, argv)
    from rich.console import Console

    module, _, function_name = COMMANDS[name].function.partition(":")
    function = getattr(import_module(module), function_name)
    arguments: dict[str, Any] = dict(given.options)
    if given.config is not None:
        arguments["config"] = given.config
    if given.resume is not None:
        arguments["resume"] = given.resume
    seeds = arguments.pop("seeds", None)
    if seeds is not None:
        from recon_fast.tasks.seeds import run_seeds

        return COMMANDS[name].finish(name, run_seeds(function, given.config, seeds))
    if "console" in signature(function).parameters:
        arguments["console"] = Console(stderr=True)
    return COMMANDS[name].finish(name, function(*given.places, **arguments))
