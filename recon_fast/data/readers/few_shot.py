"""Few-shot classification: published folds on disk, and episodes drawn from any labelled set.

<w>way_<s>shot/<fold>.pkl   {"train": [(cloud, label, class)], "test": ...}; also spelled <w>way<s>shot
"""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from recon_fast.data.loading import load
from recon_fast.data.readers.pickled import pickled_entries, read_pickled
from recon_fast.data.shapes import BadFile, Problem, Shapes, Source
from recon_fast.errors import InputError
from recon_fast.files import names_in

_FOLDER = re.compile(r"(\d+)way_?(\d+)shot")


def is_few_shot(path: Path) -> bool:
    """Is it the folder of one kind of episodes, or does it hold such folders?"""
    return any(_FOLDER.fullmatch(name) for name in (path.resolve().name, *(names_in(path) or ())))


def list_few_shot(path: Path) -> Source:
    """The one fold of a folder.

    Raises:
        InputError: there is none, or there are several to choose from.
    """
    folds = sorted(path.glob("*.pkl") if _FOLDER.fullmatch(path.resolve().name) else path.glob("*/*.pkl"))
    if not folds:
        raise InputError(f"few-shot folds must be files <w>way_<s>shot/<fold>.pkl, got none in {path}")
    if len(folds) > 1:
        raise InputError(
            f"few-shot folds are sets of their own: choose one of {path}, for instance {folds[0]}"
        )
    return list_fold(folds[0])


def few_shot_folds(root: Path, way: int, shot: int) -> dict[int, Path]:
    """The folds of `way` classes and `shot` shapes of each, by number; empty where there are none."""
    files = [*root.glob(f"{way}way_{shot}shot/*.pkl"), *root.glob(f"{way}way{shot}shot/*.pkl")]
    return dict(sorted((int(file.stem), file) for file in files if file.stem.isdecimal()))


def list_fold(path: Path) -> Source:
    """Entries of a fold, its test list held out. Labels count in its classes, as many as the name of its
    folder says, or as there are; y is up.
    """
    source = Source(f"{path.resolve().parent.name} {path.stem}", path, [], up="y")
    try:
        found = read_pickled(path)
    except BadFile as error:
        source.problems = [Problem(path.stem, path, error.what)]
        return source
    folder = _FOLDER.fullmatch(path.resolve().parent.name)
    way = int(folder[1]) if folder else len({row.label for row in found})
    source.entries, source.problems = pickled_entries(path, found, way)
    names: dict[int, str] = {}
    for entry, (_, label, _, name) in zip(source.entries, found, strict=True):
        if names.setdefault(label, name) != name:
            what = f"row {entry.row}: label {label} must be class {names[label]} as before, got {name}"
            source.problems.append(Problem(entry.key, path, what))
    source.class_names = [names.get(label, str(label)) for label in range(way)]
    return source


def read_fold(
    root: Path, way: int, shot: int, fold: int, *, num_points: int = 1024, max_points: int = 8192
) -> Shapes:
    """One published fold, its test list held out.

    Args:
        root: the folder that holds <w>way_<s>shot.
        way, shot, fold: which one.
        num_points, max_points: as `load` takes them.

    Raises:
        InputError: there is no such fold, or it cannot be used.
    """
    folds = few_shot_folds(root, way, shot)
    if fold not in folds:
        there = f"folds {', '.join(map(str, folds))}" if folds else "none of this kind"
        raise InputError(f"fold must be a file {root}/{way}way_{shot}shot/{fold}.pkl, got {there}")
    return load(list_fold(folds[fold]), num_points=num_points, max_points=max_points)[0]


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
