"""ScanObjectNN's three variants, HDF5 files with `data` [S, 2048, 3] and `label` [S].

main_split/{training,test}_objectdataset.h5                          obj_bg: objects with background
main_split_nobg/{training,test}_objectdataset.h5                     obj_only: without it
main_split/{training,test}_objectdataset_augmentedrot_scale75.h5     hardest (PB_T50_RS): moved, turned

The folders may be called otherwise and may lie in a folder h5_files: files without background are those whose
folder has nobg in its name. Of the archive's other files none is read. y is up.
"""

from pathlib import Path

from recon_fast.data.readers.folder import hdf5_source
from recon_fast.data.shapes import Problem, Source
from recon_fast.errors import InputError

CLASS_NAMES = [
    "bag", "bin", "box", "cabinet", "chair", "desk", "display", "door", "shelf", "table", "bed", "pillow",
    "sink", "sofa", "toilet",
]  # fmt: skip
_PLAIN, _HARDEST = "objectdataset.h5", "objectdataset_augmentedrot_scale75.h5"
VARIANTS = {
    "obj_bg": ("main_split", _PLAIN),
    "obj_only": ("main_split_nobg", _PLAIN),
    "hardest": ("main_split", _HARDEST),
}
_SPLITS = {"training": "train", "test": "test"}


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
    files = [places[0] / f"{split}_{VARIANTS[variant][1]}" for split in _SPLITS]
    splits = {file: _SPLITS[file.name.partition("_")[0]] for file in files}
    missing = [
        Problem(file.stem, file, f"must be there, as {variant} has two files")
        for file in files
        if not file.is_file()
    ]
    there_are = [file for file in files if file.is_file()]
    source = hdf5_source(path, there_are, splits, CLASS_NAMES, 0.0, missing, needs_labels=True)
    source.name, source.up = f"ScanObjectNN {variant}", "y"
    return source


def _places(path: Path) -> list[Path]:
    """Folders that files of the set may lie in."""
    return [path, *sorted(path.glob("*/")), *sorted(path.glob("h5_files/*/"))]


def _files_in(folder: Path) -> list[Path]:
    return [file for split in _SPLITS for file in folder.glob(f"{split}_objectdataset*.h5")]


def _present(path: Path) -> dict[str, list[Path]]:
    """The folders of each variant of which a file is there: its own folder if that is one of them."""
    found: dict[str, list[Path]] = {}
    for variant, (folder, name) in VARIANTS.items():
        without_background = variant == "obj_only"
        places = [
            place
            for place in _places(path)
            if ("nobg" in place.resolve().name) == without_background
            and any((place / f"{split}_{name}").is_file() for split in _SPLITS)
        ]
        own = [place for place in places if place.resolve().name == folder]
        if places:
            found[variant] = own or places
    return found
