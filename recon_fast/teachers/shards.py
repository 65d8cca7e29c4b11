"""A folder of feature shards: append-only files that are complete or absent, each with its own checksum.

A shard is written aside and renamed, under a name nobody else uses, so killed or simultaneous writers leave
only whole shards. A shard that fails its checksum is put away, and its rows count as missing.
"""

import json
import os
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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


def _read_shard(file: Path, per_key: int, width: int | None) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    """Keys [n, 16] and features [n, per_key, D] of a shard, with D = `width` unless that is None.

    Raises SafetensorError, OSError or ValueError, which say what is wrong with it.
    """
    with safe_open(file, framework="numpy") as content:
        keys, features = content.get_tensor("keys"), content.get_tensor("features")
        stated = (content.metadata() or {}).get("checksum")
    if (keys.dtype, features.dtype, features.ndim) != (np.uint8, np.float16, 3) or (
        keys.shape != (len(features), KEY_BYTES)
        or features.shape[1] != per_key
        or width not in (None, features.shape[2])
    ):
        want = f"keys uint8 [n, {KEY_BYTES}], features float16 [n, {per_key}, {width or 'D'}]"
        got = f"{keys.dtype} {list(keys.shape)} and {features.dtype} {list(features.shape)}"
        raise ValueError(f"{want} wanted, {got} found")
    if stated != _checksum(keys, features):
        raise ValueError("its checksum does not match")
    if not np.isfinite(features).all():
        raise ValueError("its features are not finite")
    return keys, features


@dataclass
class FeatureShards:
    """Rows of features [A, D] float16 under keys of 16 bytes, for one teacher."""

    folders: Sequence[Path]  # read in this order; they need not exist
    writable: Path | None  # the folder that gets new rows; None keeps nothing
    teacher: dict[str, Any]  # what the features depend on; a teacher.json beside the shards tells people
    log: Log  # gets one line for anything unexpected

    def read(
        self, keys: Sequence[bytes], per_key: int
    ) -> tuple[NDArray[np.float16] | None, NDArray[np.bool_]]:
        """Features [U, per_key, D] of U distinct keys (None if no shard has any), and which are filled."""
        row = {key: i for i, key in enumerate(keys)}
        filled = np.zeros(len(keys), np.bool_)
        table: NDArray[np.float16] | None = None
        for file in (f for folder in self.folders for f in sorted(folder.glob("part-*.safetensors"))):
            try:
                found, features = _read_shard(file, per_key, None if table is None else table.shape[-1])
            except (SafetensorError, OSError, ValueError) as error:
                if file.exists():
                    self._put_away(file, str(error))
                continue
            wanted = [(row[key], i) for i, key in enumerate(map(bytes, found)) if key in row]
            if wanted:
                if table is None:
                    table = np.zeros((len(keys), *features.shape[1:]), np.float16)
                target, source = np.array(wanted).T
                table[target] = features[source]
                filled[target] = True
        return table, filled

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
        files = {f"part-{uuid.uuid4().hex}.safetensors": content}
        if not (self.writable / "teacher.json").exists():
            files["teacher.json"] = json.dumps(self.teacher, indent=2).encode()
        try:
            for name, data in files.items():  # aside under a name that no other writer has
                with whole_file(self.writable / name, self.writable / f".{uuid.uuid4().hex}.tmp") as aside:
                    aside.write_bytes(data)
        except OSError as error:
            self.log(f"features are no longer kept: {self.writable} cannot be written ({error.strerror})")
            self.writable = None


def user_store() -> Path:
    """Where features go when they cannot lie beside the data: $XDG_CACHE_HOME/recon-fast/features."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "recon-fast" / "features"


def folder_name(teacher: dict[str, Any]) -> str:
    """Name of the folder of features that depend on what `teacher` says."""
    model = "".join(c if c.isalnum() else "_" for c in teacher["model"])
    digest = blake2b(json.dumps(teacher, sort_keys=True).encode(), digest_size=8).hexdigest()
    return f"{teacher['kind']}-{model}-{digest}"


def open_shards(store: Path | None, teacher: dict[str, Any], log: Log) -> FeatureShards:
    """Shards of one teacher in `store`; if it cannot be written, the user's cache takes what is new."""
    if store is None:
        return FeatureShards([], None, teacher, log)
    folders = [root / folder_name(teacher) for root in (store, user_store())]
    for i, folder in enumerate(folders):
        probe = folder / f".probe-{uuid.uuid4().hex}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink()
        except OSError as error:
            log(f"feature store {folder.parent} cannot be written ({error.strerror or error})")
            log("features are kept in memory only" if i else f"new features are kept in {user_store()}")
        else:
            return FeatureShards(folders[: i + 1], folder, teacher, log)
    return FeatureShards(folders, None, teacher, log)
