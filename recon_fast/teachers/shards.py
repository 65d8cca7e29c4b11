"""A folder of feature shards: append-only files that are complete or absent, each with its own checksum.

A shard is written aside and renamed, under a name nobody else uses, so killed or simultaneous writers leave
only whole shards. A shard that fails its checksum is put away, and its rows count as missing.
"""

import json
import os
import uuid
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from recon_fast.files import whole_file

KEY_BYTES = 16
Log = Callable[[str], None]


def _checksum(keys: NDArray[np.uint8], features: NDArray[np.float16]) -> str:
    state = blake2b(np.ascontiguousarray(keys).data, digest_size=16)
    state.update(np.ascontiguousarray(features).data)
    return state.hexdigest()


class FeatureShards:
    """Rows of features [A, D] float16 under keys of 16 bytes, for one teacher.

    Args:
        folders: read in this order; they need not exist.
        writable: the folder that gets new rows; None keeps nothing.
        log: gets one line for anything unexpected.
    """

    def __init__(self, folders: Sequence[Path], writable: Path | None, log: Log) -> None:
        self.folders = list(folders)
        self.writable = writable
        self.log = log

    def read(
        self, keys: Sequence[bytes], per_key: int
    ) -> tuple[NDArray[np.float16] | None, NDArray[np.bool_]]:
        """Features [U, per_key, D] of U distinct keys (None if no shard has any), and which are filled."""
        row = {key: i for i, key in enumerate(keys)}
        filled = np.zeros(len(keys), np.bool_)
        features: NDArray[np.float16] | None = None
        for file in (f for folder in self.folders for f in sorted(folder.glob("part-*.safetensors"))):
            part = self._read_part(file, per_key)
            if part is None:
                continue
            if features is not None and part[1].shape[1:] != features.shape[1:]:
                self._put_away(file, f"features {list(part[1].shape)} among others of another width")
                continue
            wanted = [(row[key], i) for i, key in enumerate(part[0]) if key in row]
            if not wanted:
                continue
            if features is None:
                features = np.zeros((len(keys), *part[1].shape[1:]), np.float16)
            target, source = np.array(wanted).T
            features[target] = part[1][source]
            filled[target] = True
        return features, filled

    def _read_part(self, file: Path, per_key: int) -> tuple[list[bytes], NDArray[np.float16]] | None:
        try:
            with safe_open(file, framework="numpy") as content:
                keys, features = content.get_tensor("keys"), content.get_tensor("features")
                stated = (content.metadata() or {}).get("checksum")
        except (SafetensorError, OSError, ValueError) as error:
            if file.exists():
                self._put_away(file, str(error))
            return None
        why = None
        if features.ndim != 3 or features.shape[1] != per_key or features.dtype != np.float16:
            why = f"features [n, {per_key}, D] float16 wanted, {features.dtype} {list(features.shape)} found"
        elif keys.shape != (len(features), KEY_BYTES) or keys.dtype != np.uint8:
            why = f"keys [{len(features)}, {KEY_BYTES}] uint8 wanted, {keys.dtype} {list(keys.shape)} found"
        elif stated != _checksum(keys, features):
            why = "its checksum does not match"
        elif not np.isfinite(features).all():
            why = "its features are not finite"
        if why is not None:
            self._put_away(file, why)
            return None
        return [key.tobytes() for key in keys], features

    def _put_away(self, file: Path, why: str) -> None:
        self.log(f"feature shard {file} is damaged ({why}); its features are computed again")
        try:
            file.rename(file.with_suffix(".damaged"))
        except OSError:
            self.log(f"{file} cannot be renamed and stays where it is")

    def append(self, keys: Sequence[bytes], features: NDArray[np.float16]) -> None:
        """Keep rows [n, A, D]. A folder that cannot be written any more is reported once and left alone."""
        if self.writable is None or not keys:
            return
        packed = np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), KEY_BYTES)
        content = save({"keys": packed, "features": features}, {"checksum": _checksum(packed, features)})
        self._write(f"part-{uuid.uuid4().hex}.safetensors", content)

    def describe(self, teacher: dict[str, Any]) -> None:
        """Say in a teacher.json beside the shards, for people, which teacher made them."""
        if self.writable is not None and not (self.writable / "teacher.json").exists():
            self._write("teacher.json", json.dumps(teacher, indent=2).encode())

    def _write(self, name: str, content: bytes) -> None:
        if self.writable is not None:
            try:
                write_aside(self.writable / name, content)
            except OSError as error:
                self.log(f"features are no longer kept: {self.writable} cannot be written ({error.strerror})")
                self.writable = None


def write_aside(file: Path, content: bytes) -> None:
    """Write a file, whole or absent at any moment, under a name that no other writer has until then."""
    with whole_file(file, file.with_name(f".{file.name}.{uuid.uuid4().hex}")) as aside:
        aside.write_bytes(content)


def user_store() -> Path:
    """Where features go when they cannot lie beside the data: $XDG_CACHE_HOME/recon-fast/features."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "recon-fast" / "features"


def open_shards(store: Path | None, name: str, log: Log) -> FeatureShards:
    """Shards of one teacher in `store`; if it cannot be written, the user's cache takes what is new."""
    if store is None:
        return FeatureShards([], None, log)
    folders = []
    for root in (store, user_store()):
        folder = root / name
        folders.append(folder)
        reason = _not_writable(folder)
        if reason is None:
            if root != store:
                log(f"new features are kept in {root}")
            return FeatureShards(folders, folder, log)
        log(
            f"feature store {root} cannot be written ({reason})"
            + (f"; using {user_store()}" if root == store else "")
        )
    log("features are kept in memory only")
    return FeatureShards(folders, None, log)


def _not_writable(folder: Path) -> str | None:
    probe = folder / f".probe-{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        return error.strerror or str(error)
    return None
