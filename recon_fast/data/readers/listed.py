"""Layouts in which lists name the shapes, ShapeNet55, ModelNet and ShapeNetPart, and folds of few-shot
classification. y is up in all of them.

ShapeNet55, as ReCon, Point-MAE and Point-BERT read it:

    ShapeNet-55/train.txt, test.txt   names of clouds, <synset>-<id>.npy; the test list is held out
    shapenet_pc/<synset>-<id>.npy     clouds [8192, 3]
    shapenet_img/<synset>-<id>.png    one picture each (optional)
    shapenet55.json                   rows {"catalogue": synset as a number, "describe": caption} (optional)

ModelNet as text files and their cache, as PointNet++, Point-MAE and ReCon read it; ModelNet10 has lists of
its own, modelnet10_*.txt, in the same folder:

    modelnet40_shape_names.txt                  the classes, in the order that labels count in
    modelnet40_train.txt, modelnet40_test.txt   ids, <class>_NNNN; the test list is held out
    <class>/<id>.txt                            10000 rows x,y,z and a normal
    modelnet40_train_8192pts_fps.dat, ...       the cache of each list, read where both are there

ShapeNetPart, whose points carry the part that they belong to; the val list is for validation:

    synsetoffset2category.txt                   <category> <synset> a line (optional)
    train_test_split/shuffled_{train,val,test}_file_list.json   ["shape_data/<synset>/<id>", ...]
    <synset>/<id>.txt                           rows x y z, a normal, and the part, 0 to 49

or PointNet's files of the same set, of which the lists are optional:

    {train,val,test}_hdf5_file_list.txt         names of files, ply_data_train0.h5, ...
    ply_data_train0.h5, ...                     data [S, 2048, 3], label [S, 1], pid [S, 2048], the parts

Few-shot folds, each a set of its own; the folder is also spelled <w>way<s>shot:

    <w>way_<s>shot/<fold>.pkl                   {"train": [(cloud, label, class)], "test": ...}
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypedDict

from recon_fast.data.loading import load
from recon_fast.data.readers.hdf5 import has_parts, list_hdf5_parts
from recon_fast.data.readers.pickled import pickled_entries, read_pickled
from recon_fast.data.shapes import BadFile, Entry, Problem, Shapes, Source
from recon_fast.errors import InputError
from recon_fast.files import names_in, read_lines
from recon_fast.schema import read_json

SHAPENET_CLASSES = {
    "02691156": "airplane", "02747177": "trash bin", "02773838": "bag", "02801938": "basket",
    "02808440": "bathtub", "02818832": "bed", "02828884": "bench", "02843684": "birdhouse",
    "02871439": "bookshelf", "02876657": "bottle", "02880940": "bowl", "02924116": "bus",
    "02933112": "cabinet", "02942699": "camera", "02946921": "can", "02954340": "cap", "02958343": "car",
    "02992529": "cellphone", "03001627": "chair", "03046257": "clock", "03085013": "keyboard",
    "03207941": "dishwasher", "03211117": "display", "03261776": "earphone", "03325088": "faucet",
    "03337140": "file cabinet", "03467517": "guitar", "03513137": "helmet", "03593526": "jar",
    "03624134": "knife", "03636649": "lamp", "03642806": "laptop", "03691459": "loudspeaker",
    "03710193": "mailbox", "03759954": "microphone", "03761084": "microwave", "03790512": "motorbike",
    "03797390": "mug", "03928116": "piano", "03938244": "pillow", "03948459": "pistol",
    "03991062": "flowerpot", "04004475": "printer", "04074963": "remote control", "04090263": "rifle",
    "04099429": "rocket", "04225987": "skateboard", "04256520": "sofa", "04330267": "stove",
    "04379243": "table", "04401088": "telephone", "04460130": "tower", "04468005": "train",
    "04530566": "watercraft", "04554684": "washer",
}  # fmt: skip


class Category(NamedTuple):
    """One of the 16 categories."""

    synset: str
    parts: range  # of the 50 parts, those that its shapes may have


CATEGORIES = {  # in the official order, which labels count in
    "Airplane": Category("02691156", range(0, 4)),
    "Bag": Category("02773838", range(4, 6)),
    "Cap": Category("02954340", range(6, 8)),
    "Car": Category("02958343", range(8, 12)),
    "Chair": Category("03001627", range(12, 16)),
    "Earphone": Category("03261776", range(16, 19)),
    "Guitar": Category("03467517", range(19, 22)),
    "Knife": Category("03624134", range(22, 24)),
    "Lamp": Category("03636649", range(24, 28)),
    "Laptop": Category("03642806", range(28, 30)),
    "Motorbike": Category("03790512", range(30, 36)),
    "Mug": Category("03797390", range(36, 38)),
    "Pistol": Category("03948459", range(38, 41)),
    "Rocket": Category("04099429", range(41, 44)),
    "Skateboard": Category("04225987", range(44, 47)),
    "Table": Category("04379243", range(47, 50)),
}
NUM_PARTS = 50
_FOLDER = re.compile(r"(\d+)way_?(\d+)shot")
_PART_LISTS = 'a list of ShapeNetPart\'s shapes, ["shape_data/<synset>/<id>", ...]'


def read_lists(
    root: Path,
    lists: dict[str, tuple[Path, list[str]]],
    folders: Iterable[Path],
    suffix: str,
    entry_of: Callable[[str], Entry | str],
) -> tuple[list[Entry], list[Problem], list[str]]:
    """Entries of the shapes that lists name, problems and notes; "test" is held out, "val" for validation.

    A shape that is listed twice, or lacks its cloud or picture, is a problem. Clouds in no list are noted.

    Args:
        root: the folder of the set.
        lists: the file of each split's list, and its lines.
        folders: all that clouds and pictures may lie in.
        suffix: of clouds.
        entry_of: from a line to the shape that it names, or to what the line must be.
    """
    names = {folder: names_in(folder) or set() for folder in folders}
    named: dict[str, Entry | None] = {}
    listed: set[Path] = set()
    problems: list[Problem] = []
    for split, (file, lines) in lists.items():
        for line in lines:
            entry = entry_of(line)
            if isinstance(entry, str):
                problems.append(Problem(line, file, entry))
                continue
            key, cloud, picture = entry.key, entry.cloud, entry.picture
            if key in named:
                problems.append(Problem(key, file, "must be listed once, in one list; found again"))
                continue
            listed.add(cloud)
            if picture is not None and picture.name not in names.get(picture.parent, ()):
                problems.append(Problem(key, picture, "must be the shape's picture, got no such file"))
                picture = None
            named[key] = replace(entry, picture=picture, held_out=split == "test", validation=split == "val")
            if cloud.name not in names.get(cloud.parent, ()):
                problems.append(Problem(key, cloud, "must be the shape's cloud, got no such file"))
                named[key] = None
    files = [folder / name for folder in names for name in names[folder] if name.endswith(suffix)]
    unlisted = sorted(file.relative_to(root).as_posix() for file in files if file not in listed)
    notes = [f"not used: {len(unlisted)} clouds in no list, such as {unlisted[0]}"] if unlisted else []
    return [entry for entry in named.values() if entry is not None], problems, notes


def is_shapenet(path: Path) -> bool:
    """Is there the folder of ShapeNet55's lists? What else is missing is then said by `list_shapenet`."""
    return (path / "ShapeNet-55").is_dir()


def list_shapenet(path: Path) -> Source:
    """Entries of both lists, without reading a cloud or picture.

    A shape without its cloud, picture or caption is a problem; where no shape has a picture (or caption),
    there are simply none.

    Raises:
        InputError: the lists, the folder of clouds or the captions' file cannot be used as a whole.
    """
    clouds, pictures = path / "shapenet_pc", path / "shapenet_img"
    if not clouds.is_dir():
        raise InputError(f"ShapeNet55 must have a folder shapenet_pc, got none in {path}")
    captions = _read_captions(path / "shapenet55.json")
    files = {split: path / "ShapeNet-55" / f"{split}.txt" for split in ("train", "test")}
    lists = {split: (file, read_lines(file)) for split, file in files.items()}
    keys = {line.removesuffix(".npy") for _, lines in lists.values() for line in lines}
    if not keys:
        raise InputError(f"ShapeNet55 must list clouds in its train.txt and test.txt, got none in {path}")
    synsets = sorted({key.partition("-")[0] for key in keys})
    label = {synset: i for i, synset in enumerate(synsets)}
    with_pictures = any(name.removesuffix(".png") in keys for name in names_in(pictures) or ())

    def entry_of(line: str) -> Entry:
        key = line.removesuffix(".npy")
        synset = key.partition("-")[0]
        picture = pictures / f"{key}.png" if with_pictures else None
        caption = captions.get(synset) or None
        return Entry(key, clouds / f"{key}.npy", picture=picture, caption=caption, label=label[synset])

    entries, problems, notes = read_lists(path, lists, (clouds, pictures), ".npy", entry_of)
    if any(captions.get(synset) for synset in synsets):
        for key in sorted(keys):
            if not captions.get(synset := key.partition("-")[0]):
                what = f"must describe catalogue {synset}, got nothing for it"
                problems.append(Problem(key, path / "shapenet55.json", what))
    classes = [SHAPENET_CLASSES.get(synset) or captions.get(synset) or synset for synset in synsets]
    return Source(path.name, path, entries, classes, problems, up="y", notes=notes)


class _Row(TypedDict):
    catalogue: int | str
    describe: str


def _read_captions(file: Path) -> dict[str, str]:
    """Caption by synset of 8 digits; the file's numbers have lost their leading zero."""
    if not file.exists():
        return {}
    rows = read_json(file, list[_Row], 'a list of {"catalogue", "describe"}')
    try:
        return {f"{int(row['catalogue']):08d}": row["describe"].strip() for row in rows}
    except ValueError as error:
        raise InputError(f"{file} must name catalogues by synset, a number: {error}") from error


def is_modelnet(path: Path, classes: int) -> bool:
    """Is there one of ModelNet's lists or caches? What else is missing is then said by `list_modelnet`."""
    lists = (path / f"modelnet{classes}_{split}.txt" for split in ("train", "test"))
    return any(file.is_file() for file in lists) or bool(_caches(path, classes))


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
    if not any(names_in(path / name) for name in names):
        half = [file.name for pair in caches.values() for file in pair.values()]
        also = f", only {', '.join(sorted(half))}" if half else ""
        raise InputError(
            f"ModelNet{classes} must have folders of its classes with <id>.txt, or both caches "
            f"modelnet{classes}_train_*pts_fps.dat and modelnet{classes}_test_*pts_fps.dat, "
            f"got neither in {path}{also}"
        )

    label = {name: i for i, name in enumerate(names)}

    def entry_of(line: str) -> Entry | str:
        name = line.rpartition("_")[0]
        if name not in label:
            return f"must be <class>_<number> of a class in modelnet{classes}_shape_names.txt, got {line}"
        return Entry(line, path / name / f"{line}.txt", label=label[name])

    files = {split: path / f"modelnet{classes}_{split}.txt" for split in ("train", "test")}
    lists = {split: (file, read_lines(file, "ids of shapes")) for split, file in files.items()}
    entries, problems, notes = read_lists(path, lists, [path / name for name in names], ".txt", entry_of)
    return Source(path.resolve().name, path, entries, names, problems, up="y", notes=notes)


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
    for split in ("train", "test"):
        file = caches[split]
        try:
            listed, found = pickled_entries(file, read_pickled(file), len(names))
        except BadFile as error:
            problems.append(Problem(file.stem, file, error.what))
            continue
        entries += [replace(entry, held_out=split == "test") for entry in listed]
        problems += found
    return Source(path.resolve().name, path, entries, names, problems, up="y")


def is_shapenet_part(path: Path) -> bool:
    """Is there one of its lists, or its table of synsets?"""
    lists = (path / "train_test_split").glob("shuffled_*_file_list.json")
    return any(lists) or (path / "synsetoffset2category.txt").is_file() or has_parts(path)


def list_shapenet_part(path: Path) -> Source:
    """Entries of the three lists, without reading a cloud. All 16 categories are classes, whichever occur.

    Raises:
        InputError: a list is missing or no list, or synsetoffset2category.txt is of another set.
    """
    if has_parts(path):
        return list_hdf5_parts(path, list(CATEGORIES), [category.parts for category in CATEGORIES.values()])
    _check_table(path / "synsetoffset2category.txt")
    by_synset = {category.synset: (i, category) for i, category in enumerate(CATEGORIES.values())}

    def entry_of(line: str) -> Entry | str:
        synset, _, name = line.rpartition("/")
        if synset not in by_synset:
            return f'must list "shape_data/<synset>/<id>" of one of the 16 synsets, got shape_data/{line}'
        label, category = by_synset[synset]
        return Entry(line, path / synset / f"{name}.txt", label=label, parts=category.parts)

    lists: dict[str, tuple[Path, list[str]]] = {}
    for split in ("train", "val", "test"):
        file = path / "train_test_split" / f"shuffled_{split}_file_list.json"
        lines = read_json(file, list[str], _PART_LISTS)
        lists[split] = file, [line.removeprefix("shape_data/") for line in lines]
    entries, problems, notes = read_lists(path, lists, [path / s for s in by_synset], ".txt", entry_of)
    parts = [list(category.parts) for category in CATEGORIES.values()]
    return Source(
        path.resolve().name, path, entries, list(CATEGORIES), problems, up="y", class_parts=parts, notes=notes
    )


def _check_table(file: Path) -> None:
    for line in read_lines(file, "categories and synsets") if file.is_file() else ():
        name, *rest = line.split()
        if name not in CATEGORIES or rest != [CATEGORIES[name].synset]:
            raise InputError(
                f"{file} must list ShapeNetPart's 16 categories as <category> <synset>, got {line}"
            )


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
