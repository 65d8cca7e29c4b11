"""The kernel variants that launches of the package's shapes use, as signatures for compiling ahead of time."""

from dataclasses import dataclass
from typing import Any

from recon_fast.kernels.triton import fps, knn
from recon_fast.kernels.triton._common import NO_CONTRACTION


@dataclass(frozen=True)
class Variant:
    """A kernel with everything fixed that a launch fixes."""

    name: str
    kernel: Any
    signature: dict[str, Any]  # arguments that are neither constants nor None
    constants: dict[str, Any]
    options: dict[str, Any]


CLOUD = ("i32", "i32", "constexpr")  # strides of a contiguous [B, N, 3]


def _split(config: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Kernel constants and compiler options of a launch configuration."""
    constants = {name: value for name, value in config.items() if name.isupper()}
    return constants, {name: value for name, value in config.items() if not name.isupper()}


def _fps(name: str, B: int, N: int, dtype: str = "fp32", ragged: bool = False) -> Variant:
    constants, options = _split(fps.fps_config(B, N, processors=132))
    signature = {
        "xyz_ptr": f"*{dtype}",
        "idx_ptr": "*i64",
        "B": "i32",
        "N": "i32",
        "num_samples": "i32",
        "start_index": "i32",
        "strides": CLOUD,
    }
    if ragged:
        signature["lengths_ptr"] = "*i64"
    if constants["PROGRAMS"] > 1:
        signature["slots_ptr"] = "*i64"
        options["launch_cooperative_grid"] = True
    if constants["STREAM"]:
        signature["dist_ptr"] = "*fp32"
    constants["SKIP_NEAR_ORIGIN"] = ragged
    return Variant(name, fps._fps_kernel, signature, constants, options | NO_CONTRACTION)


def _knn(name: str, B: int, M: int, N: int, k: int, dtype: str = "fp32", grouped: bool = False) -> Variant:
    constants, options = _split(knn.knn_config(B, M, N, k, processors=132))
    signature = {
        "query_ptr": f"*{dtype}",
        "points_ptr": f"*{dtype}",
        "rows_ptr": "*i64",
        "dist_ptr": "*fp32",
        "idx_ptr": "*i64",
        "M": "i32",
        "N": "i32",
        "k": "i32",
        "row_size": "i32",
        "query_strides": CLOUD,
        "point_strides": CLOUD,
    }
    if grouped:
        signature |= {"query_idx_ptr": "*i64", "lengths_ptr": "*i64", "offset_ptr": "*fp32"}
    return Variant(name, knn._knn_kernel, signature, constants, options | NO_CONTRACTION)


def _merge(name: str, k: int, splits: int) -> Variant:
    knn_signature = _knn(name, 1, 1, 1, k).signature
    signature = {arg: kind for arg, kind in knn_signature.items() if arg != "N"}
    constants, options = {"K": k, "SPLITS": splits}, knn.merge_options(k, splits)
    return Variant(name, knn._merge_kernel, signature, constants, options | NO_CONTRACTION)


VARIANTS = [
    _fps("fps N=1024", 128, 1024),
    _fps("fps N=1024 bf16 ragged", 128, 1024, "bf16", ragged=True),
    _fps("fps N=2048", 32, 2048),
    _fps("fps N=8192", 8, 8192),
    _fps("fps N=100k shared", 1, 100_000),
    _fps("fps N=1M shared", 1, 1_000_000),
    _fps("fps N=4M streamed", 1, 4_000_000),
    _knn("knn N=1024 k=32", 128, 64, 1024, 32),
    _knn("group N=1024 k=32 bf16 ragged", 128, 64, 1024, 32, "bf16", grouped=True),
    _knn("knn N=2048 k=16", 32, 512, 2048, 16),
    _knn("knn N=100k k=32", 1, 4096, 100_000, 32),
    _knn("knn N=100k k=1024", 1, 4096, 100_000, 1024),
    _merge("knn merge k=32", 32, 64),
]
