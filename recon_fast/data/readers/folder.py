"""Any folder of clouds, and the HDF5 layout of ModelNet and ScanObjectNN.

chair/a.npy, table/b.off      subfolders are classes; without subfolders there are no labels
chair/train/a.off, test/...   a folder named test is held out; without one, a share chosen by hash is
chair/a.png, chair/a.txt      picture and caption beside the cloud, under its stem
captions.json                 {key: caption} in the root, where the key is the path without suffix
ply_data_train0.h5, ...       `data` [S, N, 3 or more], `label` [S] or [S, 1]; shape_names.txt,
                              train_files.txt, test_files.txt
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from recon_fast.data.packed import is_packed
from recon_fast.data.readers.clouds import SUFFIXES, BadFile, hdf5_clouds
from recon_fast.data.readers.pictures import PICTURE_SUFFIXES
from recon_fast.data.shapes import Entry, Problem, Source
from recon_fast.errors import InputError
from recon_fast.files import read_lines
from recon_fast.schema import hdf5_array, open_hdf5, read_json

_SPLITS = ("train", "test")
_MOST_LABELS = 100_000
_SHOWN = 5  # suffixes in a line
# Files that come with a set and that nobody takes for a shape.
_EXPECTED = re.compile(
    r"(?i)_files\.txt$|shape_names\.txt$|^(readme|licen[cs]e|changelog|citation)\b|\.(md|mtl)$"
)


def is_held_out(key: str, fraction: float) -> bool:
    """A share of all keys that depends on each key alone."""
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "little") < fraction * 2**64


def list_folder(path: Path, held_out_fraction: float) -> Source:
    """Entries of a folder and its subfolders, hidden ones aside.

    Raises:
        InputError: there is no cloud, or captions.json cannot be used.
    """
    folders = dict(_walk(path))
    files = [folder / name for folder, names in folders.items() for name in names]
    packed = {file for file in files if _is_packed_file(file)}
    clouds = [file for file in files if file.suffix.lower() in SUFFIXES and file not in packed]
    if not clouds:
        there = f"only {_by_suffix(files)}" if files else "none"
        raise InputError(f"data must be a folder with clouds ({' '.join(SUFFIXES)}), got {there} in {path}")
    if all(cloud.suffix.lower() == ".h5" for cloud in clouds):
        source = list_hdf5(path, clouds, held_out_fraction)
        source.notes += _unused(set(files) - set(clouds) - packed, packed)
        return source

    relative = [cloud.relative_to(path) for cloud in clouds]
    stems = Counter(file.with_suffix("").as_posix() for file in relative)
    captions = _read_captions_json(path / "captions.json")
    used: set[Path] = {*clouds, path / "captions.json"}
    entries: list[Entry] = []
    problems: list[Problem] = []
    notes: list[str] = []
    for cloud, file in zip(clouds, relative, strict=True):
        stem = file.with_suffix("").as_posix()
        key = stem if stems[stem] == 1 else file.as_posix()
        if cloud.suffix.lower() == ".h5":
            found = _hdf5_rows(cloud, key)
            entries += found.entries
            problems += found.problems
            if found.labels is not None:
                notes.append(
                    f"not used: labels of {cloud.name}, since beside other files folders are the classes"
                )
            continue
        beside = folders[cloud.parent]
        picture = next((beside[n] for s in PICTURE_SUFFIXES if (n := cloud.stem + s) in beside), None)
        caption = captions.get(key, captions.get(stem))
        if caption is None and (text := beside.get(f"{cloud.stem}.txt")):
            used.add(text)
            try:
                caption = text.read_text(encoding="utf-8-sig").strip()
            except (OSError, UnicodeDecodeError) as error:
                problems.append(Problem(key, text, f"must be a caption in UTF-8: {error}"))
        if picture is not None:
            used.add(picture)
        entries.append(Entry(key, cloud, picture=picture, caption=caption or None))

    classes = [_class_of(entry.cloud.relative_to(path)) for entry in entries]
    names = sorted({name for name in classes if name is not None})
    labelled = None not in classes and len(names) > 1
    has_test = any("test" in _folders(file) for file in relative)
    for i, entry in enumerate(entries):
        in_test = "test" in _folders(entry.cloud.relative_to(path))
        entries[i] = replace(
            entry,
            label=names.index(str(classes[i])) if labelled else None,
            held_out=in_test if has_test else is_held_out(entry.key, held_out_fraction),
        )
    problems += _gaps(entries, {problem.key for problem in problems})
    notes += _unused(set(files) - used - packed, packed)
    outside = sum(name is None for name in classes)
    if (path / "shapenet_pc").is_dir():
        notes.append(
            "no official split and no classes: shapenet_pc is of ShapeNet55, whose lists "
            "ShapeNet-55/train.txt and test.txt are not there"
        )
    elif names and outside:
        notes.append(f"no labels: {outside} shapes lie in no folder of a class")
    elif len(names) == 1:
        notes.append(f"no labels: all shapes lie in one class, {names[0]}")
    if nameless := captions.keys() - {entry.key for entry in entries} - stems.keys():
        notes.append(
            f"not used: {len(nameless)} of captions.json that belong to no shape, such as {min(nameless)}"
        )
    return Source(path.resolve().name, path, entries, names if labelled else [], problems, notes=notes)


def _by_suffix(files: Iterable[Path]) -> str:
    """Counts of files by suffix, as "3 .pcd, 1 .stl"."""
    counts = Counter(file.suffix.lower() or "without suffix" for file in files)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rest = sum(count for _, count in ranked[_SHOWN:])
    return ", ".join(f"{count} {suffix}" for suffix, count in ranked[:_SHOWN]) + f" and {rest} others" * (
        rest > 0
    )


def _unused(files: Iterable[Path], packed: Iterable[Path]) -> list[str]:
    """Lines on files that are neither clouds nor belong to one, lists and texts for people aside."""
    notes = [f"not used: {file.name}, which `recon-fast pack` wrote" for file in sorted(packed)]
    if strange := [file for file in files if not _EXPECTED.search(file.name)]:
        notes.append(f"not used: {_by_suffix(strange)}; clouds are {' '.join(SUFFIXES)}")
    return notes


def list_hdf5(root: Path, files: list[Path], held_out_fraction: float) -> Source:
    """Every row of `data` of a folder's .h5 files as one entry.

    Where the folder has train_files.txt and test_files.txt, they say which files belong to the set and which
    are held out (and val_files.txt, which are for validation); else files with test in their name are held
    out. Classes are named by the first *shape_names.txt.
    """
    files, splits, missing = _listed_files(root, files)
    return hdf5_source(root, files, splits, _shape_names(root), held_out_fraction, missing)


def list_hdf5_file(file: Path, held_out_fraction: float) -> Source:
    """Every row of `data` of one .h5 file as one entry."""
    split = "test" if _is_test_file(file) else "train"
    source = hdf5_source(file.parent, [file], {file: split}, _shape_names(file.parent), held_out_fraction)
    source.name = file.stem
    return source


def hdf5_source(
    root: Path,
    files: list[Path],
    splits: dict[Path, str],
    class_names: list[str],
    held_out_fraction: float,
    missing: Sequence[Problem] = (),
    *,
    needs_labels: bool = False,
) -> Source:
    """Every row of `data` of some .h5 files as one entry.

    Args:
        root: the folder that they lie in.
        files: which ones.
        splits: "train", "val" or "test" of each; without "test" a share chosen by hash is held out.
        class_names: what the labels mean; empty takes numbers.
        held_out_fraction: the share.
        missing: problems found so far.
        needs_labels: a file without `label` is a problem; else it takes the labels of all away.
    """
    entries: list[Entry] = []
    problems = list(missing)
    labels: list[np.ndarray | None] = []
    unlabelled: list[str] = []
    unread: dict[str, str] = {}  # dataset -> the first file that has it
    has_test = "test" in splits.values()
    for file in sorted(files):
        found = _hdf5_rows(file, file.relative_to(root).with_suffix("").as_posix())
        label = found.labels
        broken = found.problems
        if label is None and needs_labels and not broken:
            broken = [Problem(file.stem, file, "must have `label`, one for each row of `data`, got none")]
        problems += broken
        for name in found.unread:
            unread.setdefault(name, file.name)
        if not broken:  # a broken file does not take the others' labels away
            labels.append(label)
            if label is None:
                unlabelled.append(file.name)
        for row, entry in enumerate(found.entries):
            held_out = splits[file] == "test" if has_test else is_held_out(entry.key, held_out_fraction)
            entries.append(
                replace(
                    entry,
                    held_out=held_out,
                    validation=splits[file] == "val" and not held_out,
                    label=None if label is None else int(label[row]),
                )
            )
    notes = []
    if unread:
        named = ", ".join(f"`{name}`" for name in unread)
        hint = "; labels must be called `label`" if "labels" in unread else ""
        notes.append(
            f"not used: {named} of {next(iter(unread.values()))}{' and more' * (len(files) > 1)}{hint}"
        )
    names: list[str] = []
    if labels and not unlabelled and entries:
        highest = max(int(entry.label or 0) for entry in entries)
        if not class_names and highest >= _MOST_LABELS:
            raise InputError(
                f"labels must count classes from 0, got {highest} in {root} and no *shape_names.txt"
            )
        names = class_names or [str(i) for i in range(highest + 1)]
        for entry in entries:
            if not 0 <= (entry.label or 0) < len(names):
                what = f"row {entry.row}: label must be below {len(names)}, got {entry.label}"
                problems.append(Problem(entry.key, entry.cloud, what))
    else:
        entries = [replace(entry, label=None) for entry in entries]
        if len(unlabelled) < len(labels):
            notes.append(
                f"no labels: {len(unlabelled)} of {len(labels)} files have no `label`, such as "
                f"{unlabelled[0]}"
            )
    return Source(root.resolve().name, root, entries, names, problems, notes=notes)


def _listed_files(root: Path, files: list[Path]) -> tuple[list[Path], dict[Path, str], list[Problem]]:
    """(files of the set, split of each, problems for listed files that are not there)."""
    listed = {split: root / f"{split}_files.txt" for split in (*_SPLITS, "val")}
    if not all(listed[split].is_file() for split in _SPLITS):
        return files, {file: "test" if _is_test_file(file) else "train" for file in files}, []
    by_name = {file.name: file for file in files}
    found: dict[Path, str] = {}
    problems = []
    for split, source in listed.items():
        for line in read_lines(source, "files") if source.is_file() else []:
            name = PurePosixPath(line).name  # the official lists have the folder of their author
            if name in by_name:
                found[by_name[name]] = split
            else:
                what = f"must be there, as {source.name} lists it"
                problems.append(Problem(Path(name).stem, root / name, what))
    return list(found), found, problems


def _walk(root: Path) -> Iterator[tuple[Path, dict[str, Path]]]:
    """(folder, its files by name) of all folders that are not hidden, in order; links are followed once."""
    seen: set[str] = set()

    def fail(error: OSError) -> None:
        raise InputError(f"{error.filename} cannot be read: {error.strerror}") from error

    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=fail):
        real = os.path.realpath(folder)
        subfolders[:] = [] if real in seen else sorted(name for name in subfolders if name[0] != ".")
        if real not in seen:
            seen.add(real)
            for name in (*subfolders, *names):
                if not name.isascii() and any("\ud800" <= letter <= "\udfff" for letter in name):
                    raise InputError(f"{folder!r} must hold names in UTF-8, got {os.fsencode(name)!r}")
            yield Path(folder), {name: Path(folder) / name for name in sorted(names) if name[0] != "."}


def _folders(file: Path) -> list[str]:
    return [part.lower() for part in file.parts[:-1]]


def _class_of(file: Path) -> str | None:
    """The first folder that is not the name of a split."""
    return next((part for part in file.parts[:-1] if part.lower() not in _SPLITS), None)


def _is_test_file(file: Path) -> bool:
    return re.search(r"(?<![a-z])test", file.stem.lower()) is not None


def _is_packed_file(file: Path) -> bool:
    """A packed file that lies among the clouds it was made from is not one of them."""
    if file.suffix.lower() != ".h5":
        return False
    try:
        return is_packed(file)
    except InputError:
        return False  # broken: reported with the other files


class _Rows(NamedTuple):
    """What one .h5 file has."""

    entries: list[Entry]
    labels: np.ndarray | None  # [S] int64
    problems: list[Problem]
    unread: list[str]  # datasets that nobody asks for


def _hdf5_rows(file: Path, key: str) -> _Rows:
    """All rows of one .h5 file, without reading a cloud."""
    try:
        with open_hdf5(file) as content:
            count = len(hdf5_clouds(file, content))
            found = hdf5_array(content, "label", None, "iu", optional=True)
            if found is not None and found.size != count:
                raise InputError(f"`label` must be {count} integers, got {found.dtype} {list(found.shape)}")
            label = None if found is None else np.asarray(found[()])
            unread = [name for name in content if name not in ("data", "label")]
    except InputError as error:
        what = error.what if isinstance(error, BadFile) else str(error).removeprefix(f"{file} ")
        return _Rows([], None, [Problem(key, file, what)], [])
    rows = [Entry(f"{key}/{row}", file, row) for row in range(count)]
    return _Rows(rows, None if label is None else label.reshape(-1).astype(np.int64), [], unread)


def _shape_names(root: Path) -> list[str]:
    """Class names, one a line, of the first *shape_names.txt; none without it."""
    for file in sorted(root.glob("*shape_names.txt")):
        return read_lines(file, "classes")
    return []


def _read_captions_json(file: Path) -> dict[str, str]:
    if not file.exists():
        return {}
    captions: dict[str, str] = read_json(file, dict[str, str], "JSON {key: caption}")
    return {key: text.strip() for key, text in captions.items()}


def _gaps(entries: list[Entry], known: set[str]) -> list[Problem]:
    """A problem for each shape that lacks what others have."""
    problems = []
    if any(entry.picture for entry in entries):
        what = f"must have a picture beside it ({' '.join(PICTURE_SUFFIXES)}) as others have, got none"
        problems += [Problem(e.key, e.cloud, what) for e in entries if e.picture is None]
    if any(entry.caption for entry in entries):
        what = "must have a caption (.txt beside it, or in captions.json) as others have, got none"
        problems += [Problem(e.key, e.cloud, what) for e in entries if not e.caption and e.key not in known]
    return problems
