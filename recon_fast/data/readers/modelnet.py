"""ModelNet as text files and their cache, as PointNet++, Point-MAE and ReCon read it.

modelnet40_shape_names.txt                  the classes, in the order that labels count in
modelnet40_train.txt, modelnet40_test.txt   ids, <class>_NNNN; the test list is held out
<class>/<id>.txt                            10000 rows x,y,z and a normal
modelnet40_train_8192pts_fps.dat, ...       the cache of each list: 8192 points a shape; read where both are

ModelNet10 has lists of its own, modelnet10_*.txt, in the same folder. y is up.
"""

import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from recon_fast.data.readers.pickled import pickled_entries, read_pickled
from recon_fast.data.shapes import BadFile, Entry, Problem, Source
from recon_fast.errors import InputError
from recon_fast.files import names_in, read_lines

_SPLITS = ("train", "test")


def is_modelnet(path: Path, classes: int) -> bool:
    """Is there one of ModelNet's lists or caches? What else is missing is then said by `list_modelnet`."""
    return any((path / f"modelnet{classes}_{split}.txt").is_file() for split in _SPLITS) or bool(
        _caches(path, classes)
    )


def list_modelnet(path: Path, classes: int) -> Source:
    """Entries of both lists, or of both caches, without reading a text file.

    Args:
        path: the folder of the lists.
        classes: 40 or 10.

    Raises:
        InputError: a list is missing, or there are neither folders of classes nor both caches.
    """
    names = read_lines(path / f"modelnet{classes}_shape_names.txt", "classes")
    caches = _caches(path, classes)
    for suffix in sorted(caches, key=lambda s: (-int(re.findall(r"\d+", s)[0]), "fps" not in s)):
        if len(caches[suffix]) == 2:
            return _list_caches(path, names, caches[suffix])
    folders = {name: names_in(path / name) for name in names}
    if not any(folders.values()):
        half = [file.name for pair in caches.values() for file in pair.values()]
        also = f", only {', '.join(sorted(half))}" if half else ""
        raise InputError(
            f"ModelNet{classes} must have folders of its classes with <id>.txt, or both caches "
            f"modelnet{classes}_train_*pts_fps.dat and modelnet{classes}_test_*pts_fps.dat, "
            f"got neither in {path}{also}"
        )

    label = {name: i for i, name in enumerate(names)}
    entries: dict[str, Entry] = {}
    problems: list[Problem] = []
    for split in _SPLITS:
        file = path / f"modelnet{classes}_{split}.txt"
        for key in read_lines(file, "ids of shapes"):
            name = key.rpartition("_")[0]
            cloud = path / name / f"{key}.txt"
            if key in entries:
                problems.append(Problem(key, file, "must be listed once, in one list; found again"))
            elif name not in label:
                what = f"must be <class>_<number> of a class in modelnet{classes}_shape_names.txt, got {key}"
                problems.append(Problem(key, file, what))
            elif cloud.name not in (folders[name] or ()):
                problems.append(Problem(key, cloud, "must be the shape's cloud, got no such file"))
            else:
                entries[key] = Entry(key, cloud, label=label[name], held_out=split == "test")
    unlisted = sorted(
        file
        for files in folders.values()
        for file in files or ()
        if file.endswith(".txt") and file.removesuffix(".txt") not in entries
    )
    notes = [f"not used: {len(unlisted)} clouds in neither list, such as {unlisted[0]}"] if unlisted else []
    return Source(path.resolve().name, path, list(entries.values()), names, problems, up="y", notes=notes)


def _caches(path: Path, classes: int) -> dict[str, dict[str, Path]]:
    """{"_8192pts_fps": {"train": file, "test": file}} of the caches in a folder."""
    found: dict[str, dict[str, Path]] = defaultdict(dict)
    for name in names_in(path) or ():
        match = re.fullmatch(rf"modelnet{classes}_(train|test)(_\d+pts(?:_fps)?)\.dat", name)
        if match:
            found[match[2]][match[1]] = path / name
    return found


def _list_caches(path: Path, names: list[str], caches: dict[str, Path]) -> Source:
    entries: list[Entry] = []
    problems: list[Problem] = []
    for split in _SPLITS:
        file = caches[split]
        try:
            listed, found = pickled_entries(file, read_pickled(file), len(names))
        except BadFile as error:
            problems.append(Problem(file.stem, file, error.what))
            continue
        entries += [replace(entry, held_out=split == "test") for entry in listed]
        problems += found
    return Source(path.resolve().name, path, entries, names, problems, up="y")
