"""Clouds that a program holds: arrays, tensors, lists of them, and data sets of PyTorch and PyG."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_fast.config import DataConfig
from recon_fast.data.conventions import radii, scale_of
from recon_fast.data.loading import Reading, Tally, stop_at_problems
from recon_fast.data.readers.clouds import Cloud, check_points
from recon_fast.data.readers.hdf5 import is_held_out
from recon_fast.data.shapes import BadFile, Conventions, Problem, Shapes, Source, stack_clouds
from recon_fast.errors import InputError, first_line

_POINTS = ("points", "pos", "xyz", "pointcloud", "point_cloud")
_LABELS = ("label", "labels", "y", "target", "category", "class", "cls")
_CAPTIONS = ("caption", "text")


def shapes_of(data: Any, config: DataConfig, test: Any = None) -> Shapes:
    """Clouds in memory as a set of shapes.

    Args:
        data: clouds [S, N, 3 or more] as an array or a tensor; or a sequence, an iterable or a
            `torch.utils.data.Dataset` of items. An item is a cloud [N_i, 3 or more], a pair (cloud, label),
            or a dict or an object, such as PyG's Data, with the cloud under `points`, `pos` or `xyz`, the
            label under `label` or `y`, and a caption under `caption` or `text`. A label is a whole number or
            a name. Names of classes are those in `data.classes`, where there are any.
        config: `num_points`, `max_points`, `on_small`, `on_problem`, `storage` and, without `test`,
            `held_out_fraction` count.
        test: more of the same, which is held out; without it a share of `data` is, chosen by place.

    Raises:
        DataProblems: a table of all items that cannot be used, unless `config.on_problem` is "skip".
        InputError: no such data, or some items have labels and others have none.
    """
    dtype = np.float16 if config.storage == "fp16" else np.float32
    reading = Reading(config.num_points, config.max_points, dtype, config.on_small == "repeat")
    problems: list[Problem] = []
    clouds: list[NDArray] = []
    keys: list[str] = []
    labels: list[Any] = []
    captions: list[Any] = []
    tally = Tally()
    sides = (("data", data), ("test", test))
    for key, item in chain(*(_items(name, side) for name, side in sides if side is not None)):
        try:
            points, label, caption = _parts(key, item)
            cloud = reading.fit(_checked(key, points, 1 if reading.repeat else reading.num_points), key)
        except BadFile as error:
            problems.append(Problem(key, error.file, error.what))
            continue
        tally.add(cloud)
        keys.append(key)
        clouds.append(cloud.points)
        labels.append(label)
        captions.append(caption)
    source = Source(type(data).__name__, Path("data"), [], problems=problems)
    stop_at_problems(source, len(clouds), problems, config.on_problem, "data.on_problem")
    points, offsets = stack_clouds(clouds, dtype)
    index, class_names = _classes(labels, _class_names(data, test))
    held_out = [
        key.startswith("test") if test is not None else is_held_out(key, config.held_out_fraction)
        for key in keys
    ]
    notes, without_caption = tally.notes(), captions.count(None)
    if 0 < without_caption < len(captions):
        notes.append(f"not used: captions, since {without_caption} of {len(captions)} shapes have none")
    if index is not None and test is not None:
        trained, tested = (
            {class_names[i] for i in index[np.array(held_out) == side]} for side in (False, True)
        )
        if only := sorted(tested - trained):
            notes.append(f"no shape to train on in {len(only)} of the classes of test, such as {only[0]}")
    return Shapes(
        name="data in memory",
        keys=keys,
        points=points,
        offsets=offsets,
        held_out=np.array(held_out, np.bool_),
        labels=index,
        class_names=class_names,
        captions=None if without_caption else [str(caption) for caption in captions],
        conventions=Conventions(scale=scale_of(radii(points, np.diff(offsets)))),
        notes=notes,
    )


def _items(name: str, data: Any) -> Iterator[tuple[str, Any]]:
    """The items of one side, with their keys. Raises InputError where it is no set of clouds."""
    wanted = f"{name} must be clouds [S, N, 3], a sequence or a data set of clouds [N, 3]"
    shape = getattr(data, "shape", None)
    if shape is not None and len(shape) != 3:
        raise InputError(f"{wanted}, got {type(data).__name__} {list(shape)}")
    if hasattr(data, "dataset") and hasattr(data, "collate_fn"):
        raise InputError(f"{wanted}, got a DataLoader: give its .dataset")
    if isinstance(data, str | bytes | Mapping) or not (
        hasattr(data, "__getitem__") or hasattr(data, "__iter__")
    ):
        raise InputError(f"{wanted}, got {type(data).__name__}")
    if not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
        yield from ((f"{name}[{i}]", item) for i, item in enumerate(data))
        return
    for i in range(len(data)):
        try:
            item = data[i]
        except Exception as error:  # of somebody else's data set: one of the items that cannot be used
            item = error
        yield f"{name}[{i}]", item


def _class_names(data: Any, test: Any) -> list[str] | None:
    """Names of the classes that integers count; those of a `Subset` are its data set's. Raises InputError."""
    found = [
        getattr(side, "classes", getattr(getattr(side, "dataset", None), "classes", None))
        for side in (data, test)
    ]
    names = [None if classes is None else [str(name) for name in classes] for classes in found]
    if None not in names and names[0] != names[1]:
        raise InputError(f"test must have the classes of data in the same order, {names[0]}, got {names[1]}")
    return names[0] or names[1]


def _parts(key: str, item: Any) -> tuple[Any, Any, Any]:
    """Points, label and caption of an item, None for what it does not have. Raises BadFile."""
    if isinstance(item, Exception):
        raise BadFile(Path(key), f"cannot be read: {type(item).__name__}: {first_line(item)}")
    if isinstance(item, Mapping):
        return tuple(_first(names, item.get) for names in (_POINTS, _LABELS, _CAPTIONS))
    if isinstance(item, Sequence) and len(item) and hasattr(item[0], "shape"):
        if len(item) > 2:
            raise BadFile(Path(key), f"must be a cloud or (cloud, label), got a tuple of {len(item)}")
        return item[0], item[1] if len(item) > 1 else None, None
    if hasattr(item, "shape") or isinstance(item, Sequence):
        return item, None, None
    return tuple(
        _first(names, lambda name: getattr(item, name, None)) for names in (_POINTS, _LABELS, _CAPTIONS)
    )


def _first(names: Sequence[str], get: Any) -> Any:
    return next((value for name in names if (value := get(name)) is not None), None)


def _checked(key: str, points: Any, least: int) -> Cloud:
    if points is None:
        raise BadFile(Path(key), f"must have points, under one of {', '.join(_POINTS)}, got none")
    if hasattr(points, "detach"):
        points = points.detach().cpu()
        points = points.float() if points.is_floating_point() and points.itemsize < 4 else points
    try:
        array = np.asarray(points)
    except (TypeError, ValueError) as error:
        raise BadFile(Path(key), f"must be numbers [N, 3 or more]: {error}") from error
    return check_points(Path(key), array, least)


def _classes(labels: list[Any], names: Any) -> tuple[NDArray[np.int64] | None, list[str]]:
    """Labels [S] and the names of classes. Raises InputError where only some items have labels."""
    without = sum(label is None for label in labels)
    if without == len(labels):
        return None, []
    if without:
        raise InputError(
            f"labels must be of all items or of none, got {without} of {len(labels)} without one"
        )
    if all(isinstance(label, str) for label in labels):
        found = sorted(set(labels)) if names is None else [str(name) for name in names]
        if unknown := set(labels) - set(found):
            raise InputError(f"labels must be among the classes {', '.join(found[:5])}, got {min(unknown)}")
        return np.array([found.index(label) for label in labels], np.int64), found
    numbers = [np.asarray(label) for label in labels]
    if any(number.size != 1 or number.dtype.kind not in "iu" for number in numbers):
        raise InputError("labels must be one whole number or name for each item, got others")
    index = np.array([int(number.reshape(-1)[0]) for number in numbers], np.int64)
    if index.min() < 0 or index.max() >= (100_000 if names is None else len(names)):
        raise InputError(f"labels must count the classes from 0, got {index.min()} to {index.max()}")
    found = [str(name) for name in (range(int(index.max()) + 1) if names is None else names)]
    return index, found
