"""The table of commands: what each is for, its settings, and the function that does it.

Functions are named by text, `module:function`, and imported when their command runs.
"""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from recon_fast.config import (
    ConvertConfig,
    DoctorConfig,
    EmbedConfig,
    ExportConfig,
    FewshotConfig,
    FinetuneConfig,
    InspectConfig,
    PackConfig,
    PartsegConfig,
    PretrainConfig,
    ReportConfig,
    RetrieveConfig,
    ShowConfig,
    SvmConfig,
    TableConfig,
    ZeroShotConfig,
)
from recon_fast.config.check import Settings


@dataclass(frozen=True)
class Argument:
    """An argument of a command that is no setting of its dataclass.

    Attributes:
        name: with dashes in front, which goes to the function by keyword, or none for an argument by place.
        help: a line.
        type: what it is read as.
        nargs: as in argparse.
        default: where it may be left out.
        metavar: its name in the help of an argument by place, where that is another.
        keyword: its name as an argument of the function, where that is another.
    """

    name: str
    help: str
    type: type = str
    nargs: str | None = None
    default: Any = None
    metavar: str | None = None
    keyword: str | None = None

    @property
    def key(self) -> str:
        """The name without dashes."""
        return self.name.lstrip("-")


@dataclass(frozen=True)
class Command:
    """One command of the command line.

    Attributes:
        help: a few words for the list of commands.
        more: what its own help says besides.
        example: arguments for a typical call.
        config: its settings; None where there are none.
        function: `module:function`, called with `arguments`, and by keyword with `config`, and with
            `console` and `resume` where it takes them.
        finish: prints what the function returned, and gives the exit code.
        common: settings that most people need, for the short help.
        arguments: other arguments.
        recipe: recipe that settings start from; None starts from the defaults of the dataclass.
        resume: what `--resume` takes, for the help; None where a command has nothing to resume.
        protocol: the protocol of a classifier, which the command says.
        distributed: processes of torchrun share the work; other commands refuse several.
    """

    help: str
    example: str
    config: type[Settings] | None
    function: str
    finish: Callable[[str, Any], int]
    more: str = ""
    common: tuple[str, ...] = ()
    arguments: tuple[Argument, ...] = ()
    recipe: str | None = None
    resume: str | None = None
    protocol: str | None = None
    distributed: bool = False

    @property
    def about(self) -> str:
        """The help as sentences."""
        return f"{self.help[0].upper()}{self.help[1:]}. {self.more}".rstrip()


def _print(_command: str, result: object) -> int:
    print(result)
    return 0


def _print_files(_command: str, result: list[Path]) -> int:
    print(*result, sep="\n")
    return 0


def _print_run(_command: str, result: Any) -> int:
    print(result.run)
    return 0


def _leave_run(command: str, result: Any) -> int:
    """Print where a run lies, and how to continue one that was stopped."""
    checkpoint = result.checkpoint if command == "pretrain" else None
    if command == "pretrain" and checkpoint is None:  # a profile
        return 0
    if os.environ.get("RANK", "0") == "0":
        print(checkpoint or result.run)
    if result.stopped_by is None:
        return 0
    from rich.console import Console

    from recon_fast.console import say

    run = checkpoint.parent.parent if checkpoint else result.run
    again = f"recon-fast {command} --resume {quote(str(run))}"
    say(Console(stderr=True), f"stopped by {result.stopped_by}; continue with: {again}")
    return 128 + int(signal.Signals[result.stopped_by])


def _print_conversion(_command: str, result: tuple[Path, str]) -> int:
    from rich.console import Console

    from recon_fast.console import say

    written, report = result
    say(Console(stderr=True), report)
    print(written)
    return 0


def _print_embedded(_command: str, result: Any) -> int:
    print(result.summary())
    return 0


def _print_found(_command: str, result: Any) -> int:
    if not hasattr(result, "show"):  # scores of captions
        return _print_run(_command, result)
    from rich.console import Console

    result.show(Console())
    return 0


def _print_table(_command: str, result: str) -> int:
    print(result, end="")
    return 0


def _print_sections(_command: str, result: dict[str, list[tuple[str, str]]]) -> int:
    for title, rows in result.items():
        print(title)
        width = max(len(name) for name, _ in rows)
        for name, text in rows:
            print(f"  {name:<{width}}  {text}")
    return 0


def find_shapes(clouds: str, text: str | None, config: RetrieveConfig, captions: bool) -> Any:
    """What `recon-fast retrieve` does: nearest shapes to a query, or scores of captions."""
    from recon_fast.errors import InputError
    from recon_fast.tasks.retrieve import caption_recall, retrieve

    if captions == (text is not None):
        raise InputError("retrieve takes a query or --captions, one of both")
    if text is None:
        return caption_recall(clouds, config)
    return retrieve(clouds, text, config)


def results_table(runs: list[Path], config: TableConfig) -> str:
    """What `recon-fast table` prints."""
    from recon_fast.tasks.table import collect, render

    return render(collect(runs, config.published, config.best), config.format)


_RESUME = "run folder (or its newest checkpoint) to continue; or auto"
_TRAINING = (
    "checkpoint", "out", "data.path", "data.kind", "optim.epochs", "optim.batch_size", "optim.lr",
    "official_protocol", "votes", "seed", "device",
)  # fmt: skip
_READING = ("data.path", "data.kind", "data.num_points", "data.up", "out", "batch_size", "device")


SEEDS = Argument(
    "--seeds", "run for several seeds, as 0..7 or 0,3,5, and print the mean; the same command continues"
)
_IN_MEMORY = "Without --data.path, on a procedural set in memory."


def _classifier(name: str, help: str, protocol: str) -> Command:
    return Command(
        help, f"--checkpoint runs/pretrain-... --data.path my_clouds --out runs/{name}", FinetuneConfig,
        "recon_fast.tasks.finetune:finetune", _leave_run, _IN_MEMORY, _TRAINING, recipe="classify",
        arguments=(SEEDS,), resume=_RESUME, protocol=protocol, distributed=True,
    )  # fmt: skip


COMMANDS: dict[str, Command] = {
    "pretrain": Command(
        "pretrain ReCon: on a procedural set, ShapeNet, or clouds of your own",
        "--config small --data.path ShapeNet55-34 --out runs/small",
        PretrainConfig,
        "recon_fast.training.pretrain:pretrain",
        _leave_run,
        "Without --config, 'quickstart': a procedural set in memory.",
        common=("out", "init", "data.path", "data.num_points", "optim.epochs", "optim.batch_size", "optim.lr",
                "seed", "device", "precision"),
        arguments=(
            Argument("--profile", "only time that many steps: a table of their parts, and "
                     "RUN/profile/trace.json for a timeline", int, default=0, keyword="profile_steps"),
        ),
        recipe="quickstart",
        resume="run folder (or its newest checkpoint) to continue, bit by bit; auto: continue the run in "
        "--out if it has a checkpoint, else start it",
        distributed=True,
    ),
    "finetune": _classifier("finetune", "fine-tune a classifier from a checkpoint, and test it", "full"),
    "mlp3": _classifier("mlp3", "train three layers on a frozen encoder, and test them", "mlp3"),
    "linear": _classifier("linear", "train a linear layer on a frozen encoder, and test it", "linear"),
    "partseg": Command(
        "train a part segmenter from a checkpoint, and test it",
        "--config shapenetpart --checkpoint ckpt.pth --data.path shapenetcore_partanno_...",
        PartsegConfig, "recon_fast.tasks.partseg:partseg", _leave_run, _IN_MEMORY,
        common=_TRAINING,
        arguments=(SEEDS,),
        recipe="small",
        resume=_RESUME,
        distributed=True,
    ),
    "fewshot": Command(
        "few-shot classification: mean and deviation over folds",
        "--checkpoint ckpt.pth --data.path ModelNetFewshot --ways [5] --shots [10]",
        FewshotConfig,
        "recon_fast.tasks.fewshot:fewshot",
        _leave_run,
        "Folds are the published ones, or drawn from any labelled set.",
        common=("checkpoint", "out", "data.path", "ways", "shots", "folds", "protocol", "optim.epochs",
                "optim.lr", "seed", "device"),
        arguments=(SEEDS,),
        recipe="fewshot",
        resume="run folder to continue; or auto",
    ),
    "table": Command(
        "results of runs in the paper's tables, its numbers beside them",
        "runs/*", TableConfig,
        "recon_fast.commands:results_table",
        _print_table,
        common=("format", "published", "best"),
        arguments=(Argument("runs", "folders of finished runs, or their result.json", Path, "+"),),
    ),
    "show": Command(
        "what a model rebuilds and looks at, as one page that needs no network",
        "my_clouds procedural --out show.html",
        ShowConfig,
        "recon_fast.viz.show_page:show",
        _print,
        common=("checkpoint", "out", "png", "count", "kind", "up", "seed", "captions", "device"),
        arguments=(
            Argument("clouds", "files of clouds or meshes, data sets, or the word procedural", nargs="+"),
        ),
    ),
    "report": Command(
        "curves, probes, settings and hardware of runs, as a page",
        "runs/pretrain-... --follow 30",
        ReportConfig,
        "recon_fast.viz.run_page:report",
        _print,
        common=("out", "follow", "data", "kind", "up", "count", "device"),
        arguments=(Argument("runs", "folders of runs, finished or going on", Path, "+"),),
    ),
    "inspect": Command(
        "sizes, classes, duplicates, broken files and thumbnails of a data set, as a page",
        "my_clouds --out data.html",
        InspectConfig,
        "recon_fast.viz.data_page:inspect",
        _print,
        common=("out", "kind", "array", "thumbnails", "workers"),
        arguments=(Argument("data", "folder, .h5, few-shot .pkl, packed set, or the word procedural"),),
    ),
    "pack": Command(
        "pack a folder of clouds into one HDF5 file, or with --shard_size into many",
        "ShapeNet55-34 shapenet.h5",
        PackConfig,
        "recon_fast.tasks.pack:pack_shapes",
        _print,
        common=("kind", "up", "dtype", "num_points", "max_points", "on_problem", "features", "overwrite",
                "shard_size", "device"),
        arguments=(
            Argument("source", "folder in an official layout, or any folder of clouds", Path),
            Argument("out", "the .h5 file to write, or the folder of shards", Path),
        ),
    ),
    "convert": Command(
        "bring an official checkpoint into our format, or ours into the official one",
        "ckpt.pth converted",
        ConvertConfig,
        "recon_fast.checkpoint.convert:convert",
        _print_conversion,
        common=("num_heads", "num_group", "group_size", "dtype", "card", "overwrite"),
        arguments=(
            Argument("source", "official .pth, run folder, checkpoint folder or model.safetensors", Path),
            Argument("out", "a folder, for model.safetensors and a report of the keys; a .safetensors file; "
                     "or a .pth file, which the official code loads", Path),
        ),
    ),
    "export": Command(
        "write an encoder or classifier for use without its code: torch.export, ONNX",
        "procedural encoder.onnx",
        ExportConfig,
        "recon_fast.tasks.export:export",
        _print_files,
        "ONNX wants the extra `export`.",
        common=("kind", "num_heads", "num_group", "group_size", "overwrite"),
        arguments=(
            Argument("checkpoint", "procedural, the encoder that comes with the package; run folder, "
                     "checkpoint folder, model.safetensors or official .pth"),
            Argument("out", "a .pt2 file for torch.export.load, an .onnx file, or a name without suffix, "
                     "for both", Path),
        ),
    ),
    "svm": Command(
        "test frozen features of labelled shapes: linear SVM and nearest neighbours",
        "--checkpoint ckpt.pth --config modelnet40 --data.path modelnet40_normal_resampled",
        SvmConfig,
        "recon_fast.tasks.frozen:svm_probe",
        _print_run,
        _IN_MEMORY,
        common=("checkpoint", *_READING, "k", "seed"),
        arguments=(SEEDS,),
    ),
    "zeroshot": Command(
        "classify shapes by the texts of their classes",
        "--checkpoint ckpt.pth --config modelnet40 --data.path modelnet40_normal_resampled",
        ZeroShotConfig,
        "recon_fast.tasks.frozen:zero_shot",
        _print_run,
        _IN_MEMORY,
        common=("checkpoint", *_READING, "on", "feature", "ratio", "names"),
    ),
    "embed": Command(
        "write features of clouds into a file",
        "my_clouds features.h5",
        EmbedConfig,
        "recon_fast.tasks.embed_files:embed_files",
        _print_embedded,
        common=("checkpoint", "kind", "overwrite", "data.kind", "data.num_points", "data.up", "batch_size",
                "device", "precision"),
        arguments=(
            Argument("clouds", "files of one cloud, folders, packed files, .h5 files, folders of shards",
                     nargs="+"),
            Argument("out", "file to write: .h5, .hdf5 or .npz", Path),
        ),
    ),
    "retrieve": Command(
        "find shapes by a shape, a text or a picture",
        "my_clouds chair.ply --sheet found.html",
        RetrieveConfig,
        "recon_fast.commands:find_shapes",
        _print_found,
        common=("checkpoint", "query", "top", "kind", "sheet", "out", "data.kind", "device"),
        arguments=(
            Argument("clouds", "file that `recon-fast embed` wrote, or anything it embeds"),
            Argument("text", "key, file of a cloud or a picture, or text", nargs="?", metavar="query"),
            Argument("--captions", "score how shapes and captions of the test split find each other, in "
                     "place of a query", bool, default=False),
        ),
    ),
    "doctor": Command(
        "compare every operator with plain PyTorch on this device, and time both",
        "--device cpu", DoctorConfig,
        "recon_fast.doctor:diagnose",
        lambda _command, right: 0 if right else 1,
        common=("device",),
    ),
    "info": Command(
        "versions, devices, operators in use, where teacher weights were found",
        "", None, "recon_fast.doctor:describe", _print_sections,
    ),
}  # fmt: skip
