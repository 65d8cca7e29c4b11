"""Any folder of clouds.

chair/a.npy, table/b.off      subfolders are classes; without subfolders there are no labels
chair/train/a.off, test/...   a folder named test is held out; without one, a share chosen by hash is
chair/a.png, chair/a.txt      picture and caption beside the cloud, under its stem
captions.json                 {key: caption} in the root, where the key is the path without suffix
many.h5                       a file of many clouds; a folder of nothing else is read by `list_hdf5`
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from recon_fast.data.packed import is_packed
from recon_fast.data.readers.clouds import SUFFIXES
from recon_fast.data.readers.hdf5 import hdf5_rows, is_held_out, list_hdf5
from recon_fast.data.readers.pictures import PICTURE_SUFFIXES
from recon_fast.data.shapes import Entry, Problem, Source
from recon_fast.errors import InputError
from recon_fast.schema import read_json

_SPLITS = ("train", "test")
_SHOWN = 5  # suffixes in a line
# Files that come with a set and that nobody takes for a shape.
_EXPECTED = re.compile(
    r"(?i)_files\.txt$|shape_names\.txt$|^(readme|licen[cs]e|changelog|citation)\b|\.(md|mtl)$"
)


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
    listed = path / "captions.json"
    captions: dict[str, str] = {}
    if listed.exists():
        captions = read_json(listed, dict[str, str], "JSON {key: caption}")
    used: set[Path] = {*clouds, listed}
    entries: list[Entry] = []
    problems: list[Problem] = []
    notes: list[str] = []
    for cloud, file in zip(clouds, relative, strict=True):
        stem = file.with_suffix("").as_posix()
        key = stem if stems[stem] == 1 else file.as_posix()
        if cloud.suffix.lower() == ".h5":
            found = hdf5_rows(cloud, key)
            entries += found.entries
            problems += found.problems
            if found.labels is not None:
                why = "since beside other files folders are the classes"
                notes.append(f"not used: labels of {cloud.name}, {why}")
            continue
        beside = folders[cloud.parent]
        picture = next((beside[n] for s in PICTURE_SUFFIXES if (n := cloud.stem + s) in beside), None)
        caption = captions.get(key, captions.get(stem))
        if caption is None and (text := beside.get(f"{cloud.stem}.txt")):
            used.add(text)
            try:
                caption = text.read_text(encoding="utf-8-sig")
            except (OSError, UnicodeDecodeError) as error:
                problems.append(Problem(key, text, f"must be a caption in UTF-8: {error}"))
        if picture is not None:
            used.add(picture)
        entries.append(Entry(key, cloud, picture=picture, caption=(caption or "").strip() or None))

    classes = []  # of each shape the first folder that is not the name of a split
    for entry in entries:
        folders_of = entry.cloud.relative_to(path).parts[:-1]
        classes.append(next((part for part in folders_of if part.lower() not in _SPLITS), None))
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
    ranked = Counter(sorted(file.suffix.lower() or "without suffix" for file in files)).most_common()
    shown = ", ".join(f"{count} {suffix}" for suffix, count in ranked[:_SHOWN])
    rest = sum(count for _, count in ranked[_SHOWN:])
    return f"{shown} and {rest} others" if rest else shown


def _unused(files: Iterable[Path], packed: Iterable[Path]) -> list[str]:
    """Lines on files that are neither clouds nor belong to one, lists and texts for people aside."""
    notes = [f"not used: {file.name}, which `recon-fast pack` wrote" for file in sorted(packed)]
    if strange := [file for file in files if not _EXPECTED.search(file.name)]:
        notes.append(f"not used: {_by_suffix(strange)}; clouds are {' '.join(SUFFIXES)}")
    return notes


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


def _is_packed_file(file: Path) -> bool:
    """A packed file that lies among the clouds it was made from is not one of them."""
    if file.suffix.lower() != ".h5":
        return False
    try:
        return is_packed(file)
    except InputError:
        return False  # broken: reported with the other files


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
