"""Any folder of clouds.

chair/a.npy, table/b.off      subfolders are classes; without subfolders there are no labels
chair/train/a.off, test/...   a folder named test is held out; without one, a share chosen by hash is
chair/a.png, chair/a.txt      picture and caption beside the cloud, under its stem
chair/b.txt                   a cloud, where .txt or .csv hold rows of numbers and there are no other clouds
captions.json                 {key: caption} in the root, where the key is the path without suffix
many.h5, many.npz             a file of many clouds; a folder of HDF5 alone is read by `list_hdf5`
more.zip                      read like a folder that is no class; it may also stand for the folder itself
"""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from recon_fast.data.archives import archive_of, members
from recon_fast.data.packed import is_packed
from recon_fast.data.readers.arrays import ARRAYS, HDF5, holds_one_cloud
from recon_fast.data.readers.clouds import FILES, PERHAPS, up_of
from recon_fast.data.readers.hdf5 import array_rows, holds_one, is_held_out, list_hdf5, taken_notes
from recon_fast.data.readers.pictures import PICTURE_SUFFIXES
from recon_fast.data.readers.text import is_table
from recon_fast.data.shapes import BadFile, Entry, Problem, Source, read_bytes
from recon_fast.errors import InputError
from recon_fast.schema import read_json

_SPLITS = ("train", "test")
_SHOWN = 5  # suffixes in a line
# Clouds wherever they lie in a folder.
_CLOUDS = (*(suffix for suffix in FILES if suffix not in PERHAPS), *ARRAYS)
_KINDS = f"{' '.join(_CLOUDS)}, and {' '.join(PERHAPS)} with rows of numbers"
# Files that come with a set and that nobody takes for a shape.
_EXPECTED = re.compile(
    r"(?i)_files\.txt$|shape_names\.txt$|^(readme|licen[cs]e|changelog|citation)\b|\.(md|mtl|bin)$"
)


def list_folder(path: Path, held_out_fraction: float, array: str | None = None) -> Source:
    """Entries of a folder and its subfolders, hidden ones aside, or of a .zip.

    Args:
        path: the folder, or a .zip of one.
        held_out_fraction: share that is held out where no folder is named test.
        array: name of the array of clouds in files of arrays; None takes the one that is found.

    Raises:
        InputError: there is no cloud, or captions.json cannot be used.
    """
    name, path = path.resolve().name, _inside(path)
    problems: list[Problem] = []
    folders = dict(_walk(path, problems))
    files = [folder / name for folder, names in folders.items() for name in names]
    packed = {file for file in files if _is_packed_file(file)}
    clouds = [file for file in files if file not in packed and _is_cloud(file)]
    tables = [file for file in files if file.suffix.lower() in PERHAPS and _is_table(file)]
    clouds, tables = (clouds, tables) if clouds else (tables, [])
    if not clouds:
        there = f"only {_by_suffix(files)}" if files else "none"
        hint = "; HDF5 is read unpacked" * any(file.suffix.lower() in HDF5 for file in files)
        raise InputError(f"data must be a folder with clouds ({_KINDS}), got {there} in {path}{hint}")
    if all(cloud.suffix.lower() in HDF5 for cloud in clouds) and not holds_one(clouds[0], array):
        source = list_hdf5(path, clouds, held_out_fraction, array)
        source.notes += _unused(set(files) - set(clouds) - packed, packed)
        source.problems += problems
        return source

    relative = [cloud.relative_to(path) for cloud in clouds]
    stems = Counter(file.with_suffix("").as_posix() for file in relative)
    listed = path / "captions.json"
    captions: dict[str, str] = {}
    if listed.exists():
        captions = read_json(listed, dict[str, str], "JSON {key: caption}")
    used: set[Path] = {*clouds, *tables, listed}
    entries: list[Entry] = []
    notes: list[str] = []
    taken: dict[str, list[Path]] = {}
    if tables:
        few = f"{len(tables)} files with rows of numbers, such as {tables[0].name}"
        notes.append(f"not used: {few}, beside clouds in other formats")
    for cloud, file in zip(clouds, relative, strict=True):
        stem = file.with_suffix("").as_posix()
        key = stem if stems[stem] == 1 else file.as_posix()
        suffix = cloud.suffix.lower()
        if suffix in ARRAYS or (suffix == ".npy" and not holds_one_cloud(cloud)):
            found = array_rows(cloud, key, array)
            entries += found.entries
            problems += found.problems
            if found.taken is not None:
                taken.setdefault(found.taken, []).append(cloud)
            if found.labels is not None:
                why = "since beside other files folders are the classes"
                notes.append(f"not used: labels of {cloud.name}, {why}")
            continue
        beside = folders[cloud.parent]
        picture = next((beside[n] for s in PICTURE_SUFFIXES if (n := cloud.stem + s) in beside), None)
        caption = captions.get(key, captions.get(stem))
        if caption is None and (text := beside.get(f"{cloud.stem}.txt")) and text not in used:
            used.add(text)
            try:
                caption = read_bytes(text).decode("utf-8-sig")
            except (BadFile, UnicodeDecodeError) as error:
                problems.append(Problem(key, text, f"must be a caption in UTF-8: {error}"))
        if picture is not None:
            used.add(picture)
        entries.append(Entry(key, cloud, picture=picture, caption=(caption or "").strip() or None))

    notes += taken_notes(taken)
    classes = []  # of each shape the first folder that is not the name of a split
    for entry in entries:
        folders_of = entry.cloud.relative_to(path).parts[:-1]
        classes.append(next((part for part in folders_of if not _is_no_class(part)), None))
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
    up, note = up_of(entry.cloud for entry in entries)
    notes += [] if note is None else [note]
    return Source(name, path, entries, names if labelled else [], problems, up, notes=notes)


def _inside(path: Path) -> Path:
    """A folder itself; of a .zip the innermost folder that all of it lies in."""
    if path.is_dir():
        return path
    while len(tops := {file.relative_to(path).parts[0] for file in _members(path)}) == 1:
        inner = path / tops.pop()
        if inner in _members(path):
            break
        path = inner
    return path


def _members(path: Path) -> list[Path]:
    """All files of a .zip below a folder in it."""
    archive = archive_of(path / "any") or path
    return [file for file in members(archive) if file.is_relative_to(path)]


def _is_cloud(file: Path) -> bool:
    suffix = file.suffix.lower()
    return suffix in _CLOUDS and not (suffix in HDF5 and archive_of(file))


def _is_table(file: Path) -> bool:
    return not _EXPECTED.search(file.name) and is_table(file)


def _is_no_class(folder: str) -> bool:
    return folder.lower() in _SPLITS or folder.lower().endswith(".zip")


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
        notes.append(f"not used: {_by_suffix(strange)}; clouds are {_KINDS}")
    return notes


def _walk(root: Path, problems: list[Problem]) -> Iterator[tuple[Path, dict[str, Path]]]:
    """(folder, its files by name) of all folders that are not hidden, in order; links are followed once.

    The folders in a .zip follow the one that it lies in; one that cannot be read is added to `problems`.
    """
    seen: set[str] = set()
    if not root.is_dir():
        yield from _by_folder(_members(root))
        return

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
            files = {name: Path(folder) / name for name in sorted(names) if name[0] != "."}
            archives = [files.pop(name) for name in list(files) if name.lower().endswith(".zip")]
            yield Path(folder), files
            for archive in archives:
                try:
                    yield from _by_folder(members(archive))
                except InputError as error:
                    what = str(error).removeprefix(f"{archive} ")
                    problems.append(Problem(archive.relative_to(root).as_posix(), archive, what))


def _by_folder(files: Iterable[Path]) -> Iterator[tuple[Path, dict[str, Path]]]:
    found: dict[Path, dict[str, Path]] = defaultdict(dict)
    for file in files:
        found[file.parent][file.name] = file
    yield from found.items()


def _folders(file: Path) -> list[str]:
    return [part.lower() for part in file.parts[:-1]]


def _is_packed_file(file: Path) -> bool:
    """A packed file that lies among the clouds it was made from is not one of them."""
    if file.suffix.lower() != ".h5" or archive_of(file):
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
