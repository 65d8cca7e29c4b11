"""Layouts of files of arrays, clouds [S, N, 3 or more] and `label` [S] or [S, 1]: any folder, ScanObjectNN.

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
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from itertools import repeat
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from recon_fast.data.readers.arrays import PARTS, open_arrays
from recon_fast.data.shapes import BadFile, Entry, Problem, Source
from recon_fast.errors import InputError
from recon_fast.files import read_lines
from recon_fast.schema import open_hdf5

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
    """What one file of arrays has."""

    entries: list[Entry]
    labels: list[int] | None
    problems: list[Problem]
    unread: list[str]  # arrays that nobody asks for
    taken: str | None = None  # the array of clouds, where its name does not say so


def array_rows(file: Path, key: str, array: str | None = None) -> Rows:
    """All rows of one file of arrays, without reading a cloud; an array [N, 3 or more] is one cloud.

    Args:
        file: .h5, .hdf5, .npy or .npz.
        key: of the file; a row has its number behind it.
        array: name of the array of clouds; None takes the one that is found.
    """
    try:
        with open_arrays(file) as content:
            name = content.clouds(array)
            shape = content.array(name).shape
            count = shape[0] if len(shape) == 3 else 1
            labels = content.labels(count)
            unread = content.unread(name, count)
    except InputError as error:
        what = error.what if isinstance(error, BadFile) else str(error).removeprefix(f"{file} ")
        return Rows([], None, [Problem(key, file, what)], [])
    taken = None if name in ("data", array) else name
    keys = [f"{key}/{row}" for row in range(count)] if len(shape) == 3 else [key]
    entries = [Entry(key, file, row, name) for row, key in enumerate(keys)]
    return Rows(entries, None if labels is None else labels.tolist(), [], unread, taken)


def taken_notes(taken: Mapping[str, Sequence[Path]]) -> list[str]:
    """A line for each array that was taken for clouds, and the files that have it."""
    return [
        f"clouds are the array `{name}` of {files[0].name}"
        + f" and {len(files) - 1} more files" * (len(files) > 1)
        for name, files in taken.items()
    ]


def holds_one(file: Path, array: str | None = None) -> bool:
    """Whether a file of arrays holds one cloud [N, 3 or more]."""
    try:
        with open_arrays(file) as content:
            return len(content.array(content.clouds(array)).shape) == 2
    except InputError:
        return False


def list_hdf5(root: Path, files: list[Path], held_out_fraction: float, array: str | None = None) -> Source:
    """Every cloud of a folder's HDF5 files as one entry; `array` as `array_rows` takes it."""
    splits, missing = _splits(root, files, "files")
    return _source(root, splits, _shape_names(root), held_out_fraction, missing, array=array)


def has_parts(root: Path) -> bool:
    """Whether a folder holds HDF5 files with the parts of points, as PointNet has ShapeNetPart."""
    try:
        with open_hdf5(min(root.glob("*.h5"), default=root)) as content:
            return PARTS in content and "data" in content
    except InputError:
        return False


def list_hdf5_parts(root: Path, class_names: list[str], parts: Sequence[range]) -> Source:
    """Every cloud of a folder's HDF5 files as one entry, and `parts`, which points of each class may have."""
    splits, missing = _splits(root, list(root.glob("*.h5")), "hdf5_file_list")
    source = _source(root, splits, class_names, 0.0, missing, needs_labels=True, known=PARTS)
    of_class = dict(enumerate(parts))
    source.entries = [replace(entry, parts=of_class.get(entry.label or 0)) for entry in source.entries]
    source.up, source.class_parts = "y", [list(some) for some in parts]
    return source


def _splits(root: Path, files: list[Path], lists: str) -> tuple[dict[Path, str], list[Problem]]:
    """The split of each file, by lists <split>_<lists>.txt or else its name, and what lists name in vain."""
    listed = {split: root / f"{split}_{lists}.txt" for split in ("train", "test", "val")}
    if not (listed["train"].is_file() and listed["test"].is_file()):
        return {file: _split_by_name(file) for file in files}, []
    by_name = {file.name: file for file in files}
    splits: dict[Path, str] = {}
    missing: list[Problem] = []
    for split, source in listed.items():
        for line in read_lines(source, "files") if source.is_file() else []:
            name = PurePosixPath(line).name  # the official lists have the folder of their author
            if name in by_name:
                splits[by_name[name]] = split
            else:
                what = f"must be there, as {source.name} lists it"
                missing.append(Problem(Path(name).stem, root / name, what))
    return splits, missing


def list_array_file(file: Path, held_out_fraction: float, array: str | None = None) -> Source:
    """Every cloud of one file of arrays as one entry; `array` as `array_rows` takes it."""
    splits = {file: _split_by_name(file)}
    source = _source(file.parent, splits, _shape_names(file.parent), held_out_fraction, array=array)
    source.name = file.stem
    return source


def _split_by_name(file: Path) -> str:
    found = re.search(r"(?<![a-z])(test|val(?![a-z]))", file.stem.lower())
    return found[1] if found else "train"


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
    array: str | None = None,
    known: str = "label",
) -> Source:
    """Every cloud of some files of arrays as one entry.

    Args:
        root: the folder that they lie in.
        splits: "train", "val" or "test" of each; without "test" a share chosen by hash is held out.
        class_names: what the labels mean; empty takes numbers.
        held_out_fraction: the share.
        missing: problems found so far.
        needs_labels: a file without `label` is a problem; else it takes the labels of all away.
        array: name of the array of clouds; None takes the one that is found.
        known: an array beside it that is not noted as unused.
    """
    entries: list[Entry] = []
    problems, notes = list(missing), []
    labelled: dict[str, bool] = {}  # a broken file does not take the others' labels away
    unread: dict[str, str] = {}  # array -> the first file that has it
    taken: dict[str, list[Path]] = {}
    has_test = "test" in splits.values()
    for file in sorted(splits):
        found = array_rows(file, file.relative_to(root).with_suffix("").as_posix(), array)
        problems += found.problems
        if needs_labels and found.labels is None and not found.problems:
            what = "must have `label`, one for each row of `data`, got none"
            problems.append(Problem(file.stem, file, what))
        elif not found.problems:
            labelled[file.name] = found.labels is not None
        if found.taken is not None:
            taken.setdefault(found.taken, []).append(file)
        for name in found.unread:
            if name != known:
                unread.setdefault(name, file.name)
        for entry, label in zip(found.entries, found.labels or repeat(None), strict=False):
            held_out = splits[file] == "test" if has_test else is_held_out(entry.key, held_out_fraction)
            validation = splits[file] == "val" and not held_out
            entries.append(replace(entry, label=label, held_out=held_out, validation=validation))
    notes += taken_notes(taken)
    if unread:
        named = ", ".join(f"`{name}`" for name in unread)
        more = " and more" * (len(splits) > 1)
        notes.append(f"not used: {named} of {next(iter(unread.values()))}{more}")
    if not (labelled and all(labelled.values()) and entries):
        without = [name for name, has in labelled.items() if not has]
        if 0 < len(without) < len(labelled):
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
