"""Farthest-point sampling: ReCon's shape, larger clouds."""

from functools import lru_cache

import pytest

from benchmarks.checks import greedy
from benchmarks.clouds import SURFACES, cloud
from recon_fast.kernels import reference

pytestmark = pytest.mark.operator("fps")
_UNROLLED = 64  # samples; the compiler unrolls the loop of the reference


@lru_cache(maxsize=1)
def case(surface, B, N, M, device):
    xyz = cloud(surface, B, N, device=device)
    return xyz, reference.farthest_point_sample(xyz, M)


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize(("B", "N", "M"), [(32, 1024, 64), (8, 8192, 512), (1, 100_000, 4096)])
def test_fps(bench, provider, B, N, M, surface):
    if provider.compiles and M > _UNROLLED:
        pytest.skip(f"torch.compile unrolls more than {_UNROLLED} steps: minutes")
    xyz, want = case(surface, B, N, M, bench.kind)
    bench.measure(
        provider,
        (xyz, M),
        lambda got: greedy(provider, xyz, got, want),
        shape=f"{B}x{N} to {M}",
        data=surface,
        pairs=B * N * M,
    )
