"""A data set in many packed files: a folder with a manifest, whole or absent, packed shard by shard.

    shard-00000.h5 ...   packed files (`recon_fast.data.packed`), each with its own features or pictures
    manifest.json        format, version, name, rows, dtype, class_names, teacher, notes; of each shard its
                         file, rows, points, bytes and the checksums of its datasets

Shapes of all shards are one data set, in order. Their clouds need not fit into memory: they are mapped.
"""

import json
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict, TypeVar

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from recon_fast.data.loading import Progress, in_order, problem_table
from recon_fast.data.packed import dataset_checksums, is_packed, read_packed
from recon_fast.data.readers.pictures import JoinedPictures
from recon_fast.data.rows import Joined
from recon_fast.data.shapes import Conventions, Features, Problem, Shapes
from recon_fast.errors import InputError
from recon_fast.schema import read_json

FORMAT = "recon-fast sharded shapes"
VERSION = 1
MANIFEST = "manifest.json"
T = TypeVar("T")


class ShardProblems(InputError):
    """Shards that cannot be used, all of them.

    Attributes:
        problems: one for each file.
        table: the same as text, for people.
    """

    def __init__(self, folder: Path, problems: Sequence[Problem]) -> None:
        super().__init__(f"{len(problems)} shards of {folder} cannot be used: copy them again, or pack again")
        self.problems = list(problems)
        self.table = problem_table(problems)


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
    """Is the folder one that `pack_shards` wrote?"""
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
        folder: a folder that `pack_shards` wrote.
        num_points: what each cloud must have at least.

    Raises:
        ShardProblems: shards are missing, cut off, damaged, or not those that the manifest names.
        InputError: the manifest is damaged or of a newer version, or a cloud is smaller.
    """
    manifest = _manifest(folder)
    _check_all(folder, manifest, lambda shard: _check(folder, shard))
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
    return _join(manifest, sets)


def open_packed(path: Path, *, num_points: int = 1) -> Shapes | None:
    """Shapes, mapped, of a packed file or a folder of shards; None where `path` is neither.

    Raises:
        InputError: as `read_packed` and `read_shards`.
    """
    if path.is_file() and is_packed(path):
        return read_packed(path, num_points=num_points, mapped=True)
    return read_shards(path, num_points=num_points) if is_sharded(path) else None


def verify_shards(folder: Path, progress: Progress | None = None) -> None:
    """Read all shards once, with as many threads as cores, and compare their checksums.

    Args:
        folder: a folder that `pack_shards` wrote.
        progress: gets (done, total) shards.

    Raises:
        ShardProblems: shards are missing, cut off, damaged, or not those that the manifest names.
        InputError: the manifest is damaged or of a newer version.
    """
    manifest = _manifest(folder)

    def verify(shard: Shard) -> None:
        _check(folder, shard)
        read_packed(folder / shard["file"], mapped=True)

    _check_all(folder, manifest, verify, progress)


def _manifest(folder: Path) -> Manifest:
    file, what = folder / MANIFEST, "the manifest of a sharded set"
    version = read_json(file, _Marked, what)["version"]
    if version != VERSION:
        raise InputError(f"{folder} must be of format version {VERSION}, got {version}")
    manifest: Manifest = read_json(file, Manifest, what)
    return manifest


def _check(folder: Path, shard: Shard) -> None:
    """Raise InputError unless the shard's file is there, whole, and the one that was packed."""
    file = folder / shard["file"]
    if not file.is_file():
        raise InputError("it is missing")
    if file.stat().st_size != shard["bytes"]:
        raise InputError(f"it should have {shard['bytes']} bytes, and has {file.stat().st_size}")
    if dataset_checksums(file) != shard["blake2b"]:
        raise InputError("it is a shard of another set")


def _check_all(
    folder: Path,
    manifest: Manifest,
    check: Callable[[Shard], None],
    progress: Progress | None = None,
) -> None:
    """Raise ShardProblems if `check` raises InputError for some shards."""

    def what(shard: Shard) -> str | None:
        try:
            check(shard)
        except InputError as error:
            return str(error)
        return None

    shards = manifest["shards"]
    problems = []
    for done, (shard, found) in enumerate(zip(shards, in_order(what, shards), strict=True), 1):
        if found is not None:
            problems.append(Problem(shard["file"], folder / shard["file"], found))
        if progress is not None:
            progress(done, len(shards))
    if problems:
        raise ShardProblems(folder, problems)


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


def _join(manifest: Manifest, sets: list[Shapes]) -> Shapes:
    """One set of several, whose shards have the same things each."""

    def lists(get: Callable[[Shapes], list[T] | None]) -> list[T] | None:
        parts = [get(shapes) for shapes in sets]
        return None if parts[0] is None else [item for part in parts for item in part or []]

    def rows(get: Callable[[Shapes], NDArray | None]) -> NDArray | None:
        parts = [part for part in map(get, sets) if part is not None]
        return np.concatenate(parts) if parts else None

    points = [shapes.points for shapes in sets if isinstance(shapes.points, np.ndarray)]
    starts = np.cumsum([0] + [len(part) for part in points])
    offsets = [shapes.offsets[:-1] + start for shapes, start in zip(sets, starts, strict=False)]
    pictures = [shapes.pictures for shapes in sets if shapes.pictures is not None]
    checksums = json.dumps([shard["blake2b"] for shard in manifest["shards"]])
    return Shapes(
        name=manifest["name"],
        keys=[key for shapes in sets for key in shapes.keys],
        points=Joined(points),
        offsets=np.concatenate([*offsets, starts[-1:]]),
        held_out=np.concatenate([shapes.held_out for shapes in sets]),
        labels=rows(lambda shapes: shapes.labels),
        class_names=manifest["class_names"],
        captions=lists(lambda shapes: shapes.captions),
        pictures=JoinedPictures(pictures) if pictures else None,
        validation=rows(lambda shapes: shapes.validation),
        parts=rows(lambda shapes: shapes.parts),
        class_parts=sets[0].class_parts,
        conventions=Conventions(
            sets[0].conventions.up,
            sets[0].conventions.scale if len({shapes.conventions.scale for shapes in sets}) == 1 else "raw",
        ),
        features=_join_features([shapes.features for shapes in sets if shapes.features is not None]),
        checksum=blake2b(checksums.encode(), digest_size=16).hexdigest(),
        notes=manifest.get("notes", []),
    )


def _join_features(parts: list[Features]) -> Features | None:
    if not parts:
        return None
    images = [part.image for part in parts if isinstance(part.image, np.ndarray)]
    texts = [part.text for part in parts if isinstance(part.text, np.ndarray)]
    rows = np.cumsum([0] + [len(text) for text in texts])
    index = [
        part.caption_index + start
        for part, start in zip(parts, rows, strict=False)
        if part.caption_index is not None
    ]
    return Features(
        image=Joined(images) if images else None,
        text=Joined(texts) if texts else None,
        caption_index=np.concatenate(index) if index else None,
        class_text=parts[0].class_text,
        teacher=parts[0].teacher,
    )
