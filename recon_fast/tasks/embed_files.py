"""Features of clouds in files: made, written beside their place and renamed, read again.

A file, HDF5 or npz, holds

features     [S, D] float32
keys         [S] text
held_out     [S] bool
labels       [S] int64, class_names [C] text     where all shapes have labels
captions     [S] text                            where all have captions
attributes   JSON text: format, kind, checkpoint, teacher, versions, sources and how they were read; what is
             short is an attribute of an HDF5 file too
"""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict
from zipfile import BadZipFile, ZipFile

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from recon_fast.config.frozen import EmbedConfig
from recon_fast.console import say
from recon_fast.data.shapes import Shapes
from recon_fast.errors import InputError
from recon_fast.files import whole_file
from recon_fast.schema import hdf5_array, open_hdf5, parse_json
from recon_fast.tasks.cloud_sets import open_clouds
from recon_fast.tasks.embed import describe_encoder, embed_in_turn, open_encoder, warn_of_conventions
from recon_fast.training.record import versions

FORMAT = "recon-fast features"
HDF5, NPZ = (".h5", ".hdf5"), ".npz"
_SHORT = 4096  # HDF5 has room for 64 KiB of attributes


class _Attributes(TypedDict):
    format: Literal["recon-fast features"]
    kind: str
    num_points: NotRequired[int]
    sources: NotRequired[list[str]]
    reading: NotRequired[dict[str, Any]]
    teacher: NotRequired[dict[str, Any] | None]
    checkpoint: NotRequired[str | None]
    checkpoint_sha256: NotRequired[str | None]


@dataclass
class FeatureSet:
    """Features of S shapes, and what is known of them."""

    features: NDArray[np.float32]  # [S, D]
    keys: list[str]
    held_out: NDArray[np.bool_]  # [S]
    labels: NDArray[np.int64] | None = None  # [S]
    class_names: list[str] = field(default_factory=list)
    captions: list[str] | None = None
    attributes: dict[str, Any] = field(default_factory=dict)

    def class_of(self, row: int) -> str:
        """Name of a shape's class, or nothing."""
        return "" if self.labels is None else self.class_names[int(self.labels[row])]


def check_feature_file(out: Path, overwrite: bool) -> None:
    """Raise InputError unless `out` may become a file of features."""
    if out.suffix.lower() not in (*HDF5, NPZ):
        raise InputError(f"out must be a file .h5, .hdf5 or .npz, got {out}")
    if not out.parent.is_dir():
        raise InputError(f"out must lie in a folder that exists, got {out}")
    if out.is_dir() or (out.exists() and not overwrite):
        what = "it is a folder" if out.is_dir() else "it exists (--overwrite true replaces it)"
        raise InputError(f"out must be a new file, got {out}: {what}")


@dataclass
class Embedded:
    """What was written."""

    out: Path
    shapes: int
    dim: int
    seconds: float  # of encoding and writing

    def summary(self) -> str:
        """A line for people."""
        rate = self.shapes / max(self.seconds, 1e-9)
        return f"{self.out}: {self.shapes} shapes, {self.dim} numbers each, {rate:.3g} shapes/s"


def embed_files(
    clouds: Sequence[str | Path],
    out: str | Path,
    config: EmbedConfig | None = None,
    console: Console | None = None,
) -> Embedded:
    """Features of all clouds of files, folders and packed sets, written to `out` whole or not at all.

    All clouds are checked before the first is encoded; a few batches are in memory at a time.

    Args:
        clouds: see `recon_fast.tasks.cloud_sets.open_clouds`.
        out: .h5, .hdf5 or .npz. An npz is in memory until it is written.
        config: settings.
        console: where lines and bars go; stderr by default.

    Raises:
        DataProblems: a table of all broken clouds, unless they may be skipped.
        InputError: the checkpoint has no such features, nothing to embed, or `out` may not be written.
    """
    config, console = config or EmbedConfig(), console or Console(stderr=True)
    out = Path(out).expanduser()
    check_feature_file(out, config.overwrite)
    encoder = open_encoder(config.checkpoint, config, console)
    encoder.head(config.kind)
    found = open_clouds(clouds, config.data, encoder.least_points, console)
    warn_of_conventions(found.shapes, encoder, console)
    text = f"{len(found)} clouds of {found.shapes.name}, {config.kind}, {str(encoder.dtype)[6:]} on "
    say(console, f"{text}{encoder.device}")
    began = time.monotonic()
    read = found.read(range(len(found)))
    blocks = embed_in_turn(encoder, read, len(found), config, console, config.kind)
    about = {
        "format": FORMAT,
        "kind": config.kind,
        **describe_encoder(encoder),
        "num_points": config.data.num_points or encoder.usual_points,
        "teacher": encoder.teacher,
        "sources": [str(Path(path).expanduser().absolute()) for path in clouds],
        "reading": asdict(config.data),
        "versions": versions(),
    }
    dim = write_features(out, found.shapes, blocks, about)
    return Embedded(out, len(found), dim, time.monotonic() - began)


def embed_set(
    clouds: Sequence[str | Path] | Shapes, config: EmbedConfig | None = None, console: Console | None = None
) -> FeatureSet:
    """Features of all clouds of files, folders and packed sets, or of shapes in memory.

    Args:
        clouds: shapes, or what `recon_fast.tasks.cloud_sets.open_clouds` takes.
        config: settings.
        console: where lines and bars go; stderr by default.

    Raises:
        DataProblems, InputError: as `embed_files`.
    """
    config, console = config or EmbedConfig(), console or Console(stderr=True)
    encoder = open_encoder(config.checkpoint, config, console)
    encoder.head(config.kind)
    if isinstance(clouds, Shapes):
        shapes = clouds
        read: Iterable[NDArray] = map(shapes.cloud, range(len(shapes)))
    else:
        found = open_clouds(clouds, config.data, encoder.least_points, console)
        shapes, read = found.shapes, found.read(range(len(found)))
    warn_of_conventions(shapes, encoder, console)
    features = np.concatenate(list(embed_in_turn(encoder, read, len(shapes), config, console, config.kind)))
    return FeatureSet(
        features, shapes.keys, shapes.held_out, shapes.labels, shapes.class_names, shapes.captions
    )


def write_features(
    out: Path, shapes: Shapes, blocks: Iterable[NDArray[np.float32]], attributes: dict[str, Any]
) -> int:
    """Write features that come in blocks [n, D] of all shapes in order; returns D.

    Raises:
        InputError: the file cannot be written. Nothing is left of it then, nor where `blocks` raises.
    """
    columns: dict[str, Any] = {"keys": shapes.keys, "held_out": shapes.held_out}
    if shapes.labels is not None:
        columns |= {"labels": shapes.labels, "class_names": shapes.class_names}
    if shapes.captions is not None:
        columns["captions"] = shapes.captions
    columns["attributes"] = json.dumps(attributes)
    try:
        with whole_file(out) as aside:
            if out.suffix.lower() != NPZ:
                return _write_hdf5(aside, len(shapes), blocks, columns, attributes)
            columns["features"] = np.concatenate(list(blocks))
            with aside.open("wb") as file:
                np.savez(file, **columns)  # lists of texts become arrays of them
            return columns["features"].shape[1]
    except OSError as error:
        raise InputError(f"out must be a file that can be written, got {out}: {error}") from error


def _write_hdf5(
    path: Path,
    count: int,
    blocks: Iterable[NDArray[np.float32]],
    columns: dict[str, Any],
    attributes: dict[str, Any],
) -> int:
    import h5py

    dim = done = 0
    with h5py.File(path, "w") as file:
        for block in blocks:
            if "features" not in file:
                dim = block.shape[1]
                file.create_dataset("features", (count, dim), np.float32)
            file["features"][done : done + len(block)] = block
            done += len(block)
        for name, values in columns.items():
            dtype = h5py.string_dtype() if isinstance(values, list) else None
            file.create_dataset(name, data=values, dtype=dtype)
        for name, value in attributes.items():
            text = value if isinstance(value, str) else json.dumps(value)
            if len(text) < _SHORT:
                file.attrs[name] = text
    return dim


def is_feature_file(path: Path) -> bool:
    """Whether a file looks like one that `write_features` wrote."""
    if not path.is_file() or path.suffix.lower() not in (*HDF5, NPZ):
        return False
    if path.suffix.lower() == NPZ:
        try:
            with ZipFile(path) as archive:
                return "attributes.npy" in archive.namelist()
        except (OSError, BadZipFile):
            return False
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return file.attrs.get("format") == FORMAT
    except OSError:
        return False


def read_features(path: Path) -> FeatureSet:
    """The features of a file. Raises InputError where it is damaged or of another kind."""
    if path.suffix.lower() != NPZ:
        with open_hdf5(path) as file:
            return _checked(path, partial(_hdf5_array, file))
    try:
        with path.open("rb") as opened, np.load(opened) as file:
            return _checked(path, partial(_npz_array, path, file))
    except (OSError, ValueError, TypeError, EOFError, BadZipFile) as error:  # TypeError: one array
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} must be a file that `recon-fast embed` wrote: {error}") from error


def _hdf5_array(file: Any, name: str, shape: tuple[int | str, ...], kinds: str) -> Any:
    """An array or a list of texts; None where there is none."""
    dataset = hdf5_array(file, name, shape, kinds, optional=True)
    if dataset is None or kinds != "O":
        return None if dataset is None else dataset[()]
    try:
        texts = dataset.asstr()[()]
    except (OSError, ValueError) as error:
        raise InputError(f"{file.filename} must have texts in UTF-8 in {name}: {error}") from error
    return texts.tolist() if shape else texts


def _npz_array(path: Path, file: Any, name: str, shape: tuple[int | str, ...], kinds: str) -> Any:
    """The same of an npz."""
    if name not in file:
        return None
    array = file[name]
    fits = array.ndim == len(shape) and all(
        want == size for want, size in zip(shape, array.shape, strict=True) if isinstance(want, int)
    )
    if not fits or array.dtype.kind not in kinds.replace("O", "U"):
        raise InputError(
            f"{path} must have {name} [{', '.join(map(str, shape))}], got {array.dtype} {list(array.shape)}"
        )
    return array if kinds != "O" else array.tolist()


def _checked(path: Path, get: Callable[[str, tuple[int | str, ...], str], Any]) -> FeatureSet:
    """All that a file has, by `get(name, shape, kinds)`. Raises InputError where it does not fit together."""
    features, attributes = get("features", ("S", "D"), "f"), get("attributes", (), "O")
    if features is None or attributes is None:
        raise InputError(f"{path} must be a file that `recon-fast embed` wrote, with features and attributes")
    stated = parse_json(attributes, _Attributes, f"{path} must be a file that `recon-fast embed` wrote")
    count = len(features)
    keys, held_out = get("keys", (count,), "O"), get("held_out", (count,), "b")
    if keys is None or held_out is None:
        raise InputError(f"{path} must have keys and held_out of its {count} features")
    labels, names = get("labels", (count,), "iu"), get("class_names", ("C",), "O") or []
    if not np.isfinite(features).all():
        raise InputError(f"{path} must have finite features, got NaN or inf")
    if labels is not None and count and not (labels.min() >= 0 and labels.max() < len(names)):
        raise InputError(f"{path} must have labels below its {len(names)} classes, got {labels.max()}")
    captions = get("captions", (count,), "O")
    return FeatureSet(
        features.astype(np.float32, copy=False), keys, held_out, labels, names, captions, stated
    )
