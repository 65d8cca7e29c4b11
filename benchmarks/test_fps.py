"""Farthest-point sampling: ReCon's shape, larger clouds."""

import pytest
import torch
from conftest import points

from recon_fast.kernels import farthest_point_sample, reference


@pytest.mark.parametrize("surface", ["sphere", "cube"])
@pytest.mark.parametrize(("B", "N", "M"), [(32, 1024, 64), (8, 8192, 512), (1, 100_000, 4096)])
def test_fps(benchmark, backend, B, N, M, surface):
    if backend == "reference" and N == 100_000:
        pytest.skip("takes seconds a call")
    xyz = points(B, N, surface)
    if N < 100_000:
        want = reference.farthest_point_sample(xyz, M)
        assert torch.equal(farthest_point_sample(xyz, M), want)
    benchmark(farthest_point_sample, xyz, M)
