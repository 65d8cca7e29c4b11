"""Every test that asks for `backend` runs on each backend that can run on this machine, GPU included.

With TRITON_INTERPRET=1 that is Triton alone: triton/test_interpreted.py runs the tests once more like that.
"""

import os
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from devices import OnDevice
from hypothesis import HealthCheck, settings

from recon_fast.kernels import use_backend

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

if INTERPRETED:
    from triton.runtime.interpreter import InterpreterBuilder

    # Triton 3.6's interpreter lets a NaN through where compiled code does not: test_aot.py looks for that.
    InterpreterBuilder.create_minnumf = lambda self, a, b: self.binary_op(a, b, np.fmin)
    InterpreterBuilder.create_maxnumf = lambda self, a, b: self.binary_op(a, b, np.fmax)

settings.register_profile(
    "kernels",
    max_examples=10 if INTERPRETED else 40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


ON_GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
BACKENDS = [
    "reference",
    "cpu",
    pytest.param("cuda reference", marks=ON_GPU),
    pytest.param("cuda triton", marks=ON_GPU),
]


@pytest.fixture(params=["triton"] if INTERPRETED else BACKENDS)
def backend(request):
    *device, name = request.param.split()
    # The interpreter computes in numpy, which warns of NaN.
    quiet = np.errstate(all="ignore") if INTERPRETED else nullcontext()
    with use_backend(name), quiet, OnDevice(*device) if device else nullcontext():
        yield name
