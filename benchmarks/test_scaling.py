"""Time against the number of points, 1k to 1M, on a sphere; the report fits the exponent."""

from functools import lru_cache

import pytest

from benchmarks.checks import close, greedy, neighbors
from benchmarks.clouds import cloud
from benchmarks.providers import providers
from benchmarks.test_chamfer import loss_only
from recon_fast.kernels import chamfer_distance, reference

SIZES = [1 << 10, 1 << 12, 1 << 14, 1 << 17, 1 << 20]
PER_SAMPLE, QUERIES, K = 64, 1024, 16  # FPS takes one of 64 points
# What the reference checks of a large result: the first samples do not depend on those that follow.
_SAMPLES_CHECKED, _QUERIES_CHECKED = 128, 64
_MOST_PAIRS = {"cpu": 3e7, "cuda": 1e11}  # beyond it brute force takes seconds


def contenders(operator, kind):
    return [p for p in providers(operator, kind) if not p.compiles]


def skip_brute_force(bench, provider, pairs):
    brute = bench.kind == "cuda" or provider.limit < float("inf")
    if brute and pairs > _MOST_PAIRS[bench.kind]:
        pytest.skip(f"{provider.name} takes seconds with so many points")


@lru_cache(maxsize=1)
def fps_case(N, device):
    xyz = cloud("sphere", 1, N, device=device)
    return xyz, reference.farthest_point_sample(xyz, min(N // PER_SAMPLE, _SAMPLES_CHECKED))


@pytest.mark.operator("fps")
@pytest.mark.parametrize("N", SIZES)
def test_fps(bench, provider, N):
    skip_brute_force(bench, provider, N * N // PER_SAMPLE)
    xyz, want = fps_case(N, bench.kind)
    bench.measure(
        provider,
        (xyz, N // PER_SAMPLE),
        lambda got: greedy(provider, xyz, got[:, : want.shape[1]], want),
        shape=f"1x{N} to {N // PER_SAMPLE}",
        data="sphere",
        series=f"fps 1xN to N/{PER_SAMPLE}",
        size=N,
    )


@lru_cache(maxsize=1)
def knn_case(N, device):
    points = cloud("sphere", 1, N, device=device)
    queries = points[:, :QUERIES].contiguous()
    return queries, points, reference.knn(queries[:, :_QUERIES_CHECKED], points, K)


@pytest.mark.operator("knn")
@pytest.mark.parametrize("N", SIZES)
def test_knn(bench, provider, N):
    skip_brute_force(bench, provider, N * QUERIES)
    queries, points, want = knn_case(N, bench.kind)
    some = queries[:, :_QUERIES_CHECKED]
    bench.measure(
        provider,
        (queries, points, K),
        lambda got: neighbors(provider, some, points, tuple(t[:, :_QUERIES_CHECKED] for t in got), want),
        shape=f"1x{QUERIES} in {N}, k={K}",
        data="sphere",
        series=f"knn 1x{QUERIES} in N, k={K}",
        size=N,
    )


@lru_cache(maxsize=1)
def chamfer_case(N, device):
    pred, target = (cloud("sphere", 1, N, seed=seed, device=device) for seed in (0, 1))
    # Too many for the reference: our own kernels are the yardstick of the peers.
    pairs = N * N
    yardstick = chamfer_distance if pairs > _MOST_PAIRS["cpu"] else reference.chamfer_distance
    return pred, target, loss_only(yardstick, pred, target)


@pytest.mark.operator("chamfer")
@pytest.mark.parametrize("N", SIZES)
def test_chamfer(bench, provider, N):
    skip_brute_force(bench, provider, N * N)
    pred, target, want = chamfer_case(N, bench.kind)
    bench.measure(
        provider,
        (pred, target),
        lambda got: close(got, want, 1e-3),
        wrap=loss_only,
        shape=f"1x{N}x{N}",
        data="sphere",
        series="chamfer 1xNxN",
        size=N,
    )
