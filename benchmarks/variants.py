"""The kernel variants that launches of the package's shapes use, as signatures for compiling ahead of time."""

from dataclasses import dataclass
from typing import Any

from recon_fast.kernels.triton import fps
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


VARIANTS = [
    _fps("fps N=1024", 128, 1024),
    _fps("fps N=1024 bf16 ragged", 128, 1024, "bf16", ragged=True),
    _fps("fps N=2048", 32, 2048),
    _fps("fps N=8192", 8, 8192),
    _fps("fps N=100k shared", 1, 100_000),
    _fps("fps N=1M shared", 1, 1_000_000),
    _fps("fps N=4M streamed", 1, 4_000_000),
]
