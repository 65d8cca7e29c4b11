"""What the benchmarks share: data, backends, and the refusal to time a wrong result."""

import pytest
import torch
import torch.nn.functional as F

from recon_fast.kernels import use_backend


@pytest.fixture(params=["reference", "cpu"])
def backend(request, benchmark):
    """Run under each backend; rows are compared within a group, one group a shape."""
    benchmark.extra_info["backend"] = request.param
    benchmark.extra_info["threads"] = torch.get_num_threads()
    benchmark.group = request.node.name.replace(f"{request.param}-", "")
    with use_backend(request.param):
        yield request.param


def points(B: int, N: int, surface: str = "sphere", seed: int = 0) -> torch.Tensor:
    """[B, N, 3] on a bumpy sphere or in a cube."""
    generator = torch.Generator().manual_seed(seed)
    if surface == "cube":
        return torch.rand(B, N, 3, generator=generator)
    direction = F.normalize(torch.randn(B, N, 3, generator=generator), dim=-1)
    return direction * (1 + 0.2 * (5 * direction).sin().prod(-1, keepdim=True))
