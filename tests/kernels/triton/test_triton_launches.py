"""What a public call launches, so that it cannot grow unnoticed: Triton kernels, and torch's own."""

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from recon_fast import kernels
from recon_fast.kernels import triton as launchers
from recon_fast.kernels import use_backend

ALLOCATIONS = {"empty", "new_empty", "empty_strided"}


class TorchOperations(TorchDispatchMode):
    """Names of the operations that compute: neither views nor allocations nor this package's own."""

    def __init__(self):
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name, returns = func._schema.name.split("::")[1], func._schema.returns
        view = any(r.alias_info is not None and not r.alias_info.is_write for r in returns)
        if func.namespace == "aten" and not view and name not in ALLOCATIONS:
            self.names[name] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture
def launches(device, monkeypatch):
    """Names of the Triton kernels that were launched."""
    from triton.runtime.interpreter import GridExecutor
    from triton.runtime.jit import JITFunction

    names: Counter[str] = Counter()
    owner, method = (GridExecutor, "__call__") if device.type == "cpu" else (JITFunction, "run")
    run = getattr(owner, method)

    def counted(self, *args, **kwargs):
        names[self.fn.__name__] += 1
        with _disable_current_modes():  # the interpreter's own operations are not counted
            return run(self, *args, **kwargs)

    monkeypatch.setattr(owner, method, counted)
    return names


def points(device, B, N, gradient=False):
    return torch.randn(B, N, 3, device=device, requires_grad=gradient)


def fps(device):
    kernels.farthest_point_sample(points(device, 2, 40), 5)


def fps_half(device):
    lengths = torch.tensor([40, 9], device=device)
    kernels.farthest_point_sample(points(device, 2, 40).half(), 5, lengths=lengths)


def knn(device, gradient=False):
    return kernels.knn(points(device, 2, 3, gradient), points(device, 2, 40, gradient), 4)[0]


def ball(device, gradient=False):
    clouds = points(device, 2, 3, gradient), points(device, 2, 40, gradient)
    return kernels.ball_query(*clouds, 0.9, 4, padding="first")[0]


def interpolated(device, gradient=False):
    idx = torch.zeros(2, 9, 3, dtype=torch.int64, device=device)
    rows, weights = points(device, 2, 4, gradient), points(device, 2, 9, gradient)
    return kernels.interpolate_features(rows, idx, weights)


def nearest(device, gradient=False):
    return kernels.nearest_neighbor(points(device, 2, 3, gradient), points(device, 2, 90, gradient))[0]


def grouped(device, gradient=False):
    return kernels.sample_and_group(points(device, 2, 40, gradient), 4, 3).neighborhoods


def grouped_half(device):
    return kernels.sample_and_group(points(device, 2, 40).half(), 4, 3)


def pairs(device, gradient=False):
    return kernels.chamfer_distance(points(device, 9, 32, gradient), points(device, 9, 32))


def large_pairs(device, gradient=False, norm="l1"):
    return kernels.chamfer_distance(
        points(device, 2, 80, gradient), points(device, 2, 70, gradient), norm=norm
    )


def attention(device, gradient=False):
    query, key, value = (torch.randn(2, 2, n, 16, device=device, requires_grad=gradient) for n in (3, 9, 9))
    mask = torch.ones(2, 9, dtype=torch.bool, device=device)
    return kernels.masked_cross_attention(query, key, value, mask)


@pytest.mark.parametrize(
    ("call", "kernel_names", "torch_names"),
    [
        (fps, ["_fps_kernel"], []),
        (fps_half, ["_fps_kernel"], []),
        (knn, ["_knn_kernel"], []),
        (ball, ["_ball_kernel"], []),
        (interpolated, ["_sum_kernel"], []),
        (nearest, ["_nearest_kernel"], []),
        (grouped, ["_fps_kernel", "_knn_kernel"], []),
        (grouped_half, ["_fps_kernel", "_knn_kernel"], []),
        (pairs, ["_chamfer_pairs_kernel"], ["mean"]),
        (large_pairs, ["_nearest_kernel", "_loss_kernel"], ["mean"]),
        (attention, ["_forward_kernel"], []),
    ],
)
def test_forward(device, launches, call, kernel_names, torch_names):
    torch.manual_seed(0)
    with use_backend("triton"), torch.no_grad(), TorchOperations() as operations:
        call(device)
    for name in ("randn", "ones", "zeros", "_to_copy", "lift_fresh"):
        del operations.names[name]
    assert launches == Counter(kernel_names)
    assert operations.names == Counter(torch_names)


@pytest.mark.parametrize(
    ("call", "kernel_names", "torch_names"),
    [
        (knn, ["_gradient_kernel"], []),
        (ball, ["_gradient_kernel"], []),
        (
            interpolated,
            ["_scatter_kernel", "_match_kernel"],
            [],  # within the operator: the sort of the indices
        ),
        (nearest, ["_gradient_kernel"], []),
        (grouped, ["_group_kernel"], []),
        (pairs, [], ["div", "mul"]),  # the division is the mean's
        (large_pairs, [], ["div", "mul", "mul"]),
        (attention, ["_backward_kernel"], []),
    ],
)
def test_backward(device, launches, call, kernel_names, torch_names):
    torch.manual_seed(0)
    with use_backend("triton"):
        out = call(device, gradient=True)
        grad = torch.ones_like(out)
        launches.clear()
        with TorchOperations() as operations:
            out.backward(grad)
    assert launches == Counter(kernel_names)
    assert operations.names == Counter(torch_names)


def test_launchers_leave_nothing_to_torch(device, launches):
    """Within the registered operators, where the tests above do not see."""
    xyz, idx = points(device, 2, 70), torch.zeros(2, 70, 1, dtype=torch.int64, device=device)
    gradients = xyz, xyz[:, :, None]
    lengths = torch.tensor([70, 9], device=device)
    with TorchOperations() as operations:
        launchers.farthest_point_sample(xyz, 2, lengths=lengths)
        launchers.knn(xyz[:, :3], xyz, 2, lengths=lengths)
        launchers.group(xyz, idx[:, :3, 0], 2, lengths)
        launchers.chamfer_pairs(xyz[:, :9], xyz[:, :9], lengths, lengths)
        launchers.chamfer_pairs(xyz, xyz, lengths, lengths, "l1")
        launchers.distance_backward(xyz[..., :1], xyz, xyz, idx)
        launchers.group_backward(*gradients, idx[..., 0].contiguous(), idx, 70)
    for name in ("clone", "fill_"):  # of center_idx, which is not contiguous here, and of poisoned memory
        del operations.names[name]
    assert not operations.names
    assert launches.total() == 9
