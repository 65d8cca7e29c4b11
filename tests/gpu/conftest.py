"""What only a GPU can show. Where a test means something on a CPU too, it runs there as well."""

import pytest
import torch

from recon_fast.kernels import use_backend

NEEDS_GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
DEVICES = ["cpu", pytest.param("cuda", marks=NEEDS_GPU)]


@pytest.fixture(params=DEVICES)
def device(request):
    return torch.device(request.param)


@pytest.fixture(params=[pytest.param("cuda", marks=NEEDS_GPU)])
def gpu(request):
    """A GPU on which operators are Triton kernels, trusted or not."""
    with use_backend("triton"):
        yield torch.device(request.param)
