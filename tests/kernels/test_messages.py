"""What an operator says of arguments that are no tensors, or clouds with their axes in another order."""

import inspect
from typing import get_type_hints

import pytest
import torch
from torch import Tensor

from recon_fast import kernels

CLOUD, OTHER = torch.zeros(2, 5, 3), torch.zeros(2, 7, 3)
LENGTHS = torch.tensor([5, 4])
PACKED = {"query_lengths": torch.tensor([2, 3]), "point_lengths": torch.tensor([3, 4])}
ROWS = torch.zeros(2, 4, 7)
IDX = torch.zeros(2, 6, 3, dtype=torch.int64)
PAIR = {"pred": CLOUD, "target": OTHER, "pred_lengths": LENGTHS, "target_lengths": LENGTHS}
# All tensors that an operator takes, optional ones too, and what else it needs.
ARGUMENTS = {
    "farthest_point_sample": {"xyz": CLOUD, "lengths": LENGTHS, "num_samples": 2},
    "knn": {"queries": OTHER, "points": CLOUD, "lengths": LENGTHS, "k": 2},
    "sample_and_group": {"xyz": CLOUD, "lengths": LENGTHS, "num_groups": 2, "group_size": 2},
    "ball_query": {"queries": OTHER, "points": CLOUD, "lengths": LENGTHS, "radius": 1.0, "k": 2},
    "gather_features": {"features": ROWS, "idx": IDX},
    "interpolate_features": {"features": ROWS, "idx": IDX, "weights": torch.zeros(2, 6, 3)},
    "nearest_neighbor": {"src": OTHER, "dst": CLOUD, "dst_lengths": LENGTHS},
    "mutual_nearest": {"src": OTHER, "dst": CLOUD, "src_lengths": LENGTHS, "dst_lengths": LENGTHS},
    "chamfer_distance": {**PAIR, "weights": torch.ones(2)},
    "f_score": {**PAIR, "threshold": 0.1},
    "density_aware_chamfer": PAIR,
    "masked_cross_attention": {
        **{name: torch.zeros(2, 2, 4, 8) for name in ("query", "key", "value")},
        "key_mask": torch.ones(2, 4, dtype=torch.bool),
    },
    "linear_max": {"x": torch.zeros(2, 4, 3), "weight": torch.zeros(5, 3), "bias": torch.zeros(5)},
    "packed_knn": {"queries": CLOUD[0], "points": OTHER[0], "k": 2, **PACKED},
    "packed_ball_query": {"queries": CLOUD[0], "points": OTHER[0], "radius": 1.0, "k": 2, **PACKED},
    "packed_farthest_point_sample": {
        "points": CLOUD[0],
        **{name: torch.tensor([5]) for name in ("lengths", "num_samples")},
        "starts": torch.tensor([0]),
    },
    "neighbor_edges": {"idx": IDX[0]},
}
TENSORS = [
    (name, argument)
    for name, arguments in ARGUMENTS.items()
    for argument, value in arguments.items()
    if isinstance(value, Tensor)
]
CLOUDS = [
    (name, argument)
    for name, argument in TENSORS
    if any(ARGUMENTS[name][argument] is cloud for cloud in (CLOUD, OTHER))
]
# As wide as they come: in another order of axes, points of another width.
OF_ANY_WIDTH = {
    ("farthest_point_sample", "xyz"),
    ("knn", "queries"),
    ("ball_query", "queries"),
    ("nearest_neighbor", "src"),
    ("mutual_nearest", "src"),
}


def test_every_tensor_of_every_operator_is_looked_at():
    functions = {name for name in kernels.__all__ if inspect.isfunction(getattr(kernels, name))}
    assert set(ARGUMENTS) == functions - {"use_backend", "torch_threads"}
    for name, arguments in ARGUMENTS.items():
        hints = get_type_hints(getattr(kernels, name))
        takes = {a for a, hint in hints.items() if a != "return" and hint in (Tensor, Tensor | None)}
        assert takes == {argument for argument, value in arguments.items() if isinstance(value, Tensor)}
        getattr(kernels, name)(**arguments)


@pytest.mark.parametrize(("name", "argument"), TENSORS)
def test_what_is_no_tensor_is_named(name, argument):
    value = ARGUMENTS[name][argument]
    for other, kind in ((value.numpy(), "numpy.ndarray"), (value.tolist(), "list")):
        with pytest.raises(TypeError, match=rf"^{argument} must be a torch\.Tensor, got {kind}$"):
            getattr(kernels, name)(**ARGUMENTS[name] | {argument: other})


@pytest.mark.parametrize(("name", "argument"), CLOUDS)
def test_axes_in_another_order_are_named(name, argument):
    cloud, wide = ARGUMENTS[name][argument], (name, argument) in OF_ANY_WIDTH
    for wrong, hint in (
        *(() if wide else [(cloud.mT, rf"; it looks transposed: pass {argument}\.mT$")]),
        (cloud[0].mT, rf"; it looks transposed: pass {argument}\.mT\[None\]$"),
        (cloud[0], rf"; for one cloud pass {argument}\[None\]$"),
    ):
        got = rf"got \({', '.join(map(str, wrong.shape))}\)"
        with pytest.raises(
            ValueError, match=rf"^{argument} must be \[[B2], N, {'D' if wide else 3}\], {got}{hint}"
        ):
            getattr(kernels, name)(**ARGUMENTS[name] | {argument: wrong})


def test_axes_of_a_packed_batch():
    arguments = ARGUMENTS["packed_knn"]
    for name, message in (
        ("points", r"^points must be \[N, 3\], got \(3, 7\); it looks transposed: pass points\.mT$"),
        ("queries", r"^points must be \[N, 5\], got \(7, 3\); queries is \(3, 5\)$"),
    ):
        with pytest.raises(ValueError, match=message):
            kernels.packed_knn(**arguments | {name: arguments[name].mT})


def test_widths_that_differ():
    message = r"^points must be \[2, N, 7\], got \(2, 5, 3\); queries is \(2, 3, 7\)$"
    with pytest.raises(ValueError, match=message):
        kernels.knn(OTHER.mT, CLOUD, 2)
    with pytest.raises(ValueError, match=r"^xyz must hold at least one cloud of one point, got \(2, 5, 0\)$"):
        kernels.farthest_point_sample(CLOUD[..., :0], 2)
    with pytest.raises(ValueError, match=r"got 4; \[B, N, D\] is wanted, got \(2, 3, 5\)$"):
        kernels.farthest_point_sample(CLOUD.mT, 4)


def test_batches_that_differ():
    with pytest.raises(
        ValueError, match=r"^points must be \[2, N, 3\], got \(1, 5, 3\); queries is \(2, 7, 3\)$"
    ):
        kernels.knn(OTHER, CLOUD[:1], 2)
