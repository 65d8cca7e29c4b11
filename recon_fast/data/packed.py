"""Packed data sets, read: one HDF5 file, or a folder of them with a manifest, which are its shards.

    points [T, 3] float16 or float32, offsets [S + 1]   shape i is points[offsets[i]:offsets[i + 1]]
    keys, captions [S], class_names [C]                 UTF-8 texts
    held_out, validation [S] bool, labels [S] int64
    parts [T] uint8, class_parts [C]                    the part of each point; as JSON, those of each class
    pictures [B] uint8, picture_offsets [S + 1]         picture files as they were, without features
    features/image, text, caption_index, class_text     see `recon_fast.data.shapes.Features`

What a set does not have is absent. Attributes of the file state how its clouds lie: `up` (x, y, z or
unknown), `scale` ("unit sphere" or "raw") and `points_per_cloud` [smallest, largest]; and as JSON `notes`,
what of the files was changed or left out. Each dataset carries its checksum (`recon_fast.data.hdf5`).

    shard-00000.h5 ...   such files, each with its own features or pictures
    manifest.json        format, version, name, rows, dtype, class_names, teacher, notes; of each shard its
                         file, rows, points, bytes and the checksums of its datasets

Shapes of all shards are one data set, in order. Their clouds need not fit into memory: they are mapped.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict, get_args

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from recon_fast.data.hdf5 import FORMAT, VERSION, Datasets
from recon_fast.data.loading import DataProblems, Progress, in_order
from recon_fast.data.readers.pictures import PackedPictures
from recon_fast.data.shapes import Conventions, Features, Problem, Scale, Shapes, Up, join_shapes
from recon_fast.errors import InputError
from recon_fast.files import open_regular
from recon_fast.schema import hdf5_attribute, open_hdf5, parse_json, read_json

SHARDS_FORMAT = "recon-fast sharded shapes"
SHARDS_VERSION = 1
MANIFEST = "manifest.json"
_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def is_packed(path: Path) -> bool:
    """Is it a file, or a folder of shards, that `pack` wrote?

    Raises:
        InputError: it is an HDF5 file, but damaged, so that nobody can tell.
    """
    if path.is_dir():
        return is_sharded(path)
    try:
        with open_regular(path) as file:
            if file.read(len(_SIGNATURE)) != _SIGNATURE:
                return False
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    with open_hdf5(path) as file:
        return _has_format(file)


def read_packed(path: Path, *, num_points: int = 1, mapped: bool = False, verify: bool = True) -> Shapes:
    """Shapes of a packed file.

    Args:
        path: a file that `pack` wrote.
        num_points: what each cloud must have at least.
        mapped: clouds, features and pictures are not read into memory, but mapped from the file. Other
            programs must not write into it meanwhile; it may be replaced.
        verify: compare the checksums of what is mapped and look for NaN, for which all of it is read once.

    Raises:
        InputError: the file is damaged (it names the dataset), of a newer version, or has smaller clouds.
    """
    with _opened(path) as file:
        get = Datasets(path, file, mapped, verify)
        text = partial(hdf5_attribute, file, kind=str, where=str(path))
        keys = get.texts("keys", "S")
        count = len(keys)
        if len(set(keys)) < count:
            raise InputError(f"{path} must have keys that differ, got some twice")
        offsets = get.offsets("offsets", count)
        smallest = int(np.diff(offsets).min()) if count else 0
        if smallest < num_points:
            raise InputError(
                f"{path} must have clouds of at least {num_points} points, got one of {smallest}; pack with "
                f"--num_points {num_points} --on_small repeat fills small ones up"
            )
        up: Any = text("up") or "unknown"
        scale: Any = text("scale") or "unknown"
        if up not in get_args(Up) or scale not in get_args(Scale):
            raise InputError(f"{path} is damaged: it states {up} as the up axis and {scale} as the scale")
        shapes = Shapes(
            name=text("name") or path.stem,
            keys=keys,
            points=get("points", (int(offsets[-1]), 3), big=True),
            offsets=offsets,
            held_out=get("held_out", (count,), "b"),
            labels=get("labels", (count,), "iu", optional=True),
            class_names=get.texts("class_names", "C"),
            captions=get.texts("captions", count) if "captions" in file else None,
            validation=get("validation", (count,), "b", optional=True),
            conventions=Conventions(up, scale),
            features=_features(path, file, get, count),
            checksum=hdf5_attribute(file["points"], "blake2b", str, str(path)),
            notes=parse_json(text("notes") or "[]", list[str], f"{path}: notes must be a list"),
        )
        if shapes.labels is not None:
            _check_range(path, "labels", shapes.labels, len(shapes.class_names))
        if "parts" in file:
            _read_parts(path, get, shapes)
        if "pictures" in file:
            starts = get.offsets("picture_offsets", count)
            shapes.pictures = PackedPictures(get("pictures", (int(starts[-1]),), "B", big=True), starts, path)
    return shapes


def _features(path: Path, file: Any, get: Datasets, count: int) -> Features | None:
    if "features" not in file:
        return None
    text = hdf5_attribute(file["features"], "teacher", str, str(path))
    teacher = parse_json(text or "", dict[str, Any], f"{path} must say of which teacher its features are")
    image = get("features/image", (count, "V", "D"), optional=True, big=True)
    texts = get("features/text", ("U", "P", "D"), optional=True, big=True)
    index = get("features/caption_index", (count,), "iu", optional=texts is None)
    if texts is not None:
        _check_range(path, "features/caption_index", index, len(texts))
    classes = get("features/class_text", ("C", "D"), optional=True)
    return Features(image=image, text=texts, caption_index=index, class_text=classes, teacher=teacher)


def _read_parts(path: Path, get: Datasets, shapes: Shapes) -> None:
    """Give shapes their parts, each of which their class must have."""
    wanted = f"{path} must list the parts of each class as whole numbers below 256"
    shapes.class_parts = [
        parse_json(text, list[Annotated[int, Meta(ge=0, lt=256)]], wanted)
        for text in get.texts("class_parts", len(shapes.class_names))
    ]
    shapes.parts = get("parts", (len(shapes.points),), "B")
    if shapes.labels is None:
        raise InputError(f"{path} must have labels, as its points have parts")
    allowed = np.zeros((len(shapes.class_parts), 256), np.bool_)
    for row, parts in zip(allowed, shapes.class_parts, strict=True):
        row[parts] = True
    if not allowed[np.repeat(shapes.labels, np.diff(shapes.offsets)), shapes.parts].all():
        raise InputError(f"{path} must have parts that its classes have, got others")


def _check_range(path: Path, name: str, values: NDArray, count: int) -> None:
    if len(values) and (values.min() < 0 or values.max() >= count):
        raise InputError(
            f"{path} must have {name} from 0 to {count - 1}, got {values.min()} to {values.max()}"
        )


def dataset_checksums(path: Path) -> dict[str, str]:
    """The checksums that a packed file carries, by dataset; what they are of is not read.

    Raises:
        InputError: the file is damaged, or not one that `pack` wrote.
    """
    names: list[str] = []
    with _opened(path) as file:
        file.visit(names.append)
        sets = {name: file[name] for name in names if hasattr(file[name], "dtype")}  # groups aside
        return {name: str(hdf5_attribute(item, "blake2b", str, str(path))) for name, item in sets.items()}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The open file, of this version of the format. Raises InputError."""
    with open_hdf5(path) as file:
        if not _has_format(file):
            raise InputError(f"{path} must be a file that `recon-fast pack` wrote, got another HDF5 file")
        if (version := hdf5_attribute(file, "version", int, str(path))) != VERSION:
            raise InputError(f"{path} must be of format version {VERSION}, got {version}")
        try:
            yield file
        except (KeyError, RuntimeError) as error:  # what h5py raises where it meets damage
            raise InputError(f"{path} is damaged: {error}") from error


def _has_format(file: Any) -> bool:
    return str(file.attrs.get("format")) == FORMAT  # whatever it is


class Shard(TypedDict):
    """What a manifest says of one of its files."""

    file: Annotated[str, Meta(pattern=r"^[^/\\\0]+\.h5$")]  # a name in the folder
    rows: Annotated[int, Meta(gt=0)]
    points: Annotated[int, Meta(gt=0)]
    bytes: Annotated[int, Meta(gt=0)]
    blake2b: dict[str, str]  # of each dataset


class Manifest(TypedDict):
    """manifest.json."""

    format: str
    version: int
    name: str
    rows: int
    dtype: str
    class_names: list[str]
    teacher: dict[str, Any] | None
    notes: NotRequired[list[str]]
    shards: Annotated[list[Shard], Meta(min_length=1)]


class _Marked(TypedDict):
    format: Literal["recon-fast sharded shapes"]
    version: int


def is_sharded(path: Path) -> bool:
    """Is it a folder of shards that `pack` wrote?"""
    if not (path / MANIFEST).is_file():
        return False
    try:
        read_json(path / MANIFEST, _Marked, "a manifest")
    except InputError:
        return False
    return True


def read_shards(folder: Path, *, num_points: int = 1) -> Shapes:
    """Shapes of all shards; clouds, features and pictures are mapped and not read.

    Args:
        folder: a folder of shards.
        num_points: what each cloud must have at least.

    Raises:
        DataProblems: shards are missing, cut off, damaged, or not those that the manifest names.
        InputError: the manifest is damaged or of a newer version, or a cloud is smaller.
    """
    manifest = verify_shards(folder, whole=False)
    sets = [
        read_packed(folder / shard["file"], num_points=num_points, mapped=True, verify=False)
        for shard in manifest["shards"]
    ]
    for shard, shapes in zip(manifest["shards"], sets, strict=True):
        if _has(shapes) != _has(sets[0]) or shapes.class_names != manifest["class_names"]:
            raise InputError(
                f"{folder} must have shards that hold the same of all shapes, with the manifest's classes; "
                f"{shard['file']} does not"
            )
    checksums = json.dumps([shard["blake2b"] for shard in manifest["shards"]])
    checksum = blake2b(checksums.encode(), digest_size=16).hexdigest()
    return join_shapes(sets, manifest["name"], manifest.get("notes", []), checksum)


def verify_shards(folder: Path, progress: Progress | None = None, whole: bool = True) -> Manifest:
    """The manifest of a folder of shards, if the files it names are there and those that were packed.

    Args:
        folder: a folder of shards.
        progress: gets (done, total) shards.
        whole: read all shards once, with as many threads as cores, and compare their checksums.

    Raises:
        DataProblems: shards are missing, cut off, damaged, or not those that the manifest names.
        InputError: the manifest is damaged or of a newer version.
    """
    what = "the manifest of a sharded set"
    version = read_json(folder / MANIFEST, _Marked, what)["version"]
    if version != SHARDS_VERSION:
        raise InputError(f"{folder} must be of format version {SHARDS_VERSION}, got {version}")
    manifest: Manifest = read_json(folder / MANIFEST, Manifest, what)

    def wrong(shard: Shard) -> str | None:
        file = folder / shard["file"]
        if not file.is_file():
            return "it is missing"
        if file.stat().st_size != shard["bytes"]:
            return f"it should have {shard['bytes']} bytes, and has {file.stat().st_size}"
        try:
            if dataset_checksums(file) != shard["blake2b"]:
                return "it is a shard of another set"
            if whole:
                read_packed(file, mapped=True)
        except InputError as error:
            return str(error)
        return None

    shards, problems = manifest["shards"], []
    for done, (shard, what_is) in enumerate(zip(shards, in_order(wrong, shards), strict=True), 1):
        if what_is is not None:
            problems.append(Problem(shard["file"], folder / shard["file"], what_is))
        if progress is not None:
            progress(done, len(shards))
    if problems:
        message = f"{len(problems)} shards of {folder} cannot be used: copy them again, or pack again"
        raise DataProblems(message, problems)
    return manifest


def _has(shapes: Shapes) -> list[Any]:
    """What all shards of a set must have alike: which optional things, and the sizes of features."""
    arrays = (shapes.labels, shapes.captions, shapes.pictures, shapes.parts, shapes.class_parts)
    features = shapes.features or Features(None, None, None, None, {})
    tables = (features.image, features.text, features.class_text)
    return [
        *(array is None for array in arrays),
        shapes.points.dtype,
        *(None if table is None else (table.shape[1:], table.dtype) for table in tables),
        None if shapes.features is None else features.teacher,
    ]
