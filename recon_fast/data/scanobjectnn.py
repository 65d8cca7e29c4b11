"""ScanObjectNN's three variants, HDF5 files with `data` [S, 2048, 3] and `label` [S].

main_split/{training,test}_objectdataset.h5                          obj_bg: objects with background
main_split_nobg/{training,test}_objectdataset.h5                     obj_only: without it
main_split/{training,test}_objectdataset_augmentedrot_scale75.h5     hardest (PB_T50_RS): moved, turned

Both folders may lie in a folder h5_files. y is up.
"""

from pathlib import Path

from recon_fast.data.folder import hdf5_source
from recon_fast.data.shapes import Problem, Source
from recon_fast.errors import InputError

CLASS_NAMES = [
    "bag", "bin", "box", "cabinet", "chair", "desk", "display", "door", "shelf", "table", "bed", "pillow",
    "sink", "sofa", "toilet",
]  # fmt: skip
VARIANTS = {
    "obj_bg": ("main_split", "objectdataset.h5"),
    "obj_only": ("main_split_nobg", "objectdataset.h5"),
    "hardest": ("main_split", "objectdataset_augmentedrot_scale75.h5"),
}
_SPLITS = {"training": "train", "test": "test"}


def is_scanobjectnn(path: Path) -> bool:
    """Is there a file of one of the variants?"""
    return bool(_present(path))


def list_scanobjectnn(path: Path, variant: str | None = None) -> Source:
    """Every row of a variant's two files as one entry; the test file is held out.

    Args:
        path: the folder of main_split and main_split_nobg, or one of these.
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
        there = f"only {', '.join(present)}" if present else "no variant"
        raise InputError(
            f"ScanObjectNN's {variant} must be {folder}/training_{name} and {folder}/test_{name}, "
            f"got {there} in {path}"
        )
    files = present[variant]
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


def _present(path: Path) -> dict[str, list[Path]]:
    """Both files of each variant of which one is there."""
    found = {}
    for variant, (folder, name) in VARIANTS.items():
        inside = [path / folder, path / "h5_files" / folder]
        for place in [path] if path.resolve().name == folder else inside:
            files = [place / f"{split}_{name}" for split in _SPLITS]
            if any(file.is_file() for file in files):
                found[variant] = files
                break
    return found
