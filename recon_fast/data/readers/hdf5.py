"""Layouts of .h5 files with `data` [S, N, 3 or more] and `label` [S] or [S, 1]: any folder, ScanObjectNN.

ply_data_train0.h5, ...       as ModelNet has them: shape_names.txt names the classes, train_files.txt and
                              test_files.txt (and val_files.txt, for validation) say which files belong to the
                              set; without them files with test in their name are held out

ScanObjectNN has three variants of two files each, `data` [S, 2048, 3]; y is up:

main_split/{training,test}_objectdataset.h5                          obj_bg: objects with background
main_split_nobg/{training,test}_objectdataset.h5                     obj_only: without it
main_split/{training,test}_objectdataset_augmentedrot_scale75.h5     hardest (PB_T50_RS): moved, turned

The folders may be called otherwise and may lie in a folder h5_files: files without background are those whose
folder has nobg in its name. Of the archive's other files none is read.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from itertools import repeat
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from recon_fast.data.readers.clouds import hdf5_clouds
from recon_fast.data.shapes import BadFile, Entry, Problem, Source
from recon_fast.errors import InputError
from recon_fast.files import read_lines
from recon_fast.schema import hdf5_array, open_hdf5

_MOST_LABELS = 100_000
SCANOBJECTNN_CLASSES = [
    "bag", "bin", "box", "cabinet", "chair", "desk", "display", "door", "shelf", "table", "bed", "pillow",
    "sink", "sofa", "toilet",
]  # fmt: skip
_PLAIN, _HARDEST = "objectdataset.h5", "objectdataset_augmentedrot_scale75.h5"
VARIANTS = {
    "obj_bg": ("main_split", _PLAIN),
    "obj_only": ("main_split_nobg", _PLAIN),
    "hardest": ("main_split", _HARDEST),
}


def is_held_out(key: str, fraction: float) -> bool:
    """A share of all keys that depends on each key alone."""
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "little") < fraction * 2**64


class Rows(NamedTuple):
    """What one .h5 file has."""

    entries: list[Entry]
    labels: list[int] | None
    problems: list[Problem]
    unread: list[str]  # datasets that nobody asks for


def hdf5_rows(file: Path, key: str) -> Rows:
    """All rows of one .h5 file, without reading a cloud."""
    try:
        with open_hdf5(file) as content:
            count = len(hdf5_clouds(file, content))
            found = hdf5_array(content, "label", None, "iu", optional=True)
            if found is not None and found.size != count:
                raise InputError(f"`label` must be {count} integers, got {found.dtype} {list(found.shape)}")
            labels = None if found is None else np.asarray(found[()], np.int64).reshape(-1).tolist()
            unread = [name for name in content if name not in ("data", "label")]
    except InputError as error:
        what = error.what if isinstance(error, BadFile) else str(error).removeprefix(f"{file} ")
        return Rows([], None, [Problem(key, file, what)], [])
    return Rows([Entry(f"{key}/{row}", file, row) for row in range(count)], labels, [], unread)


def list_hdf5(root: Path, files: list[Path], held_out_fraction: float) -> Source:
    """Every row of `data` of a folder's .h5 files as one entry."""
    listed = {split: root / f"{split}_files.txt" for split in ("train", "test", "val")}
    splits = {file: _split_by_name(file) for file in files}
    missing: list[Problem] = []
    if listed["train"].is_file() and listed["test"].is_file():
        by_name = {file.name: file for file in files}
        splits = {}
        for split, source in listed.items():
            for line in read_lines(source, "files") if source.is_file() else []:
                name = PurePosixPath(line).name  # the official lists have the folder of their author
                if name in by_name:
                    splits[by_name[name]] = split
                else:
                    what = f"must be there, as {source.name} lists it"
                    missing.append(Problem(Path(name).stem, root / name, what))
    return _source(root, splits, _shape_names(root), held_out_fraction, missing)


def list_hdf5_file(file: Path, held_out_fraction: float) -> Source:
    """Every row of `data` of one .h5 file as one entry."""
    splits = {file: _split_by_name(file)}
    source = _source(file.parent, splits, _shape_names(file.parent), held_out_fraction)
    source.name = file.stem
    return source


def _split_by_name(file: Path) -> str:
    return "test" if re.search(r"(?<![a-z])test", file.stem.lower()) else "train"


def _shape_names(root: Path) -> list[str]:
    """Class names, one a line, of the first *shape_names.txt; none without it."""
    file = min(root.glob("*shape_names.txt"), default=None)
    return [] if file is None else read_lines(file, "classes")


def _source(
    root: Path,
    splits: dict[Path, str],
    class_names: list[str],
    held_out_fraction: float,
    missing: Sequence[Problem] = (),
    needs_labels: bool = False,
) -> Source:
    """Every row of `data` of some .h5 files as one entry.

    Args:
        root: the folder that they lie in.
        splits: "train", "val" or "test" of each; without "test" a share chosen by hash is held out.
        class_names: what the labels mean; empty takes numbers.
        held_out_fraction: the share.
        missing: problems found so far.
        needs_labels: a file without `label` is a problem; else it takes the labels of all away.
    """
    entries: list[Entry] = []
    problems, notes = list(missing), []
    labelled: dict[str, bool] = {}  # a broken file does not take the others' labels away
    unread: dict[str, str] = {}  # dataset -> the first file that has it
    has_test = "test" in splits.values()
    for file in sorted(splits):
        found = hdf5_rows(file, file.relative_to(root).with_suffix("").as_posix())
        problems += found.problems
        if needs_labels and found.labels is None and not found.problems:
            what = "must have `label`, one for each row of `data`, got none"
            problems.append(Problem(file.stem, file, what))
        elif not found.problems:
            labelled[file.name] = found.labels is not None
        for name in found.unread:
            unread.setdefault(name, file.name)
        for entry, label in zip(found.entries, found.labels or repeat(None), strict=False):
            held_out = splits[file] == "test" if has_test else is_held_out(entry.key, held_out_fraction)
            validation = splits[file] == "val" and not held_out
            entries.append(replace(entry, label=label, held_out=held_out, validation=validation))
    if unread:
        named = ", ".join(f"`{name}`" for name in unread)
        more = " and more" * (len(splits) > 1)
        hint = "; labels must be called `label`" if "labels" in unread else ""
        notes.append(f"not used: {named} of {next(iter(unread.values()))}{more}{hint}")
    if not (labelled and all(labelled.values()) and entries):
        without = [name for name, has in labelled.items() if not has]
        if len(without) < len(labelled):
            some = f"{len(without)} of {len(labelled)} files have no `label`, such as {without[0]}"
            notes.append(f"no labels: {some}")
        entries = [replace(entry, label=None) for entry in entries]
        return Source(root.resolve().name, root, entries, [], problems, notes=notes)
    highest = max(entry.label or 0 for entry in entries)
    if not class_names and highest >= _MOST_LABELS:
        raise InputError(f"labels must count classes from 0, got {highest} in {root} and no *shape_names.txt")
    names = class_names or [str(i) for i in range(highest + 1)]
    for entry in entries:
        if not 0 <= (entry.label or 0) < len(names):
            what = f"row {entry.row}: label must be below {len(names)}, got {entry.label}"
            problems.append(Problem(entry.key, entry.cloud, what))
    return Source(root.resolve().name, root, entries, names, problems, notes=notes)


def is_scanobjectnn(path: Path) -> bool:
    """Is there a file of the set, whatever its folder is called?"""
    return any(True for place in _places(path) for _ in _files_in(place))


def list_scanobjectnn(path: Path, variant: str | None = None) -> Source:
    """Every row of a variant's two files as one entry; the test file is held out.

    Args:
        path: a folder that holds the files, or holds such folders, in h5_files or by itself.
        variant: "obj_bg", "obj_only" or "hardest"; None takes the one that is there.

    Raises:
        InputError: the variant is not there, or there are several and none was named.
    """
    present = _present(path)
    if variant is None and len(present) > 1:
        raise InputError(
            f"ScanObjectNN has several variants in {path}: choose one of {', '.join(present)} as the kind "
            "(--data.kind, --probe.kind, or --kind of pack)"
        )
    if variant is None:
        variant = next(iter(present), "obj_bg")
    if variant not in present:
        folder, name = VARIANTS[variant]
        others = sorted({file.name for place in _places(path) for file in _files_in(place)})
        there = f"only {', '.join(present or others)}" if others else "no variant"
        raise InputError(
            f"ScanObjectNN's {variant} must be {folder}/training_{name} and {folder}/test_{name}, "
            f"got {there} in {path}"
        )
    places = present[variant]
    if len(places) > 1:
        several = ", ".join(str(place) for place in places)
        raise InputError(f"ScanObjectNN's {variant} is in several folders: name one of {several}")
    name = VARIANTS[variant][1]
    splits = {places[0] / f"training_{name}": "train", places[0] / f"test_{name}": "test"}
    what = f"must be there, as {variant} has two files"
    missing = [Problem(file.stem, file, what) for file in splits if not file.is_file()]
    splits = {file: split for file, split in splits.items() if file.is_file()}
    source = _source(path, splits, SCANOBJECTNN_CLASSES, 0.0, missing, needs_labels=True)
    source.name, source.up = f"ScanObjectNN {variant}", "y"
    return source


def _places(path: Path) -> list[Path]:
    """Folders that files of the set may lie in."""
    return [path, *sorted(path.glob("*/")), *sorted(path.glob("h5_files/*/"))]


def _files_in(folder: Path) -> list[Path]:
    return [file for split in ("training", "test") for file in folder.glob(f"{split}_objectdataset*.h5")]


def _present(path: Path) -> dict[str, list[Path]]:
    """The folders of each variant of which a file is there: its own folder if that is one of them."""
    found: dict[str, list[Path]] = {}
    for variant, (folder, name) in VARIANTS.items():
        without_background = variant == "obj_only"
        places = [
            place
            for place in _places(path)
            if ("nobg" in place.resolve().name) == without_background
            and any((place / f"{split}_{name}").is_file() for split in ("training", "test"))
        ]
        own = [place for place in places if place.resolve().name == folder]
        if places:
            found[variant] = own or places
    return found
