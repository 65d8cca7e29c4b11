"""Clouds on which pruning has least to skip: our kernels, the same with pruning off, and everyone else."""

from dataclasses import replace
from functools import lru_cache

import pytest

from benchmarks.checks import close, greedy, neighbors
from benchmarks.clouds import WORST, cloud
from benchmarks.providers import providers
from benchmarks.test_chamfer import loss_and_gradients
from recon_fast.kernels import reference

N = 32_768
SAMPLES, QUERIES, K, CHAMFER = 1024, 2048, 32, 8192
_CHECKED = 256  # queries
UNPRUNED = "ours, pruning off"


def contenders(operator, kind):
    """Without brute force, which takes the same time on every cloud, and expansions, which go wrong."""
    brute = ("reference", "compiled reference")
    every = [p for p in providers(operator, kind) if p.name not in brute and not p.expands]
    return [*every, replace(every[0], name=UNPRUNED)] if kind == "cpu" else every


@pytest.fixture
def as_named(provider, monkeypatch):
    """Switch pruning off where the provider's name says so."""
    if provider.name == UNPRUNED:
        from recon_fast.kernels.cpu import fps, knn, nearest

        for module in (fps, knn, nearest):
            monkeypatch.setattr(module, "_PRUNE_FROM", 1 << 62)


@lru_cache(maxsize=1)
def fps_case(kind, device):
    xyz = cloud(kind, 1, N, device=device)
    return xyz, reference.farthest_point_sample(xyz, SAMPLES)


@pytest.mark.operator("fps")
@pytest.mark.usefixtures("as_named")
@pytest.mark.parametrize("kind", WORST)
def test_fps(bench, provider, kind):
    xyz, want = fps_case(kind, bench.kind)
    bench.measure(
        provider,
        (xyz, SAMPLES),
        lambda got: greedy(provider, xyz, got, want),
        shape=f"1x{N} to {SAMPLES}",
        data=kind,
    )


@lru_cache(maxsize=1)
def knn_case(kind, device):
    points = cloud(kind, 1, N, device=device)
    queries = points[:, :QUERIES].contiguous()
    return queries, points, reference.knn(queries[:, :_CHECKED], points, K)


@pytest.mark.operator("knn")
@pytest.mark.usefixtures("as_named")
@pytest.mark.parametrize("kind", WORST)
def test_knn(bench, provider, kind):
    queries, points, want = knn_case(kind, bench.kind)
    some = queries[:, :_CHECKED]
    bench.measure(
        provider,
        (queries, points, K),
        lambda got: neighbors(provider, some, points, tuple(t[:, :_CHECKED] for t in got), want),
        shape=f"1x{QUERIES} in {N}, k={K}",
        data=kind,
    )


@lru_cache(maxsize=1)
def chamfer_case(kind, device):
    pred, target = (cloud(kind, 1, CHAMFER, seed=seed, device=device).requires_grad_() for seed in (0, 1))
    return pred, target, loss_and_gradients(reference.chamfer_distance, pred, target)


@pytest.mark.operator("chamfer")
@pytest.mark.usefixtures("as_named")
@pytest.mark.parametrize("kind", WORST)
def test_chamfer(bench, provider, kind):
    pred, target, want = chamfer_case(kind, bench.kind)
    outputs = (
        3 if provider.exact else 1
    )  # which of several nearest points gets the gradient is a peer's choice
    bench.measure(
        provider,
        (pred, target),
        lambda got: close(got[:outputs], want[:outputs], 1e-5),
        wrap=loss_and_gradients,
        step="forward+backward",
        shape=f"1x{CHAMFER}x{CHAMFER}",
        data=kind,
    )
