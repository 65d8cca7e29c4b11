"""From command-line arguments to the settings of the commands that only look at an encoder."""

from pathlib import Path

import jsonargparse

from recon_fast.config.frozen import EmbedConfig, RetrieveConfig, SvmConfig, ZeroShotConfig
from recon_fast.errors import InputError
from recon_fast.schema import read_yaml
from recon_fast.settings import (
    command_parser,
    find_config,
    option,
    packaged_configs,
    parse,
    typed,
    without_option,
)

_CHECKPOINT = "run folder, checkpoint folder, model.safetensors or official .pth"


def _flag(argv: list[str], name: str) -> list[str]:
    """The raw arguments, where `--name` without a value means true."""
    values = [*argv[1:], ""]
    return [
        f"--{name}=true" if argument == f"--{name}" and value not in ("true", "false") else argument
        for argument, value in zip(argv, values, strict=True)
    ]


def _with_recipe(parser: jsonargparse.ArgumentParser, argv: list[str], command: str) -> list[str]:
    """The raw arguments with the file that `--config` names in front, so that the others override it."""
    names = ", ".join(packaged_configs(command))
    parser.add_argument("--config", action="config", help=f"a YAML file, or one of: {names}")
    given = option(argv, "config")
    if given is None:
        return argv
    path = find_config(given, command)
    read_yaml(path)
    return ["--config", str(path), *without_option(argv, "config")]


def parse_svm(argv: list[str]) -> SvmConfig:
    """Settings of `recon-fast svm`."""
    parser = command_parser(
        "svm",
        "Linear SVM and nearest neighbours on frozen features of labelled shapes; without --data.path on a "
        "procedural set in memory.",
    )
    parser.add_argument(
        "checkpoint", nargs="?", help=f"{_CHECKPOINT}; none (or nothing) tests an encoder at random"
    )
    parser.add_class_arguments(SvmConfig, as_group=False, skip={"checkpoint"})
    settings = parse(parser, _with_recipe(parser, argv, "svm"))
    if settings["checkpoint"] == "none":
        settings["checkpoint"] = None
    return typed(SvmConfig, settings)


def parse_zeroshot(argv: list[str]) -> ZeroShotConfig:
    """Settings of `recon-fast zeroshot`."""
    parser = command_parser(
        "zeroshot",
        "Classify shapes by the texts of their classes; without --data.path a procedural set in memory.",
    )
    parser.add_argument("checkpoint", help=f"of pretraining: {_CHECKPOINT}")
    parser.add_class_arguments(ZeroShotConfig, as_group=False, skip={"checkpoint"})
    return typed(ZeroShotConfig, parse(parser, _with_recipe(parser, argv, "zeroshot")))


def parse_embed(argv: list[str]) -> tuple[str, list[str], Path, EmbedConfig]:
    """Checkpoint, clouds, output and settings of `recon-fast embed`."""
    parser = command_parser("embed", "Write features of clouds into a file.")
    parser.add_argument("checkpoint", help=_CHECKPOINT)
    parser.add_argument(
        "clouds", nargs="+", help="files of one cloud, folders, packed files, .h5 files, folders of shards"
    )
    parser.add_argument("out", help="file to write: .h5, .hdf5 or .npz")
    parser.add_class_arguments(EmbedConfig, as_group=False)
    settings = parse(parser, _flag(argv, "overwrite"))
    config = typed(EmbedConfig, settings)
    return settings["checkpoint"], settings["clouds"], Path(settings["out"]), config


def parse_retrieve(argv: list[str]) -> tuple[str, str | None, RetrieveConfig]:
    """The set, the query (None for captions) and settings of `recon-fast retrieve`."""
    parser = command_parser(
        "retrieve", "Find the nearest shapes to a shape, a text or a picture; or score captions."
    )
    parser.add_argument("clouds", help="file that `recon-fast embed` wrote, or anything it embeds")
    parser.add_argument("text", nargs="?", metavar="query", help="key, file of a cloud or a picture, or text")
    parser.add_argument(
        "--captions",
        type=bool,
        default=False,
        help="score how shapes and captions of the test split find each other, in place of a query",
    )
    parser.add_class_arguments(RetrieveConfig, as_group=False)
    settings = parse(parser, _flag(argv, "captions"))
    if settings["captions"] == (settings["text"] is not None):
        raise InputError("retrieve takes a query or --captions, one of both")
    return settings["clouds"], settings["text"], typed(RetrieveConfig, settings)
