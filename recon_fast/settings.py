"""From command-line arguments and YAML files to typed settings; mistakes name the nearest key."""

import argparse
import difflib
import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import jsonargparse

from recon_fast.config import ConvertConfig, PackConfig, PretrainConfig
from recon_fast.config.downstream import DownstreamConfig, FewshotConfig, FinetuneConfig, PartsegConfig
from recon_fast.errors import InputError
from recon_fast.schema import read_yaml

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")
DEFAULT_CONFIG = "quickstart"


def config_folder() -> Path:
    """Where the recipes lie: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def packaged_configs(command: str) -> dict[str, Path]:
    """Recipes of a command by name."""
    return {path.stem: path for path in sorted((config_folder() / command).glob("*.yaml"))}


def find_config(name: str, command: str) -> Path:
    """The file that `--config name` means: a path, or the name of a recipe."""
    path = Path(name)
    if path.is_file():
        return path
    known = packaged_configs(command)
    if name in known:
        return known[name]
    raise InputError(
        f"config must be a YAML file or one of {', '.join(known)}, got {name}{nearest(name, known)}"
    )


def nearest(key: str, keys: Sequence[str] | dict[str, Any]) -> str:
    """' (did you mean X?)' for the key most like `key`, or nothing."""
    leaves = {name.rsplit(".", 1)[-1]: name for name in keys}
    found = difflib.get_close_matches(key, list(keys), 1) or [
        leaves[leaf] for leaf in difflib.get_close_matches(key.rsplit(".", 1)[-1], list(leaves), 1)
    ]
    return f" (did you mean {found[0]}?)" if found else ""


def explain(error: Exception, parser: jsonargparse.ArgumentParser) -> InputError:
    """One line for what the parser could not take, with the nearest key for one it does not know."""
    text = " ".join(str(error).split())
    unknown = (
        re.search(r"[Uu]nrecognized arguments: -*([^\s=]+)", text)
        or re.search(r"Group '(?P<group>[^']+)' does not accept option '(?P<option>[^']+)'", text)
        or re.search(r"Option '([^']+)' is not accepted", text)
    )
    if unknown:
        key = ".".join(unknown.groups())
        keys = list(parser.get_defaults().keys())
        return InputError(f"unknown setting {key}{nearest(key, keys)}")
    wrong = re.search(r'Parser key "([^"]+)": (.*)', text)
    if wrong:
        return InputError(f"setting {wrong[1]} {_wanted(wrong[2])}")
    return InputError(text)


_NOUNS = {
    "int": "a whole number",
    "float": "a finite number",
    "bool": "true or false",
    "str": "a text",
    "NoneType": "null",
}


def _wanted(text: str) -> str:
    """What the parser says of a value, for people."""
    if found := re.match(r"Expected a <class 'list'>\. Got value: (.*)", text):
        return f"must be a list, as [{found[1]}], got {found[1]}"
    if found := re.match(r"Expected a <class '(\w+)'>\. Got value: (.*)", text):
        return f"must be {_NOUNS.get(found[1], found[1])}, got {found[2]}"
    if found := re.match(r"Expected a (?:typing\.)?Literal\[(.*)\]\. Got value: (.*)", text):
        choices = re.findall(r"'([^']*)'", found[1])
        return f"must be one of {', '.join(choices)}, got {found[2]}{nearest(found[2], choices)}"
    if found := re.match(r".*?Subtypes: \[(.*?)\] Errors: .* Given value: (.*)", text):
        kinds = [_NOUNS.get(kind, kind) for kind in re.findall(r"<class '(\w+)'>", found[1])]
        return f"must be {' or '.join(kinds)}, got {found[2]}"
    if "Unable to load config" in text:
        return "has settings of its own, which are given by their names"
    return f": {text.replace('typing.', '')}"


def command_parser(command: str, description: str) -> jsonargparse.ArgumentParser:
    """The parser of `recon-fast COMMAND`, which raises errors and takes whole names alone."""
    return jsonargparse.ArgumentParser(
        prog=f"recon-fast {command}", description=description, exit_on_error=False, allow_abbrev=False
    )


def typed(kind: type[T], settings: Any) -> T:
    """The settings of one dataclass among all that were parsed."""
    return kind(**{field.name: settings[field.name] for field in fields(kind)})


def parse(parser: jsonargparse.ArgumentParser, argv: list[str]) -> Any:
    """Parse and instantiate; wrong arguments raise InputError."""
    try:
        settings = parser.parse_args(argv)
        for key, value in vars(settings.as_flat()).items():
            if value == "":
                raise InputError(f"setting {key} must not be empty")
        return parser.instantiate(settings)
    except (argparse.ArgumentError, jsonargparse.ArgumentError, TypeError) as error:
        raise explain(error, parser) from error


def option(argv: list[str], name: str) -> str | None:
    """Value of `--name VALUE` or `--name=VALUE` in raw arguments, the last one given."""
    value = None
    for i, argument in enumerate(argv):
        if argument == f"--{name}":
            if i + 1 == len(argv) or argv[i + 1].startswith("--"):
                raise InputError(f"setting {name} needs a value: --{name} VALUE")
            value = argv[i + 1]
        elif argument.startswith(f"--{name}="):
            value = argument.split("=", 1)[1]
    return value


def without_option(argv: list[str], name: str) -> list[str]:
    """The raw arguments without `--name VALUE` and `--name=VALUE`."""
    kept, skip = [], False
    for argument in argv:
        if skip or argument.startswith(f"--{name}="):
            skip = False
        elif argument == f"--{name}":
            skip = True
        else:
            kept.append(argument)
    return kept


def start_config(argv: list[str], command: str, default: str) -> tuple[Path, Path | str | None, list[str]]:
    """The YAML file that settings start from, what to resume, and the arguments that are left.

    The base is the recipe of `--config` (a name or a file), the config of the run for `--resume`, or the
    default. `--resume auto` takes the recipe, as a new run does.
    """
    resume = option(argv, "resume")
    rest = without_option(without_option(argv, "resume"), "config")
    if resume is None or resume == "auto":
        return find_config(option(argv, "config") or default, command), resume, rest
    if option(argv, "config") is not None:
        raise InputError("resume takes the run's own config, got --config as well")
    run = Path(resume)
    run = run.parent.parent if (run / "state.json").is_file() else run
    if not (run / "config.yaml").is_file():
        raise InputError(
            f"resume must name a run folder with a config.yaml, or a checkpoint in it, got {resume}"
        )
    if option(rest, "out") is None:
        rest = [*rest, "--out", str(run)]  # the folder may have been moved since
    return run / "config.yaml", Path(resume), rest


def parse_pretrain(argv: list[str]) -> tuple[PretrainConfig, Path | str | None, int]:
    """Settings of `recon-fast pretrain`, what to resume from, and how many steps to profile.

    The base is the recipe of `--config` (a name or a file), the config of the run for `--resume`, or
    quickstart. `--resume auto` takes the recipe, as a new run does.
    """
    base, resume, rest = start_config(argv, "pretrain", DEFAULT_CONFIG)
    read_yaml(base)
    parser = command_parser(
        "pretrain",
        f"Pretrain ReCon; without --config '{DEFAULT_CONFIG}', on a procedural set in memory.",
    )
    names = ", ".join(packaged_configs("pretrain"))
    parser.add_argument("--config", action="config", help=f"a YAML file, or one of: {names}")
    parser.add_argument(
        "--resume",
        help="run folder (or its newest checkpoint) to continue, bit by bit; auto: continue the run in --out "
        "if it has a checkpoint, else start it",
    )
    parser.add_argument(
        "--profile",
        type=int,
        default=0,
        help="only time that many steps: a table of their parts, and RUN/profile/trace.json for a timeline",
    )
    parser.add_class_arguments(PretrainConfig, as_group=False)
    settings = parse(parser, ["--config", str(base), *rest])
    if settings["profile"] < 0:
        raise InputError(f"profile must be a number of steps, got {settings['profile']}")
    if settings["resume"] is not None:
        raise InputError(f"resume must be given on the command line, got {settings['resume']} in {base}")
    config = typed(PretrainConfig, settings)
    if resume == "auto" and config.out is None:
        raise InputError("resume auto needs the folder of the run: --out RUN")
    return config, resume, settings["profile"]


def _downstream_parser(
    settings: type[DownstreamConfig], command: str, description: str
) -> jsonargparse.ArgumentParser:
    """The parser of a command that trains a downstream model."""
    parser = command_parser(command, description)
    names = ", ".join(packaged_configs(command))
    parser.add_argument("--config", action="config", help=f"a YAML file, or one of: {names}")
    parser.add_argument("--resume", help="run folder (or its newest checkpoint) to continue; or auto")
    parser.add_class_arguments(settings, as_group=False)
    return parser


def parse_finetune(argv: list[str], command: str) -> tuple[FinetuneConfig, Path | str | None]:
    """Settings of `recon-fast finetune`, `linear` or `mlp3`, and what to resume from."""
    argv = ["--official_protocol=true" if arg == "--official-protocol" else arg for arg in argv]
    base, resume, rest = start_config(argv, command, "classify")
    protocol = "full" if command == "finetune" else command
    what = {"full": "Fine-tune a classifier", "mlp3": "Train three layers on a frozen encoder"}
    parser = _downstream_parser(
        FinetuneConfig,
        command,
        f"{what.get(protocol, 'Train a linear layer on a frozen encoder')}, and test it; "
        "without --data.path on a procedural set in memory.",
    )
    given = read_yaml(base)
    if given.get("protocol", protocol) != protocol:
        raise InputError(f"config {base} is of `recon-fast {given['protocol']}`, not of `{command}`")
    settings = parse(parser, ["--config", str(base), "--protocol", protocol, *rest])
    config = typed(FinetuneConfig, settings)
    if config.protocol != protocol:
        raise InputError(f"protocol is said by the command: `recon-fast {config.protocol}`, got --protocol")
    if resume == "auto" and config.out is None:
        raise InputError("resume auto needs the folder of the run: --out RUN")
    return config, resume


def parse_partseg(argv: list[str]) -> tuple[PartsegConfig, Path | str | None]:
    """Settings of `recon-fast partseg`, and what to resume from."""
    argv = ["--official_protocol=true" if arg == "--official-protocol" else arg for arg in argv]
    base, resume, rest = start_config(argv, "partseg", "small")
    read_yaml(base)
    parser = _downstream_parser(
        PartsegConfig,
        "partseg",
        "Train a part segmenter, and test it; without --data.path on procedural shapes in memory.",
    )
    settings = parse(parser, ["--config", str(base), *rest])
    config = typed(PartsegConfig, settings)
    if resume == "auto" and config.out is None:
        raise InputError("resume auto needs the folder of the run: --out RUN")
    return config, resume


def parse_pack(argv: list[str]) -> tuple[Path, Path, PackConfig]:
    """Source, output and settings of `recon-fast pack`."""
    parser = command_parser(
        "pack",
        "Pack a folder of clouds into one HDF5 file, or with --shard_size into many.",
    )
    parser.add_argument("source", help="folder in an official layout, or any folder of clouds")
    parser.add_argument("out", help="the .h5 file to write, or the folder of shards")
    parser.add_class_arguments(PackConfig, as_group=False)
    settings = parse(parser, argv)
    config = typed(PackConfig, settings)
    return Path(settings["source"]), Path(settings["out"]), config


def parse_convert(argv: list[str]) -> tuple[Path, Path, ConvertConfig]:
    """Source, output and settings of `recon-fast convert`."""
    parser = command_parser(
        "convert",
        "Bring an official checkpoint into our format, or ours into the official one.",
    )
    parser.add_argument("source", help="official .pth, run folder, checkpoint folder or model.safetensors")
    parser.add_argument(
        "out",
        help="a folder, for model.safetensors and a report of the keys; or a .pth file, which the official "
        "code loads",
    )
    parser.add_class_arguments(ConvertConfig, as_group=False)
    settings = parse(parser, argv)
    config = typed(ConvertConfig, settings)
    return Path(settings["source"]), Path(settings["out"]), config


def parse_fewshot(argv: list[str]) -> tuple[FewshotConfig, Path | str | None]:
    """Settings of `recon-fast fewshot`, and the run to continue."""
    argv = ["--official_protocol=true" if arg == "--official-protocol" else arg for arg in argv]
    base, resume, rest = start_config(argv, "fewshot", "fewshot")
    read_yaml(base)
    parser = command_parser(
        "fewshot",
        "Few-shot classification, mean and deviation over folds; of published folds, or of any labelled set.",
    )
    names = ", ".join(packaged_configs("fewshot"))
    parser.add_argument("--config", action="config", help=f"a YAML file, or one of: {names}")
    parser.add_argument("--resume", help="run folder to continue")
    parser.add_class_arguments(FewshotConfig, as_group=False)
    settings = parse(parser, ["--config", str(base), *rest])
    config = typed(FewshotConfig, settings)
    if resume == "auto":
        raise InputError("resume must name the folder of a run, got auto")
    return config, resume
