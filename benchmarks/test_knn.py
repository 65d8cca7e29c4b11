"""K nearest neighbours and grouping: ReCon's shape, larger clouds."""

from functools import lru_cache

import pytest

from benchmarks.checks import greedy, neighbors, same
from benchmarks.clouds import SURFACES, cloud
from recon_fast.kernels import reference

K = 32
_CHECKED = 512  # queries of a cloud


@lru_cache(maxsize=1)
def case(surface, B, M, N, device):
    points = cloud(surface, B, N, device=device)
    queries = points[:, :M].contiguous()
    return queries, points, reference.knn(queries[:, :_CHECKED], points, K)


@pytest.mark.operator("knn")
@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize(("B", "M", "N"), [(32, 64, 1024), (8, 512, 8192), (1, 4096, 100_000)])
def test_knn(bench, provider, B, M, N, surface):
    queries, points, want = case(surface, B, M, N, bench.kind)
    some = queries[:, :_CHECKED]
    bench.measure(
        provider,
        (queries, points, K),
        lambda got: neighbors(provider, some, points, tuple(t[:, :_CHECKED] for t in got), want),
        shape=f"{B}x{M} in {N}, k={K}",
        data=surface,
        pairs=B * M * N,
    )


def _groups(sample_and_group, *inputs):
    return tuple(sample_and_group(*inputs))


@pytest.mark.operator("group")
@pytest.mark.parametrize("B", [32, 128])
def test_group(bench, provider, B):
    """Sampling, neighbours and the centred neighbourhoods in one call."""
    xyz = cloud("sphere", B, 1024, device=bench.kind)
    want = reference.sample_and_group(xyz, 64, K)

    def check(got):
        if provider.exact:
            return same(got, want)
        centers, neighborhoods, center_idx, idx = got
        greedy(provider, xyz, center_idx, want[2])
        found = neighborhoods.square().sum(-1), idx
        return neighbors(provider, centers, xyz, found, reference.knn(centers, xyz, K))

    bench.measure(
        provider,
        (xyz, 64, K),
        check,
        wrap=_groups,
        shape=f"{B}x1024 to 64, k={K}",
        data="sphere",
    )
