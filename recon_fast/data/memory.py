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
from recon_fast.errors import InputError

_POINTS = ("points", "pos", "xyz", "pointcloud", "point_cloud")
_LABELS = ("label", "labels", "y", "target", "category")
_CAPTIONS = ("caption", "text")


def shapes_of(data: Any, config: DataConfig, test: Any = None) -> Shapes:
    """Clouds in memory as a set of shapes.

    Args:
        data: clouds [S, N, 3 or more] as an array or a tensor; or a sequence, an iterable or a
            `torch.utils.data.Dataset` of items. An item is a cloud [N_i, 3 or more], a tuple (cloud, label,
            ...), or a dict or an object such as PyG's Data with the cloud under `points`, `pos` or `xyz`, the
            label under `label` or `y` and a caption under `caption` or `text`. A label is a whole number or a
            name. Names of classes are those in `data.classes`, where there are any.
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
        points, label, caption = _parts(item)
        try:
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
    index, class_names = _classes(labels, getattr(data, "classes", None))
    held_out = [
        key.startswith("test") if test is not None else is_held_out(key, config.held_out_fraction)
        for key in keys
    ]
    return Shapes(
        name="data in memory",
        keys=keys,
        points=points,
        offsets=offsets,
        held_out=np.array(held_out, np.bool_),
        labels=index,
        class_names=class_names,
        captions=None if None in captions else [str(caption) for caption in captions],
        conventions=Conventions(scale=scale_of(radii(points, np.diff(offsets)))),
        notes=tally.notes(),
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
    counted = hasattr(data, "__len__") and hasattr(data, "__getitem__")
    for i, item in enumerate(data[i] for i in range(len(data))) if counted else enumerate(data):
        yield f"{name}[{i}]", item


def _parts(item: Any) -> tuple[Any, Any, Any]:
    """Points, label and caption of an item, None for what it does not have."""
    if isinstance(item, Mapping):
        return tuple(_first(names, item.get) for names in (_POINTS, _LABELS, _CAPTIONS))
    if isinstance(item, Sequence) and len(item) and hasattr(item[0], "shape"):
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
    without = labels.count(None)
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
