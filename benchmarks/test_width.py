"""Search and sampling in features, more than three columns wide, against the usual forms in PyTorch."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import pytest
import torch

from benchmarks.checks import same
from benchmarks.peers import Provider
from benchmarks.providers import OURS
from recon_fast import kernels
from recon_fast.kernels import reference

_CHECKED = 256  # queries of a cloud


def _products(queries, points, k):
    """As DGCNN does: |x|^2 + |y|^2 - 2xy, then the k smallest."""
    norms = queries.square().sum(-1, keepdim=True) + points.square().sum(-1)[:, None]
    return (norms - 2 * queries @ points.mT).topk(k, largest=False)


def _cdist(src, dst):
    return torch.cdist(src, dst).min(-1)


def _sorted(queries, points, radius, k):
    """As PointNet++ in PyTorch does: of the points inside, the k of smallest index."""
    N = points.shape[1]
    idx = torch.arange(N, device=points.device).expand(len(queries), queries.shape[1], N)
    first = idx.masked_fill(torch.cdist(queries, points) >= radius, N).sort(-1).values[..., :k]
    return first.masked_fill(first == N, -1)


def _loop(xyz, num_samples):
    """As PointNet++ in PyTorch does."""
    idx = torch.zeros(len(xyz), num_samples, dtype=torch.int64, device=xyz.device)
    rows, nearest = torch.arange(len(xyz), device=xyz.device), xyz.new_full(xyz.shape[:2], 1e10)
    for i in range(1, num_samples):
        nearest = nearest.minimum((xyz - xyz[rows, idx[:, i - 1]][:, None]).square().sum(-1))
        idx[:, i] = nearest.argmax(-1)
    return idx


CONTENDERS: dict[str, tuple[Callable[..., Any], str, Callable[..., Any]]] = {
    "knn": (kernels.knn, "products + topk", _products),
    "nearest": (kernels.nearest_neighbor, "cdist + min", _cdist),
    "ball": (kernels.ball_query, "cdist + sort", _sorted),
    "fps": (kernels.farthest_point_sample, "loop", _loop),
}


def contenders(operator, _kind):
    ours, name, plain = CONTENDERS[operator]
    return [Provider(OURS, operator, ours, exact=True), Provider(name, operator, plain, expands=True)]


@lru_cache(maxsize=1)
def case(B, N, D, device):
    return torch.randn(B, N, D, generator=torch.Generator().manual_seed(0)).to(device)


def check(provider, got, want):
    """The plain forms round differently: 999 of 1000 of their indices must be the reference's."""
    if provider.exact:
        return same(got, want)
    got, want = (found[1] if isinstance(found, tuple) else found for found in (got, want))
    share = (got == want).float().mean().item()
    assert share > 0.999, f"{share:.2%} of the indices are the reference's"
    return f"{share:.2%} of the indices"


@pytest.mark.operator("knn")
@pytest.mark.parametrize(
    ("B", "N", "D", "k"), [(8, 1024, 64, 20), (8, 1024, 128, 20), (8, 1024, 256, 20), (1, 10_000, 5, 400)]
)
def test_wide_knn(bench, provider, B, N, D, k):
    points = case(B, N, D, bench.kind)
    want = reference.knn(points[:, :_CHECKED], points, k)
    bench.measure(
        provider,
        (points, points, k),
        lambda got: check(provider, tuple(found[:, :_CHECKED] for found in got), want),
        shape=f"{B}x{N} in {N}, D={D}, k={k}",
        data="normal",
        pairs=B * N * N,
    )


@pytest.mark.operator("nearest")
def test_wide_nearest(bench, provider):
    src, dst = case(8, 2048, 64, bench.kind).split(1024, 1)
    want = reference.nearest_neighbor(src, dst)
    bench.measure(
        provider,
        (src, dst),
        lambda got: check(provider, tuple(got), want),
        shape="8x1024 in 1024, D=64",
        data="normal",
    )


@pytest.mark.operator("ball")
def test_wide_ball(bench, provider):
    points = case(8, 1024, 5, bench.kind)
    queries = points[:, :256].contiguous()
    want = reference.ball_query(queries, points, 1.0, 32)
    bench.measure(
        provider,
        (queries, points, 1.0, 32),
        lambda got: check(provider, got if isinstance(got, torch.Tensor) else tuple(got), want),
        shape="8x256 in 1024, D=5, r=1, k=32",
        data="normal",
    )


@pytest.mark.operator("fps")
def test_wide_fps(bench, provider):
    xyz = case(8, 1024, 64, bench.kind)
    want = reference.farthest_point_sample(xyz, 256)
    bench.measure(
        provider,
        (xyz, 256),
        lambda got: check(provider, got, want),
        shape="8x1024 to 256, D=64",
        data="normal",
    )
