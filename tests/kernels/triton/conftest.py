"""Triton decides when it is imported whether kernels are compiled or interpreted, for the whole process.

With a GPU the files here run on it. Without one, test_interpreted.py runs them in a process of its own in
which TRITON_INTERPRET=1 holds, so that no other test sees it; by hand: `TRITON_INTERPRET=1 pytest
tests/kernels/triton`.
"""

import os

import numpy as np
import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
KERNEL_TESTS = [
    "test_triton_attention.py",
    "test_triton_ball.py",
    "test_triton_chamfer.py",
    "test_triton_features.py",
    "test_triton_fps.py",
    "test_triton_gradient.py",
    "test_triton_knn.py",
    "test_triton_launches.py",
    "test_triton_nearest.py",
]

if INTERPRETED:
    collect_ignore = ["test_interpreted.py", "test_aot.py"]
elif torch.cuda.is_available():
    collect_ignore = ["test_interpreted.py"]
else:
    collect_ignore = KERNEL_TESTS


@pytest.fixture
def device() -> torch.device:
    return torch.device("cpu" if INTERPRETED else "cuda")


@pytest.fixture(autouse=True)
def _poisoned_memory(monkeypatch):
    """What a kernel does not write is NaN or an index far outside; numpy, which interprets, may meet NaN."""
    empty = torch.empty

    def poisoned(*args, **kwargs):
        tensor = empty(*args, **kwargs)
        return tensor.fill_(float("nan") if tensor.is_floating_point() else -(1 << 40))

    monkeypatch.setattr(torch, "empty", poisoned)
    with np.errstate(all="ignore"):
        yield
