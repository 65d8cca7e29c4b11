"""Few-shot classification: w classes, s shapes of each to learn from, mean and deviation over folds (ReCon,
table 4).

<run>/config.yaml, result.json                  settings and the table
<run>/5way_10shot/fold-0/result.json, ...       each fold is a run of `recon_fast.tasks.finetune`
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np
from rich.console import Console
from rich.table import Table

from recon_fast.config.downstream import FewshotConfig, FinetuneConfig
from recon_fast.console import ProgressBars, say, warn
from recon_fast.data.open import prepare_shapes
from recon_fast.data.readers.listed import few_shot_folds, is_few_shot, read_fold
from recon_fast.data.shapes import Shapes
from recon_fast.errors import InputError
from recon_fast.schema import read_json, read_yaml
from recon_fast.tasks.finetune import build_classifier, finetune
from recon_fast.training.downstream import start_model
from recon_fast.training.folder import check_same_config, keep_config, locked, open_run
from recon_fast.training.record import write_result


class _Fold(TypedDict):
    accuracy: float
    warnings: NotRequired[list[str]]


@dataclass
class FewshotResult:
    """How a run ended."""

    run: Path
    accuracies: dict[tuple[int, int], list[float]]  # (way, shot) -> percent of each fold
    stopped_by: str | None = None


def fewshot(
    config: FewshotConfig,
    resume: Path | str | None = None,
    console: Console | None = None,
    shapes: Shapes | None = None,
) -> FewshotResult:
    """All folds of all settings; with `resume`, folds that are done are not done again.

    Args:
        config: settings.
        resume: folder of the run, or "auto": that of `config.out` if it was begun.
        console: where lines and progress go; stderr by default.
        shapes: labelled shapes to draw episodes from, in place of those that `config.data.path` names.

    Raises:
        InputError: anything wrong with the settings, the data, the weights or the disk.
    """
    console = console or Console(stderr=True)
    episode, name = _episodes(config, shapes, console)
    with _run(config, resume, console) as run:
        accuracies: dict[tuple[int, int], list[float]] = {}
        warnings: list[str] = []
        settings = [(way, shot) for way in config.ways for shot in config.shots]
        with nullcontext() if (run / "config.yaml").is_file() else keep_config(run, config):
            for way, shot in settings:  # what cannot be drawn or built leaves no folder
                episode(way, shot, 0)
            make = partial(build_classifier, config, max(config.ways))
            start_model(config, make, Console(quiet=True))
        say(console, f"few-shot on {name}: {len(settings)} settings of {config.folds} folds | run {run}")
        with ProgressBars(console) as bars:
            for way, shot in settings:
                done = accuracies.setdefault((way, shot), [])
                for fold in range(config.folds):
                    folder = run / f"{way}way_{shot}shot" / f"fold-{fold}"
                    bars(f"{way} way, {shot} shot", fold, config.folds)
                    if not (folder / "result.json").is_file():
                        shutil.rmtree(folder, ignore_errors=True)  # of a fold that was interrupted
                        result = finetune(
                            _fold_config(config, folder), None, Console(quiet=True), episode(way, shot, fold)
                        )
                        if result.stopped_by is not None:
                            return FewshotResult(run, accuracies, result.stopped_by)
                        for weights in ("checkpoints", "best"):
                            shutil.rmtree(folder / weights, ignore_errors=True)
                    ended = read_json(folder / "result.json", _Fold, "the result of a fold")
                    done.append(ended["accuracy"])
                    warnings += [f"{folder.relative_to(run)}: {line}" for line in ended.get("warnings", [])]
                bars(f"{way} way, {shot} shot", config.folds, config.folds)
                say(console, f"{way} way, {shot} shot: {mean_and_deviation(done)}")
        warn(console, *warnings)
        report = {
            "task": "fewshot",
            "protocol": config.protocol,
            "data": name,
            "checkpoint": config.checkpoint,
            "seed": config.seed,
            "selected_on": "test" if config.official_protocol else "last epoch",
            "settings": [
                {
                    "way": way,
                    "shot": shot,
                    "mean": float(np.mean(found)),
                    "deviation": float(np.std(found)),
                    "accuracies": found,
                }
                for (way, shot), found in accuracies.items()
            ],
            "warnings": warnings,
        }
        write_result(run, report)
    table = Table("accuracy, %", *(f"{shot} shot" for shot in config.shots))
    for way in config.ways:
        table.add_row(f"{way} way", *(mean_and_deviation(accuracies[way, shot]) for shot in config.shots))
    console.print(table)
    if config.official_protocol:
        warn(console, "official protocol: the test set chose the epoch, so this is optimistic")
    return FewshotResult(run, accuracies)


@contextmanager
def _run(config: FewshotConfig, resume: Path | str | None, console: Console) -> Iterator[Path]:
    """The folder of the run, locked meanwhile; one that is continued must be of the same settings."""
    if resume == "auto":
        begun = config.out is not None and (Path(config.out).expanduser() / "config.yaml").is_file()
        resume = config.out if begun else None
    if resume is None:
        with open_run(config, None, console) as (run, _):
            yield run
    else:
        run = Path(resume).expanduser()
        if not (run / "config.yaml").is_file():
            raise InputError(f"resume must name the folder of a few-shot run, got {run}")
        check_same_config(read_yaml(run / "config.yaml"), config.to_dict(), run)
        with locked(run):
            yield run


def draw_episode(
    shapes: Shapes, way: int, shot: int, fold: int = 0, *, seed: int = 0, num_test: int = 20
) -> Shapes:
    """An episode drawn from a labelled set: a function of the set, these numbers and the seed alone.

    Classes are drawn among those that are large enough, then `shot` shapes of each to train on and `num_test`
    others to test on, which are held out in what is returned. The first come from what the set trains on and
    the others from what it holds out, as in the published folds; a set that holds nothing out gives both.

    Returns:
        `way` (`shot` + `num_test`) shapes, training first, with labels from 0 to `way` - 1.

    Raises:
        InputError: the set has no labels, or fewer than `way` classes are large enough.
    """
    for name, value in (("way", way), ("shot", shot), ("num_test", num_test)):
        if value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")
    if shapes.labels is None:
        raise InputError(f"an episode must be drawn from a labelled set, and {shapes.name} has no labels")
    by_key = np.array(sorted(range(len(shapes)), key=shapes.keys.__getitem__), np.int64)
    has_test = shapes.held_out.any() and not shapes.held_out.all()
    rng = np.random.default_rng((seed, fold, way, shot))
    chosen: list[int] = []
    train: list[np.ndarray] = []
    test: list[np.ndarray] = []
    for label in rng.permutation(np.unique(shapes.labels)).tolist():
        rows = rng.permutation(by_key[shapes.labels[by_key] == label])
        held_out = shapes.held_out[rows] if has_test else np.arange(len(rows)) >= shot
        first, rest = rows[~held_out][:shot], rows[held_out][:num_test]
        if len(first) == shot and len(rest) == num_test:
            chosen.append(label)
            train.append(first)
            test.append(rest)
    if len(chosen) < way:
        raise InputError(
            f"{way}-way {shot}-shot episodes need {way} classes with {shot} shapes to train on and "
            f"{num_test} to test on, got {len(chosen)} in {shapes.name}"
        )
    chosen = chosen[:way]
    rows = np.concatenate([*train[:way], *test[:way]])
    return replace(
        shapes.take(rows),
        name=f"{shapes.name} {way}-way {shot}-shot {fold}",
        held_out=np.arange(len(rows)) >= way * shot,
        labels=np.concatenate([np.repeat(np.arange(way), shot), np.repeat(np.arange(way), num_test)]),
        class_names=[shapes.class_names[label] for label in chosen],
        class_parts=None if shapes.class_parts is None else [shapes.class_parts[label] for label in chosen],
        validation=None,
    )


def mean_and_deviation(accuracies: list[float]) -> str:
    """ "93.3 ± 3.9", percent; the deviation is that of the folds themselves (divided by their number)."""
    return f"{np.mean(accuracies):.1f} ± {np.std(accuracies):.1f}"


def _episodes(
    config: FewshotConfig, shapes: Shapes | None, console: Console
) -> tuple[Callable[[int, int, int], Shapes], str]:
    """From (way, shot, fold) to an episode, and what they come from."""
    path = None if config.data.path is None else Path(config.data.path).expanduser()
    if shapes is None and path is not None and path.is_dir() and is_few_shot(path):
        for way in config.ways:
            for shot in config.shots:
                missing = set(range(config.folds)) - few_shot_folds(path, way, shot).keys()
                if missing:
                    raise InputError(
                        f"{path} must hold fold {min(missing)} of {way} way {shot} shot: leave out what is "
                        "not there with --ways, --shots or --folds"
                    )
        count = {"num_points": config.data.num_points, "max_points": config.data.max_points}
        return (lambda way, shot, fold: read_fold(path, way, shot, fold, **count)), path.name
    drawn_from = prepare_shapes(config.data, config.seed, console) if shapes is None else shapes

    def draw(way: int, shot: int, fold: int) -> Shapes:
        return draw_episode(drawn_from, way, shot, fold, seed=config.seed, num_test=config.num_test)

    return draw, drawn_from.name


def _fold_config(config: FewshotConfig, folder: Path) -> FinetuneConfig:
    """Settings of a fold."""
    kept = {field.name: getattr(config, field.name) for field in fields(FinetuneConfig)}
    never = replace(config.save, every=config.optim.epochs + 2, keep=1, tensorboard=False)
    return FinetuneConfig(**{**kept, "out": str(folder), "save": never})
