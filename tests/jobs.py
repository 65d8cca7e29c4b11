"""Training in processes of its own, which tests may kill.

They are forked from a server that has imported everything and trained nothing, so that they start at once.
"""

import multiprocessing
import os
import signal
import socket
import sys
from pathlib import Path

import torch
from rich.console import Console

from recon_fast.errors import InputError
from recon_fast.training.loop import Loop
from recon_fast.training.pretrain import pretrain

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["warm", "pytest"])


def start(target, *arguments):
    """A started process that calls `target`; its exit code is 0, 2 for an InputError, or minus a signal."""
    path = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # for the server, should it start now
    try:
        process = _context.Process(target=_quiet, args=(target, *arguments))
        process.start()
    finally:
        os.environ.pop("PYTHONPATH")
        if path is not None:
            os.environ["PYTHONPATH"] = path
    return process


def _quiet(target, *arguments):
    torch.set_num_threads(1)
    try:
        target(*arguments)
    except InputError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(2)


def train(config, shapes, die_at=None, log=None):
    """Pretrain, resuming where possible; with `die_at` (rank, step), kill this process in that step."""
    if log is not None:
        file = Path(f"{log}-{os.environ.get('RANK', 0)}").open("w", encoding="utf-8")  # noqa: SIM115
        os.dup2(file.fileno(), 2)
    if die_at is not None and int(os.environ.get("RANK", 0)) == die_at[0]:
        real = Loop.advance

        def dying(loop, *rest):
            if loop.step == die_at[1]:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(loop, *rest)

        Loop.advance = dying
    pretrain(config, "auto", Console(quiet=True), shapes)


def _ranked(environment, target, *arguments):
    os.environ.update(environment)
    target(*arguments)


def start_ranks(count, *arguments, target=train):
    """Processes that train together, each started with `target(*arguments)`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [
        start(_ranked, {**common, "RANK": str(i), "LOCAL_RANK": str(i)}, target, *arguments)
        for i in range(count)
    ]
