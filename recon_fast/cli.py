"""The command line. Each command imports what it needs, so help and mistakes answer at once."""

import argparse
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from recon_fast import __version__
from recon_fast.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

COMMANDS = {
    "pretrain": "pretrain ReCon: on a procedural set, ShapeNet, or clouds of your own",
    "finetune": "fine-tune a classifier from a checkpoint, and test it",
    "mlp3": "train three layers on a frozen encoder, and test them",
    "linear": "train a linear layer on a frozen encoder, and test it",
    "partseg": "train a part segmenter from a checkpoint, and test it",
    "fewshot": "few-shot classification: mean and deviation over folds",
    "table": "results of runs in the paper's tables, its numbers beside them",
    "show": "what a model rebuilds and looks at, as a page",
    "report": "curves, probes, settings and hardware of runs, as a page",
    "inspect": "sizes, classes, duplicates and thumbnails of a data set, as a page",
    "pack": "pack a folder of clouds into one HDF5 file",
    "convert": "bring an official checkpoint into our format, or ours into the official one",
    "svm": "test frozen features: linear SVM and nearest neighbours",
    "zeroshot": "classify shapes by the texts of their classes",
    "embed": "write features of clouds into a file",
    "retrieve": "find shapes by a shape, a text or a picture",
    "doctor": "compare every operator with plain PyTorch on this device, and time both",
    "info": "versions, devices, operators in use, where teacher weights were found",
}

_DISTRIBUTED = (
    "pretrain",
    "finetune",
    "mlp3",
    "linear",
    "partseg",
)  # commands whose processes share the work under torchrun


def build_parser() -> argparse.ArgumentParser:
    """The outer parser: only names of commands, their own parsers come later."""
    commands = "\n".join(f"  {name:<10}{text}" for name, text in COMMANDS.items())
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
    if arguments.command not in _DISTRIBUTED and processes != "1":
        if os.environ.get("RANK", "0") == "0":
            what = f"`{arguments.command}` runs in one process, got {processes} of torchrun"
            print(f"recon-fast: error: {what}; `pretrain` takes several", file=sys.stderr)
        return 2
    # Read by torch when it is imported: large tensors in huge pages made a step on a CPU a tenth faster.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    try:
        with sigterm_unwinds():
            return globals()[f"run_{arguments.command}"](arguments.arguments)
    except InputError as error:
        table = getattr(error, "table", None)
        if table:
            print(table, file=sys.stderr)
        rank = os.environ.get("RANK", "0")  # set by torchrun
        who = "recon-fast" if rank == "0" else f"recon-fast (rank {rank})"
        print(f"{who}: error: {' '.join(str(error).split())}", file=sys.stderr)
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
    except KeyboardInterrupt:
        print("recon-fast: interrupted", file=sys.stderr)
        return 130


def is_out_of_memory(error: BaseException) -> bool:
    """Whether numpy, or torch on any device, got no memory."""
    said = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, MemoryError) or any(words in str(error) for words in said)


def run_pretrain(argv: list[str]) -> int:
    """`recon-fast pretrain`."""
    from recon_fast.settings import parse_pretrain

    config, resume, profile_steps = parse_pretrain(argv)
    from shlex import quote

    from rich.console import Console

    from recon_fast.console import say
    from recon_fast.training.pretrain import pretrain

    console = Console(stderr=True)
    result = pretrain(config, resume, console, profile_steps=profile_steps)
    if result.checkpoint is None:  # a profile
        return 0
    if os.environ.get("RANK", "0") == "0":
        print(result.checkpoint)
    if result.stopped_by is not None:
        run = result.checkpoint.parent.parent
        command = f"recon-fast pretrain --resume {quote(str(run))}"
        say(console, f"stopped by {result.stopped_by}; continue with: {command}")
        return 128 + int(signal.Signals[result.stopped_by])
    return 0


def run_finetune(argv: list[str], command: str = "finetune") -> int:
    """`recon-fast finetune`."""
    from recon_fast.settings import parse_finetune

    config, resume = parse_finetune(argv, command)
    from rich.console import Console

    from recon_fast.tasks.finetune import finetune

    console = Console(stderr=True)
    result = finetune(config, resume, console)
    return leave_run(command, result.run, result.stopped_by, console)


def leave_run(command: str, run: Path, stopped_by: str | None, console: "Console") -> int:
    """Print the folder of a downstream run, and how to continue one that was stopped; the exit code."""
    from shlex import quote

    from recon_fast.console import say

    print(run)
    if stopped_by is None:
        return 0
    again = f"recon-fast {command} --resume {quote(str(run))}"
    say(console, f"stopped by {stopped_by}; continue with: {again}")
    return 128 + int(signal.Signals[stopped_by])


def run_mlp3(argv: list[str]) -> int:
    """`recon-fast mlp3`."""
    return run_finetune(argv, "mlp3")


def run_linear(argv: list[str]) -> int:
    """`recon-fast linear`."""
    return run_finetune(argv, "linear")


def run_partseg(argv: list[str]) -> int:
    """`recon-fast partseg`."""
    from recon_fast.settings import parse_partseg

    config, resume = parse_partseg(argv)
    from rich.console import Console

    from recon_fast.tasks.partseg import partseg

    console = Console(stderr=True)
    result = partseg(config, resume, console)
    return leave_run("partseg", result.run, result.stopped_by, console)


def run_fewshot(argv: list[str]) -> int:
    """`recon-fast fewshot`."""
    from recon_fast.settings import parse_fewshot

    config, resume = parse_fewshot(argv)
    from rich.console import Console

    from recon_fast.tasks.fewshot import fewshot

    console = Console(stderr=True)
    result = fewshot(config, resume, console)
    return leave_run("fewshot", result.run, result.stopped_by, console)


def run_table(argv: list[str]) -> int:
    """`recon-fast table RUN...`."""
    from recon_fast.tasks.table import collect, render

    parser = argparse.ArgumentParser(prog="recon-fast table", description=COMMANDS["table"])
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a finished run, or its result.json")
    parser.add_argument("--format", choices=("markdown", "csv", "latex"), default="markdown")
    parser.add_argument(
        "--published", choices=("true", "false"), default="true", help="the paper's numbers too"
    )
    given = parser.parse_args(argv)
    rows = collect([Path(run) for run in given.runs], given.published == "true")
    print(render(rows, given.format), end="")
    return 0


def run_show(argv: list[str]) -> int:
    """`recon-fast show CKPT CLOUD...`."""
    from recon_fast.viz.settings import parse_show

    checkpoint, clouds, config = parse_show(argv)
    from rich.console import Console

    from recon_fast.viz.show_page import show

    print(show(checkpoint, clouds, config, Console(stderr=True)))
    return 0


def run_report(argv: list[str]) -> int:
    """`recon-fast report RUN...`."""
    from recon_fast.viz.settings import parse_report

    runs, config = parse_report(argv)
    from rich.console import Console

    from recon_fast.viz.run_page import report

    print(report(runs, config, Console(stderr=True)))
    return 0


def run_inspect(argv: list[str]) -> int:
    """`recon-fast inspect DATA`."""
    from recon_fast.viz.settings import parse_inspect

    data, config = parse_inspect(argv)
    from rich.console import Console

    from recon_fast.viz.data_page import inspect

    print(inspect(data, config, Console(stderr=True)))
    return 0


def run_pack(argv: list[str]) -> int:
    """`recon-fast pack SRC OUT.h5`."""
    from recon_fast.settings import parse_pack

    source, out, config = parse_pack(argv)
    from rich.console import Console

    from recon_fast.tasks.pack import pack_shapes

    print(pack_shapes(source, out, config, Console(stderr=True)))
    return 0


def run_convert(argv: list[str]) -> int:
    """`recon-fast convert SOURCE OUT`."""
    from recon_fast.settings import parse_convert

    source, out, config = parse_convert(argv)
    from rich.console import Console

    from recon_fast.checkpoint.convert import convert
    from recon_fast.console import say

    written, report = convert(source, out, config)
    say(Console(stderr=True), report)
    print(written)
    return 0


def run_svm(argv: list[str]) -> int:
    """`recon-fast svm [CHECKPOINT]`."""
    from recon_fast.task_settings import parse_svm

    config = parse_svm(argv)
    from recon_fast.tasks.svm import svm_probe

    print(svm_probe(config).run)
    return 0


def run_zeroshot(argv: list[str]) -> int:
    """`recon-fast zeroshot CHECKPOINT`."""
    from recon_fast.task_settings import parse_zeroshot

    config = parse_zeroshot(argv)
    from recon_fast.tasks.zeroshot import zero_shot

    print(zero_shot(config).run)
    return 0


def run_embed(argv: list[str]) -> int:
    """`recon-fast embed CHECKPOINT CLOUDS... OUT`."""
    from recon_fast.task_settings import parse_embed

    checkpoint, clouds, out, config = parse_embed(argv)
    from recon_fast.tasks.embed_files import embed_files

    print(embed_files(checkpoint, clouds, out, config).summary())
    return 0


def run_retrieve(argv: list[str]) -> int:
    """`recon-fast retrieve CLOUDS QUERY` and `recon-fast retrieve CLOUDS --captions`."""
    from recon_fast.task_settings import parse_retrieve

    clouds, query, config = parse_retrieve(argv)
    if query is None:
        from recon_fast.tasks.captions import caption_recall

        print(caption_recall(clouds, config).run)
        return 0
    from rich.console import Console

    from recon_fast.tasks.retrieve import retrieve

    retrieve(clouds, query, config).show(Console())
    return 0


def run_doctor(argv: list[str]) -> int:
    """`recon-fast doctor`; 1 where an operator is wrong."""
    parser = argparse.ArgumentParser(prog="recon-fast doctor", description=COMMANDS["doctor"])
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ...; cuda unless there is none")
    given = parser.parse_args(argv)
    from recon_fast.doctor import diagnose

    return 0 if diagnose(given.device) else 1


def run_info(argv: list[str]) -> int:
    """`recon-fast info`."""
    argparse.ArgumentParser(prog="recon-fast info", description=COMMANDS["info"]).parse_args(argv)
    from recon_fast.info import describe

    for title, rows in describe().items():
        print(title)
        width = max(len(name) for name, _ in rows)
        for name, text in rows:
            print(f"  {name:<{width}}  {text}")
    return 0
