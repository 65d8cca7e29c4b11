"""ShapeNetPart: clouds whose points carry the part that they belong to.

synsetoffset2category.txt                             <category> <synset> a line (optional)
train_test_split/shuffled_{train,val,test}_file_list.json   ["shape_data/<synset>/<id>", ...]
<synset>/<id>.txt                                     rows x y z, a normal, and the part, 0 to 49

The test list is held out, the val list is for validation. y is up.
"""

from pathlib import Path
from typing import NamedTuple

from recon_fast.data.shapes import Entry, Problem, Source
from recon_fast.errors import InputError
from recon_fast.files import names_in, read_lines
from recon_fast.schema import read_json


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


def is_shapenet_part(path: Path) -> bool:
    """Is there one of its lists, or its table of synsets?"""
    lists = (path / "train_test_split").glob("shuffled_*_file_list.json")
    return any(lists) or (path / "synsetoffset2category.txt").is_file()


def list_shapenet_part(path: Path) -> Source:
    """Entries of the three lists, without reading a cloud. All 16 categories are classes, whichever occur.

    Raises:
        InputError: a list is missing or no list, or synsetoffset2category.txt is of another set.
    """
    _check_table(path / "synsetoffset2category.txt")
    by_synset = {category.synset: (i, category) for i, category in enumerate(CATEGORIES.values())}
    clouds = {synset: names_in(path / synset) or set() for synset in by_synset}
    entries: dict[str, Entry] = {}
    problems: list[Problem] = []
    for split in ("train", "val", "test"):
        file = path / "train_test_split" / f"shuffled_{split}_file_list.json"
        for line in _read_list(file):
            synset, _, name = line.removeprefix("shape_data/").rpartition("/")
            key = f"{synset}/{name}"
            cloud = path / synset / f"{name}.txt"
            if key in entries:
                problems.append(Problem(key, file, "must be listed once, in one list; found again"))
            elif synset not in by_synset:
                what = f'must list "shape_data/<synset>/<id>" of one of the 16 synsets, got {line}'
                problems.append(Problem(key, file, what))
            elif cloud.name not in clouds[synset]:
                problems.append(Problem(key, cloud, "must be the shape's cloud, got no such file"))
            else:
                label, category = by_synset[synset]
                entries[key] = Entry(
                    key,
                    cloud,
                    label=label,
                    held_out=split == "test",
                    validation=split == "val",
                    parts=category.parts,
                )
    parts = [list(category.parts) for category in CATEGORIES.values()]
    unlisted = sorted(
        f"{synset}/{name}"
        for synset, names in clouds.items()
        for name in names
        if name.endswith(".txt") and f"{synset}/{name.removesuffix('.txt')}" not in entries
    )
    notes = [f"not used: {len(unlisted)} clouds in no list, such as {unlisted[0]}"] if unlisted else []
    return Source(
        path.resolve().name,
        path,
        list(entries.values()),
        list(CATEGORIES),
        problems,
        up="y",
        class_parts=parts,
        notes=notes,
    )


def _check_table(file: Path) -> None:
    for line in read_lines(file, "categories and synsets") if file.is_file() else ():
        name, *rest = line.split()
        if name not in CATEGORIES or rest != [CATEGORIES[name].synset]:
            raise InputError(
                f"{file} must list ShapeNetPart's 16 categories as <category> <synset>, got {line}"
            )


def _read_list(file: Path) -> list[str]:
    lines: list[str] = read_json(
        file, list[str], 'a list of ShapeNetPart\'s shapes, ["shape_data/<synset>/<id>", ...]'
    )
    return lines
