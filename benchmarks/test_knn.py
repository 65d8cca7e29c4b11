"""K nearest neighbours and grouping: ReCon's shape, larger clouds."""

import pytest
import torch
from conftest import points

from recon_fast.kernels import knn, reference, sample_and_group


@pytest.mark.parametrize("surface", ["sphere", "cube"])
@pytest.mark.parametrize(("B", "M", "N"), [(32, 64, 1024), (8, 512, 8192), (1, 4096, 100_000)])
def test_knn(benchmark, backend, B, M, N, surface):
    if backend == "reference" and N == 100_000:
        pytest.skip("takes seconds a call")
    xyz = points(B, N, surface)
    queries = xyz[:, :M].contiguous()
    want = reference.knn(queries[:, :64], xyz, 32)
    assert all(torch.equal(a[:, :64], b) for a, b in zip(knn(queries, xyz, 32), want, strict=True))
    benchmark(knn, queries, xyz, 32)


@pytest.mark.parametrize("B", [32, 128])
def test_sample_and_group(benchmark, backend, B):
    xyz = points(B, 1024)
    got, want = sample_and_group(xyz, 64, 32), reference.sample_and_group(xyz, 64, 32)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
    benchmark(sample_and_group, xyz, 64, 32)
