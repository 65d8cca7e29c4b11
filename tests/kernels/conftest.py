"""Every test that asks for `backend` runs on each backend that can run on this machine."""

import pytest

from recon_fast.kernels import use_backend


@pytest.fixture(params=["reference", "cpu"])
def backend(request):
    with use_backend(request.param):
        yield request.param
