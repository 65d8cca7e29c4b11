"""From the arguments of a command to its settings; mistakes name the nearest key."""

import argparse
import json
import re
import textwrap
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import jsonargparse

from recon_fast.commands import COMMANDS, Command
from recon_fast.config.recipes import find_recipe, nearest, packaged_recipes
from recon_fast.errors import InputError
from recon_fast.schema import read_yaml


@dataclass(frozen=True)
class Given:
    """What a command was given.

    Attributes:
        config: its settings; None for a command without.
        places: its other arguments by place.
        options: its other arguments by keyword.
        resume: the run to continue, "auto", or None.
    """

    config: Any
    places: list[Any]
    options: dict[str, Any]
    resume: Path | str | None


def parse(name: str, argv: list[str]) -> Given:
    """What the arguments of a command say. Wrong ones raise InputError, `--help` prints and exits."""
    command, parser = COMMANDS[name], command_parser(name)
    first, rest = _first_words(name, argv)
    if first.help:
        text = parser.format_help() if first.help == "all" else short_help(name, parser)
        print(text.rstrip(), flush=True)
        raise SystemExit(0)
    rest = _with_flags(rest, command)
    recipe = first.config or command.recipe
    base: Path | dict[str, Any] = {}
    resume = first.resume
    if resume not in (None, "auto"):
        if first.config is not None:
            raise InputError("resume takes the run's own config, got --config as well")
        base, resume = _config_of_run(resume), Path(resume)
        rest = ["--out", str(base.parent), *rest]  # the folder may have been moved since
    elif recipe:
        base = find_recipe(recipe, name)
    given = read_yaml(base) if isinstance(base, Path) else base
    where = str(base) if isinstance(base, Path) else f"recipe {recipe}"
    if command.protocol:
        stated = given.get("protocol", command.protocol)
        if stated != command.protocol:
            raise InputError(f"config {where} is of `recon-fast {stated}`, not of `{name}`")
        rest = ["--protocol", command.protocol, *rest]
    if base:
        rest = ["--config", str(base) if isinstance(base, Path) else json.dumps(base), *rest]
    settings = _parsed(parser, rest)
    if command.resume and settings["resume"] is not None:
        raise InputError(f"resume must be given on the command line, got {settings['resume']} in {where}")
    places, options = [], {}
    for argument in command.arguments:
        value = settings[argument.key]
        if argument.name.startswith("--"):
            options[argument.keyword or argument.key] = value
        else:
            places.append(value)
    if command.config is None:
        return Given(None, places, options, resume)
    config: Any = command.config(**{field.name: settings[field.name] for field in fields(command.config)})
    if command.protocol and config.protocol != command.protocol:
        raise InputError(f"protocol is said by the command: `recon-fast {config.protocol}`, got --protocol")
    if resume == "auto" and config.out is None:
        raise InputError("resume auto needs the folder of the run: --out RUN")
    if options.get("profile_steps", 0) < 0:
        raise InputError(f"profile must be a number of steps, got {options['profile_steps']}")
    return Given(config, places, options, resume)


def command_parser(name: str) -> jsonargparse.ArgumentParser:
    """The parser of `recon-fast NAME`, which raises errors and takes whole names alone."""
    command = COMMANDS[name]
    parser = jsonargparse.ArgumentParser(
        prog=f"recon-fast {name}", description=command.about, exit_on_error=False, allow_abbrev=False
    )
    names = ", ".join(packaged_recipes(name))
    if names:
        parser.add_argument("--config", action="config", help=f"a YAML file, or one of: {names}")
    if command.resume:
        parser.add_argument("--resume", help=command.resume)
    for argument in command.arguments:
        options: dict[str, Any] = {"help": argument.help, "type": argument.type}
        if argument.name.startswith("--"):
            options["default"] = argument.default
        for key in ("nargs", "metavar"):
            if getattr(argument, key):
                options[key] = getattr(argument, key)
        parser.add_argument(argument.name, **options)
    if command.config:
        parser.add_class_arguments(command.config, as_group=False)
    return parser


def short_help(name: str, parser: jsonargparse.ArgumentParser) -> str:
    """What a command is for, an example and the settings that most people need, on one screen."""
    command = COMMANDS[name]
    actions = {action.dest: action for action in parser._actions}
    places = [argument for argument in command.arguments if not argument.name.startswith("--")]
    shown = [argument.key for argument in command.arguments if argument not in places]
    keys = [key for key in ("config", "resume") if key in actions] + shown + list(command.common)
    marks = {"+": "{0} [{0} ...]", "?": "[{0}]", None: "{0}"}
    usage = [marks[argument.nargs].format(argument.metavar or argument.key) for argument in places]
    lines = [
        " ".join(["usage: recon-fast", name, *usage, "[options]"]),
        "",
        *textwrap.wrap(command.about, 79),
        "",
        *textwrap.wrap(
            f"recon-fast {name} {command.example}".rstrip(), 80, initial_indent="  ", subsequent_indent="  "
        ),
        "",
    ]
    for argument in places:
        lines += _row(argument.metavar or argument.key, argument.help)
    lines += [""] if places else []
    for key in keys:
        lines += _row(f"--{key}", actions[key].help or "")
    if command.config:
        lines += [*([""] if keys else []), f"`recon-fast {name} --help all` lists all settings."]
    return "\n".join(lines)


def _row(name: str, text: str) -> list[str]:
    """A name and at most two lines of text beside it."""
    text = " ".join(text.split())
    rows = textwrap.wrap(textwrap.shorten(text, 2 * 52, placeholder=" ..."), 54) or [""]
    return [f"  {name:<20} {rows[0]}", *(f"{'':23}{row}" for row in rows[1:2])]


def _with_flags(argv: list[str], command: Command) -> list[str]:
    """The raw arguments, where `--name` or `--na-me` of a setting that is true or false alone means true."""
    flags = {argument.key for argument in command.arguments if argument.type is bool}
    if command.config:
        flags |= {field.name for field in fields(command.config) if field.type is bool}
    result = []
    for i, argument in enumerate(argv):
        value = argv[i + 1] if i + 1 < len(argv) else ""
        given = argument[2:].partition("=")[0]
        key = given.replace("-", "_")
        if argument.startswith("--") and key in flags:
            argument = f"--{key}{argument[2 + len(given) :]}"
            if "=" not in argument and value.lower() not in ("true", "false", "yes", "no"):
                argument += "=true"
        result.append(argument)
    return result


def _first_words(name: str, argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """What is asked of `help`, `config` and `resume`, None where nothing is; and the other arguments."""
    words = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    words.add_argument("-h", "--help", nargs="?", const="short")
    words.set_defaults(config=None, resume=None)
    if packaged_recipes(name):
        words.add_argument("--config")
    if COMMANDS[name].resume:
        words.add_argument("--resume")
    try:
        return words.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise InputError(
            f"setting {str(error.argument_name)[2:]} needs a value: {error.argument_name} VALUE"
        ) from error


def _config_of_run(resume: str) -> Path:
    """The config of a run, or of the run that a checkpoint lies in."""
    run = Path(resume)
    run = run.parent.parent if (run / "state.json").is_file() else run
    if not (run / "config.yaml").is_file():
        raise InputError(
            f"resume must name a run folder with a config.yaml, or a checkpoint in it, got {resume}"
        )
    return run / "config.yaml"


def _parsed(parser: jsonargparse.ArgumentParser, argv: list[str]) -> Any:
    """Parse and instantiate; wrong arguments raise InputError."""
    try:
        settings = parser.parse_args(argv)
        for key, value in vars(settings.as_flat()).items():
            if value == "":
                raise InputError(f"setting {key} must not be empty")
        return parser.instantiate(settings)
    except (argparse.ArgumentError, jsonargparse.ArgumentError, TypeError) as error:
        raise _explained(error, parser) from error


def _explained(error: Exception, parser: jsonargparse.ArgumentParser) -> InputError:
    """One line for what the parser could not take, with the nearest key for one it does not know."""
    text = " ".join(str(error).split())
    unknown = (
        re.search(r"[Uu]nrecognized arguments: -*([^\s=]+)", text)
        or re.search(r"Group '(?P<group>[^']+)' does not accept option '(?P<option>[^']+)'", text)
        or re.search(r"Option '([^']+)' is not accepted", text)
    )
    if place := re.search(r"[Uu]nrecognized arguments: ([^-\s]\S*)", text):
        return InputError(f"settings are given by name, as --seed 0, got {place[1]} without one")
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
