"""The package as functions: the commands with keywords for settings, and results as objects.

    run = recon_fast.pretrain("clouds/", config="small", optim={"epochs": 100})
    tuned = recon_fast.finetune(dataset, checkpoint=run.run)
    features = recon_fast.embed(arrays, checkpoint=run.run).features

Data are a path, as the command line takes it, or clouds in memory, as `recon_fast.data.memory.shapes_of`
takes them; None is the procedural set. Settings are the keys of the command's config, with those of a group
as a dict: `optim={"lr": 3e-4}, data={"up": "z"}`. A setting that does not exist raises `ValueError` and names
the nearest one. The data themselves are given by place.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from os import PathLike, fspath
from typing import Any, Literal

from rich.console import Console

from recon_fast.commands import COMMANDS
from recon_fast.config import DataConfig
from recon_fast.console import warn
from recon_fast.data.conventions import turn_up
from recon_fast.data.loading import DataProblems
from recon_fast.data.memory import shapes_of
from recon_fast.data.open import prepare_shapes, say_notes, stated_or_guessed
from recon_fast.data.shapes import Shapes
from recon_fast.parser import parse
from recon_fast.tasks import finetune as classification
from recon_fast.tasks import frozen
from recon_fast.tasks.embed_files import FeatureSet, embed_set
from recon_fast.training import pretrain as pretraining

Path_ = str | PathLike[str]
Logger = Any  # has log(values, step=step), as a run of Weights & Biases, or is called like that


def pretrain(
    data: Any = None,
    /,
    config: Path_ = "quickstart",
    *,
    test: Any = None,
    resume: Path_ | None = None,
    loggers: Sequence[Logger] = (),
    console: Console | None = None,
    **settings: Any,
) -> pretraining.PretrainResult:
    """Pretrain a model, as `recon-fast pretrain` does.

    Args:
        data: a path, clouds in memory, or None for the procedural set.
        config: name of a recipe, or a YAML file.
        test: clouds in memory that are held out for the probe; without it a share of `data` is.
        resume: folder of a run that goes on, or "auto".
        loggers: each gets every line of the log, as `log(values, step=step)` or called with the same.
        console: where lines and bars go; stderr by default, `rich.console.Console(quiet=True)` for none.
        settings: keys of `recon_fast.config.PretrainConfig`.

    Returns:
        The run's folder, its last checkpoint, and the probe's scores before and after.

    Raises:
        ValueError: anything wrong with the settings, the data or the disk, in one line.
    """
    given = _given("pretrain", data, config, settings, resume)
    with _problems_in_full():
        shapes = _in_memory(data, test, given.config.data, console)
        return pretraining.pretrain(given.config, given.resume, console, shapes, loggers=loggers)


def finetune(
    data: Any = None,
    /,
    config: Path_ | None = None,
    *,
    protocol: Literal["full", "mlp3", "linear"] = "full",
    test: Any = None,
    resume: Path_ | None = None,
    loggers: Sequence[Logger] = (),
    console: Console | None = None,
    **settings: Any,
) -> classification.FinetuneResult:
    """Fine-tune a classifier and test it, as `recon-fast finetune`, `mlp3` and `linear` do.

    Args:
        data, test, resume, loggers, console: as of `pretrain`; the data need labels.
        config: name of a recipe, or a YAML file.
        protocol: "full" trains all weights; "mlp3" and "linear" a head on the frozen encoder.
        settings: keys of `recon_fast.config.FinetuneConfig`, such as `checkpoint`.

    Returns:
        The run's folder, and the scores on the held-out shapes.

    Raises:
        ValueError: anything wrong with the settings, the data, the checkpoint or the disk, in one line.
    """
    commands = {"full": "finetune", "mlp3": "mlp3", "linear": "linear"}
    if protocol not in commands:
        raise ValueError(f"protocol must be one of {', '.join(commands)}, got {protocol!r}")
    given = _given(commands[protocol], data, config, settings, resume)
    with _problems_in_full():
        shapes = _in_memory(data, test, given.config.data, console)
        return classification.finetune(given.config, given.resume, console, shapes, loggers=loggers)


def svm(
    data: Any = None,
    /,
    config: Path_ | None = None,
    *,
    test: Any = None,
    console: Console | None = None,
    **settings: Any,
) -> frozen.SvmResult:
    """Train a linear SVM and nearest neighbours on frozen features, and test both, as `recon-fast svm` does.

    Args:
        data, config, test, console: as of `finetune`.
        settings: keys of `recon_fast.config.SvmConfig`, such as `checkpoint`.

    Raises:
        ValueError: anything wrong with the settings, the data, the checkpoint or the disk, in one line.
    """
    given = _given("svm", data, config, settings)
    with _problems_in_full():
        shapes = _in_memory(data, test, given.config.data.reading(1), console)
        return frozen.svm_probe(given.config, console, shapes)


def embed(
    data: Any, /, checkpoint: Path_ | None = None, *, console: Console | None = None, **settings: Any
) -> FeatureSet:
    """Features of clouds, in memory.

    Args:
        data: a path, or clouds in memory.
        checkpoint: as `recon_fast.load` takes it; None takes the encoder that comes with the package.
        console: as of `pretrain`.
        settings: keys of `recon_fast.config.EmbedConfig`, such as `kind`.

    Returns:
        `features` [S, D], with the keys, labels and captions of the clouds.

    Raises:
        ValueError: anything wrong with the settings, the data or the checkpoint, in one line.
    """
    if data is None:
        raise ValueError("data must be a path or clouds in memory, got None")
    if checkpoint is not None:
        settings["checkpoint"] = checkpoint
    config = parse("embed", ["data", "out.h5", *_arguments(settings)]).config
    with _problems_in_full():
        reading = DataConfig(**{**vars(config.data), "num_points": 1})
        shapes = _in_memory(data, None, reading, console)
        return embed_set([fspath(data)] if shapes is None else shapes, config, console)


def open_dataset(data: Any, *, test: Any = None, console: Console | None = None, **settings: Any) -> Shapes:
    """A data set of any kind, checked, with its clouds in memory or mapped from packed files.

    Args:
        data: a path, or clouds in memory.
        test: clouds in memory that are held out.
        console: as of `pretrain`.
        settings: keys of `recon_fast.config.LabelledConfig`, such as `kind`, `up` or `max_points`. Clouds of
            fewer points than `num_points` count as broken.

    Returns:
        The shapes, which are a data set of PyTorch too: an item is a dict with `points` and, where there are
        any, `label` and `caption`. `rows("train")` and `rows("test")` are the indices of a split.

    Raises:
        ValueError: anything wrong with the settings or the data.
    """
    if data is None:
        raise ValueError("data must be a path or clouds in memory, got None")
    given = _given("svm", data, None, {"data": settings}).config.data
    config = given.reading(given.num_points or 1)
    with _problems_in_full():
        shapes = _in_memory(data, test, config, console)
        return prepare_shapes(config, 0, console or Console(stderr=True)) if shapes is None else shapes


def _is_path(data: Any) -> bool:
    return data is None or isinstance(data, str | PathLike)


def _in_memory(data: Any, test: Any, config: DataConfig, console: Console | None) -> Shapes | None:
    """The shapes of clouds in memory, None for a path."""
    if isinstance(data, Shapes):
        return data
    if _is_path(data):
        if test is not None:
            raise ValueError("test must come with clouds in memory; sets on disk say what is held out")
        return None
    console = console or Console(stderr=True)
    shapes = shapes_of(data, config, test)
    say_notes(shapes, console)
    return turn_up(stated_or_guessed(shapes, config.up, partial(warn, console)), config.turn_up)


def _given(
    command: str, data: Any, config: Path_ | None, settings: Mapping[str, Any], resume: Path_ | None = None
) -> Any:
    """What the command line would make of it."""
    if "path" in settings.get("data", {}):
        raise ValueError("data are given by place, got data.path among the settings")
    argv = [] if config is None or resume not in (None, "auto") else ["--config", fspath(config)]
    for argument in COMMANDS[command].arguments:
        if argument.key in settings:
            raise ValueError(
                f"{argument.key} is of the command line alone: recon-fast {command} {argument.name}"
            )
    argv += [] if resume is None else ["--resume", fspath(resume)]
    argv += [] if data is None or not _is_path(data) else [f"--data.path={fspath(data)}"]
    return parse(command, [*argv, *_arguments(settings)])


def _arguments(settings: Mapping[str, Any], group: str = "") -> Iterator[str]:
    """Settings as arguments of a command line, in JSON."""
    if not isinstance(settings.get("data", {}), Mapping) and not group:
        got = type(settings["data"]).__name__
        raise ValueError(
            f"data are given by place, and data=... are settings of how they are read, got {got}"
        )
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _arguments(value, f"{group}{key}.")
        else:
            value = value.item() if hasattr(value, "item") else value
            text = fspath(value) if isinstance(value, str | PathLike) else json.dumps(value)
            yield f"--{group}{key}={text}"


@contextmanager
def _problems_in_full() -> Iterator[None]:
    """Let the table of broken clouds be a part of what a traceback shows."""
    try:
        yield
    except DataProblems as error:
        error.add_note(error.table)
        raise
