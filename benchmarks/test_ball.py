"""Ball queries: PointNet++'s shapes, larger clouds; full balls and nearly empty ones."""

from functools import lru_cache

import pytest

from benchmarks.checks import inside
from benchmarks.clouds import SURFACES, cloud
from recon_fast.kernels import reference

K = 32


@lru_cache(maxsize=1)
def case(surface, B, M, N, radius, device):
    points = cloud(surface, B, N, device=device)
    queries = points[:, :M].contiguous()
    return queries, points, reference.ball_query(queries, points, radius, K)


@pytest.mark.operator("ball")
@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize(
    ("B", "M", "N", "radius"),
    [(32, 512, 1024, 0.2), (8, 2048, 8192, 0.1), (1, 4096, 100_000, 0.2), (1, 4096, 100_000, 0.02)],
)
def test_ball(bench, provider, B, M, N, radius, surface):
    queries, points, want = case(surface, B, M, N, radius, bench.kind)
    bench.measure(
        provider,
        (queries, points, radius, K),
        lambda got: inside(provider, queries, points, radius, got, want),
        shape=f"{B}x{M} in {N}, r={radius}, k={K}",
        data=surface,
        pairs=B * M * N,
    )
