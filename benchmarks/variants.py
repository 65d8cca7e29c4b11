"""The kernel variants that the package's shapes launch, as signatures for compiling ahead of time."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch

from recon_fast.kernels.triton._common import NO_CONTRACTION
from recon_fast.kernels.triton.attention import _backward_kernel, _forward_kernel, attention_config
from recon_fast.kernels.triton.chamfer import _chamfer_pairs_kernel, chamfer_config
from recon_fast.kernels.triton.fps import _fps_kernel, fps_config
from recon_fast.kernels.triton.knn import _knn_kernel, _merge_kernel, knn_config, merge_options

ball = import_module("recon_fast.kernels.triton.ball")
features = import_module("recon_fast.kernels.triton.features")
gradient = import_module("recon_fast.kernels.triton.gradient")
nearest = import_module("recon_fast.kernels.triton.nearest")


@dataclass(frozen=True)
class Variant:
    """A kernel with everything fixed that a launch fixes."""

    name: str
    kernel: Any
    signature: dict[str, Any]  # arguments that are neither constants nor None
    constants: dict[str, Any]
    options: dict[str, Any]
    aligned_strides: bool = False  # multiples of 16, which widens loads


CLOUD = ("i32", "i32", "constexpr")  # strides of a contiguous [B, N, 3]


def _split(config: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Kernel constants and compiler options of a launch configuration."""
    constants = {name: value for name, value in config.items() if name.isupper()}
    return constants, {name: value for name, value in config.items() if not name.isupper()}


def _fps(name: str, B: int, N: int, dtype: str = "fp32", ragged: bool = False, hip: bool = False) -> Variant:
    constants, options = _split(fps_config(B, N, processors=132, hip=hip))
    del options["programs"]
    signature = {
        "xyz_ptr": f"*{dtype}",
        "idx_ptr": "*i64",
        "B": "i32",
        "N": "i32",
        "num_samples": "i32",
        "start_index": "i32",
        "programs": "i32",
        "strides": CLOUD,
    }
    if ragged:
        signature["lengths_ptr"] = "*i64"
    if constants["SHARED"]:
        signature["slots_ptr"] = "*i64"
        options["launch_cooperative_grid"] = True
    if constants["STREAM"]:
        signature |= {"points_ptr": "*fp32", "dist_ptr": "*fp32", "tiles_ptr": "*fp32"}
    constants |= {"SKIP_NEAR_ORIGIN": ragged}
    return Variant(name, _fps_kernel, signature, constants, options | NO_CONTRACTION)


def _knn(name: str, B: int, M: int, N: int, k: int, dtype: str = "fp32", grouped: bool = False) -> Variant:
    constants, options = _split(knn_config(B, M, N, k, processors=132))
    signature = {
        "query_ptr": f"*{dtype}",
        "points_ptr": f"*{dtype}",
        "rows_ptr": "*i64",
        "idx_ptr": "*i64",
        "M": "i32",
        "N": "i32",
        "k": "i32",
        "row_size": "i32",
        "query_strides": CLOUD,
        "point_strides": CLOUD,
    }
    if grouped:
        signature |= {"query_idx_ptr": "*i64", "lengths_ptr": "*i64"}
        signature |= {"center_ptr": "*fp32", "offset_ptr": "*fp32"}
    else:
        signature["dist_ptr"] = "*fp32"
    return Variant(name, _knn_kernel, signature, constants, options | NO_CONTRACTION)


def _merge(name: str, k: int, splits: int) -> Variant:
    knn_signature = _knn(name, 1, 1, 1, k).signature
    signature = {arg: kind for arg, kind in knn_signature.items() if arg != "N"}
    constants, options = {"K": k, "SPLITS": splits}, merge_options(k, splits)
    return Variant(name, _merge_kernel, signature, constants, options | NO_CONTRACTION)


def _ball(name: str, dtype: str = "fp32", ragged: bool = False) -> Variant:
    signature = {
        "query_ptr": f"*{dtype}",
        "points_ptr": f"*{dtype}",
        "dist_ptr": "*fp32",
        "idx_ptr": "*i64",
        "M": "i32",
        "N": "i32",
        "k": "i32",
        "radius": "fp32",
        "query_strides": CLOUD,
        "point_strides": CLOUD,
    }
    if ragged:
        signature["lengths_ptr"] = "*i64"
    constants, options = _split(ball.ball_config())
    constants["FIRST"] = ragged
    return Variant(name, ball._ball_kernel, signature, constants, options)


def _features(name: str, kind: str, dtype: str = "fp32", weighted: bool = False) -> Variant:
    constants, options = _split(getattr(features, kind.upper()))
    signature: dict[str, Any] = {"out_ptr": f"*{dtype}", **dict.fromkeys("CNMK", "i32")}
    if kind == "sum":
        signature |= {"features_ptr": f"*{dtype}", "idx_ptr": "*i32", "strides": CLOUD}
    elif kind == "scatter":
        signature |= {"values_ptr": f"*{dtype}", "strides": CLOUD}
        signature |= {"entries_ptr": "*i64", "ends_ptr": "*i64"}
    else:
        signature |= {"values_ptr": f"*{dtype}", "features_ptr": f"*{dtype}", "idx_ptr": "*i64"}
        signature |= {"value_strides": CLOUD, "feature_strides": CLOUD, "out_ptr": "*fp32"}
    if weighted:
        signature["weights_ptr"] = "*fp32"
    return Variant(name, getattr(features, f"_{kind}_kernel"), signature, constants, options)


def _nearest(
    name: str,
    dtype: str = "fp32",
    ragged: bool = False,
    both: bool = False,
    splits: int = 1,
    merge: bool = False,
) -> Variant:
    signature = {
        "src_ptr": f"*{dtype}",
        "dst_ptr": f"*{dtype}",
        "dist_ptr": "*fp32",
        "idx_ptr": "*i64",
        "N": "i32",
        "M": "i32",
        "src_strides": CLOUD,
        "dst_strides": CLOUD,
    }
    if ragged:
        signature |= {"src_lengths_ptr": "*i64", "dst_lengths_ptr": "*i64"}
    if both:
        signature |= {"back_dist_ptr": "*fp32", "back_idx_ptr": "*i64"}
    if splits > 1:
        signature["keys_ptr"] = "*i64"
    constants: dict[str, Any] = {"BOTH": both, "SPLITS": splits, "BLOCK_N": nearest.BLOCK_N}
    if merge:
        return Variant(name, nearest._merge_kernel, signature, constants, {"num_warps": 1, **NO_CONTRACTION})
    constants["BLOCK_M"] = nearest.BLOCK_M
    options = {"num_warps": nearest.NUM_WARPS, **NO_CONTRACTION}
    return Variant(name, nearest._nearest_kernel, signature, constants, options)


def _chamfer(name: str, N: int, M: int, root: bool = False, grads: str = "") -> Variant:
    constants, options = _split(chamfer_config(N, M))
    signature = {
        "pred_ptr": "*fp32",
        "target_ptr": "*fp32",
        "loss_ptr": "*fp32",
        "B": "i32",
        "N": "i32",
        "M": "i32",
        "pred_strides": CLOUD,
        "target_strides": CLOUD,
    }
    signature |= {f"grad_{cloud}_ptr": "*fp32" for cloud in grads.split()}
    constants["ROOT"] = root
    return Variant(name, _chamfer_pairs_kernel, signature, constants, options | NO_CONTRACTION)


def _gradient(name: str, dtype: str = "fp32", chamfer: bool = False, ragged: bool = False) -> Variant:
    signature: dict[str, Any] = {
        "src_ptr": f"*{dtype}",
        "dst_ptr": f"*{dtype}",
        "idx_ptr": "*i64",
        "grad_src_ptr": f"*{dtype}",
        "grad_dst_ptr": f"*{dtype}",
        "N": "i32",
        "M": "i32",
        "K": "i32",
        "src_strides": CLOUD,
        "dst_strides": CLOUD,
        "grad_strides": CLOUD,
    }
    if ragged:
        signature |= {"src_lengths_ptr": "*i64", "dst_lengths_ptr": "*i64"}
    signature |= {"back_idx_ptr": "*i64"} if chamfer else {"grad_ptr": "*fp32"}
    constants, options = _split(gradient.gradient_config())
    constants["ROOT"] = chamfer
    return Variant(name, gradient._gradient_kernel, signature, constants, options)


def _group_gradient(name: str) -> Variant:
    signature = {"center_idx_ptr": "*i64", "neighbor_idx_ptr": "*i64"}
    signature |= {f"{cloud}_ptr": "*fp32" for cloud in ("grad_centers", "grad_neighbors", "out")}
    signature |= dict.fromkeys("NGK", "i32")
    return Variant(name, gradient._group_kernel, signature, *_split(gradient.gradient_config()))


DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
ROWS = ("i32", "i32", "i32", "constexpr")  # strides of a [B, H, S, D] that is contiguous in D


def _attention(
    name: str, Q: int, S: int, D: int, dtype: str, backward: bool = False, key_grad: bool = False
) -> Variant:
    constants, options = _split(attention_config(Q, S, D, DTYPES[dtype], backward))
    signature: dict[str, Any] = {f"{arg}_ptr": f"*{dtype}" for arg in ("query", "key", "value", "out")}
    signature |= {"mask_ptr": "*u8", "lse_ptr": "*fp32", "scale": "fp32", "H": "i32", "Q": "i32", "S": "i32"}
    signature |= {"query_strides": ROWS, "key_strides": ROWS, "value_strides": ROWS}
    signature["mask_strides"] = ("i32", "constexpr")
    kernel = _forward_kernel
    if backward:
        kernel = _backward_kernel
        over_keys = key_grad and constants["BLOCK_Q"] < Q
        constants["OVER_KEYS"] = over_keys
        signature |= {"grad_ptr": f"*{dtype}", "grad_strides": ROWS}
        signature |= {} if over_keys else {"dq_ptr": f"*{dtype}"}
        signature |= {"dk_ptr": f"*{dtype}", "dv_ptr": f"*{dtype}"} if key_grad else {}
    return Variant(name, kernel, signature, constants, options, aligned_strides=True)


VARIANTS = [
    _fps("fps N=1024", 128, 1024),
    _fps("fps N=1024 bf16 ragged", 128, 1024, "bf16", ragged=True),
    _fps("fps N=2048", 32, 2048),
    _fps("fps N=8192", 8, 8192),
    _fps("fps N=20k shared", 1, 20_000),
    _fps("fps N=100k shared", 1, 100_000),
    _fps("fps N=100k shared, atomic reads", 1, 100_000, hip=True),
    _fps("fps N=1M shared", 1, 1_000_000),
    _fps("fps N=4M streamed", 1, 4_000_000),
    _knn("knn N=1024 k=32", 128, 64, 1024, 32),
    _knn("group N=1024 k=32 bf16 ragged", 128, 64, 1024, 32, "bf16", grouped=True),
    _knn("knn N=2048 k=16", 32, 512, 2048, 16),
    _knn("knn N=100k k=32", 1, 4096, 100_000, 32),
    _knn("knn N=100k k=1024", 1, 4096, 100_000, 1024),
    _merge("knn merge k=32", 32, 64),
    _ball("ball query"),
    _ball("ball query bf16 ragged, first", "bf16", ragged=True),
    _features("features sum", "sum"),
    _features("features sum bf16, weighted", "sum", "bf16", weighted=True),
    _features("features scatter", "scatter"),
    _features("features scatter bf16, weighted", "scatter", "bf16", weighted=True),
    _features("features match", "match"),
    _nearest("nearest"),
    _nearest("nearest bf16 ragged", "bf16", ragged=True),
    _nearest("nearest both ways", both=True),
    _nearest("nearest both ways bf16 ragged, split", "bf16", ragged=True, both=True, splits=8),
    _nearest("nearest merge", "bf16", ragged=True, both=True, splits=8, merge=True),
    _chamfer("chamfer pairs 32x32 l2, no gradient", 32, 32),
    _chamfer("chamfer pairs 32x32 l2, gradient of pred", 32, 32, grads="pred"),
    _chamfer("chamfer pairs 32x32 l2, both gradients", 32, 32, grads="pred target"),
    _chamfer("chamfer pairs 32x32 l1, both gradients", 32, 32, root=True, grads="pred target"),
    _chamfer("chamfer pairs 16x16 l2, both gradients", 16, 16, grads="pred target"),
    _chamfer("chamfer pairs 64x64 l2, both gradients", 64, 64, grads="pred target"),
    _gradient("gradient of distances"),
    _gradient("gradient of distances bf16", "bf16"),
    _gradient("gradient of chamfer l1 ragged", chamfer=True, ragged=True),
    _group_gradient("gradient of groups"),
    _attention("attention Q3 S26 D64 bf16", 3, 26, 64, "bf16"),
    _attention("attention Q3 S64 D64 bf16", 3, 64, 64, "bf16"),
    _attention("attention Q3 S64 D64 fp16", 3, 64, 64, "fp16"),
    _attention("attention Q3 S64 D64 fp32", 3, 64, 64, "fp32"),
    _attention("attention Q64 S512 D64 bf16", 64, 512, 64, "bf16"),
    _attention("attention Q3 S64 D128 bf16", 3, 64, 128, "bf16"),
    _attention("attention backward Q3 S26 D64 bf16", 3, 26, 64, "bf16", backward=True, key_grad=True),
    _attention("attention backward Q3 S64 D64 bf16", 3, 64, 64, "bf16", backward=True, key_grad=True),
    _attention("attention backward Q3 S64 D64 bf16 dq", 3, 64, 64, "bf16", backward=True),
    _attention("attention backward Q3 S64 D64 fp32", 3, 64, 64, "fp32", backward=True, key_grad=True),
    _attention("attention backward Q64 S512 D64 bf16", 64, 512, 64, "bf16", backward=True, key_grad=True),
    _attention("attention backward Q128 S512 D64 bf16", 128, 512, 64, "bf16", backward=True, key_grad=True),
]
