"""What files must hold, checked before anything of them is used: JSON against types, HDF5 against shapes.

A file that people copy, edit or cut may lie about itself. Whatever is wrong with one becomes an `InputError`
that names the file and the place in it.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from recon_fast.errors import InputError
from recon_fast.files import open_regular, whole_file

# Deflate, the strongest common filter, shrinks zeros 1030 times: what claims more was never written.
MOST_SHRUNK = 1100
_KINDS = {str: "a text", int: "a whole number"}


def instead(path: Path) -> str:
    """What stands in a file's place, to end a message with: an HTML page, a Git LFS pointer, or nothing."""
    try:
        with open_regular(path) as file:
            start = file.read(256).lstrip().lower()
    except OSError:
        return ""
    if start.startswith(b"version https://git-lfs"):
        return "; it is a Git LFS pointer: `git lfs pull` fetches the file itself"
    if start.startswith((b"<!doctype html", b"<html")):
        return "; it is an HTML page, which a download link gave: download the file itself"
    return ""


def read_json(path: Path, schema: Any, what: str) -> Any:
    """The JSON in a file, checked against a type.

    Args:
        path: a file in UTF-8, with a byte order mark or without.
        schema: a type, such as `dict[str, str]` or a TypedDict; keys that a TypedDict does not name are kept.
        what: what the file must be, for errors: "a manifest".

    Raises:
        InputError: it cannot be read, is no JSON, or of another schema; it names the file and the place.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} must be {what}: {getattr(error, 'strerror', None) or error}") from error
    return parse_json(text, schema, f"{path} must be {what}")


def write_json(path: Path, value: Any) -> None:
    """Write JSON to disk beside its place, then rename it: the file is whole or as it was. Raises OSError."""
    text = json.dumps(value, indent=1)
    with whole_file(path) as aside:
        aside.write_text(text, encoding="utf-8")


def read_yaml(path: Path) -> dict[str, Any]:
    """The settings in a YAML file. Raises InputError, which names the file, unless it is one."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except RecursionError as error:
        raise InputError(f"config must be a YAML file, got {path}: it nests too deeply") from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"config must be a YAML file, got {path}: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InputError(f"config must be YAML with settings by name, got {path}: {type(content).__name__}")
    return content


def parse_json(text: str | bytes, schema: Any, wanted: str) -> Any:
    """The value that a JSON text states, checked against a type as in `read_json`.

    Args:
        text: JSON.
        schema: a type.
        wanted: begins the message of an error: where the text is from and what it must be.

    Raises:
        InputError: it is no JSON or of another schema.
    """
    try:
        value = json.loads(text)
        msgspec.convert(value, schema)
        json.dumps(value, ensure_ascii=False).encode()  # half of a surrogate pair is no text
    except RecursionError as error:
        raise InputError(f"{wanted}: it nests too deeply") from error
    except UnicodeEncodeError as error:
        raise InputError(f"{wanted}: it has half a surrogate pair, which is no character") from error
    except ValueError as error:  # also what msgspec raises
        raise InputError(f"{wanted}: {error}") from error
    return value


@contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """An HDF5 file, open for reading.

    Raises:
        InputError: it cannot be opened, or reading from it fails.
    """
    import h5py

    try:
        open_regular(path).close()
        with h5py.File(path, "r") as file:
            yield file
    except OSError as error:
        raise InputError(f"{path} is damaged or not an HDF5 file: {error}{instead(path)}") from error


def hdf5_array(
    file: Any, name: str, shape: tuple[int | str, ...] | None, kinds: str = "fiu", *, optional: bool = False
) -> Any:
    """A dataset of an open HDF5 file, not read yet, whose bytes lie in this very file.

    Args:
        file: from `open_hdf5`.
        name: path of the dataset in the file.
        shape: sizes that it must have; a text stands for any size, and says in messages what it counts.
            None stands for any shape.
        kinds: NumPy's letters of the types it may have: "f" real, "i" and "u" whole, "b" bool, "B" bytes,
            "O" texts.
        optional: return None where there is no such dataset.

    Raises:
        InputError: it is missing, leads out of the file, claims more than is stored, or is of another shape
            or type.
    """
    import h5py

    where, dataset = file.filename, file
    for part in name.split("/"):
        link = dataset.get(part, getlink=True) if isinstance(dataset, h5py.Group) else None
        if isinstance(link, h5py.ExternalLink):
            raise InputError(
                f"{where} must hold its own data, and its {name} is a link into another file, "
                f"{link.filename}: copy it in"
            )
        try:
            dataset = None if link is None else dataset[part]
        except (KeyError, OSError, RuntimeError) as error:
            raise InputError(f"{where} is damaged: its {name} cannot be read ({error})") from error
    if dataset is None and optional:
        return None
    if not isinstance(dataset, h5py.Dataset):
        raise InputError(f"{where} must have an array {name}, got {', '.join(file) or 'nothing'}")
    _check_own(file, dataset, name)
    got = dataset.shape
    wanted = shape if shape is not None else got or ()
    fits = got is not None and len(got) == len(wanted)
    if not fits or any(a != b for a, b in zip(wanted, got, strict=True) if isinstance(a, int)):
        wanted_text = ", ".join(map(str, wanted))
        raise InputError(
            f"{where} must have {name} [{wanted_text}], got {None if got is None else list(got)}"
        )
    kind = "B" if "B" in kinds and dataset.dtype == "u1" else dataset.dtype.kind
    text = h5py.check_string_dtype(dataset.dtype) is not None
    if text != (kinds == "O") or (not text and kind not in kinds):
        raise InputError(f"{where} must have {_names(kinds)} in {name}, got {dataset.dtype}")
    return dataset


def hdf5_attribute(item: Any, name: str, kind: type, where: str) -> Any:
    """An attribute of an HDF5 file, group or dataset as a text or a whole number; None where there is none.

    Args:
        item: what has the attribute.
        name: of the attribute.
        kind: str or int.
        where: the file, for errors.

    Raises:
        InputError: it is something else.
    """
    try:
        value = item.attrs.get(name)
    except (OSError, TypeError, ValueError) as error:
        raise InputError(f"{where} is damaged: its attribute {name} cannot be read ({error})") from error
    if value is None or isinstance(value, kind):
        return value
    if kind is int and getattr(value, "shape", None) == () and value.dtype.kind in "iu":
        return int(value)
    raise InputError(f"{where} must have {_KINDS[kind]} as its attribute {name}, got {str(value)[:60]}")


def _check_own(file: Any, dataset: Any, name: str) -> None:
    """Raise InputError unless the bytes of a dataset lie in its own file, and are there."""
    where, foreign = file.filename, None
    if dataset.is_virtual:
        foreign = "other datasets, " + ", ".join({source.file_name for source in dataset.virtual_sources()})
    elif dataset.external:
        foreign = f"another file, {dataset.external[0][0]}"
    elif dataset.file.filename != where:  # through a link to a link
        foreign = f"another file, {dataset.file.filename}"
    if foreign:
        raise InputError(f"{where} must hold its own data, and its {name} lies in {foreign}: copy it in")
    stored = dataset.id.get_storage_size()
    if dataset.size and dataset.nbytes > MOST_SHRUNK * stored + 2**20:
        raise InputError(
            f"{where} claims {dataset.nbytes:,} bytes in {name} {list(dataset.shape)} and stores {stored:,}: "
            "most of it was never written"
        )


def _names(kinds: str) -> str:
    words = {"f": "real numbers", "i": "whole numbers", "b": "true or false", "B": "bytes", "O": "texts"}
    return " or ".join(words[kind] for kind in kinds if kind in words)
