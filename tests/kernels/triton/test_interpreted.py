"""The kernels' tests on a machine without a GPU, under Triton's interpreter in a process of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
KERNELS = ("attention", "ball", "chamfer", "features", "fps", "gradient", "knn", "launches", "nearest")
OPERATORS = (
    "contract",
    "lengths",
    "registration",
    "fps",
    "knn",
    "ball",
    "features",
    "chamfer",
    "metrics",
    "attention",
)
# What is about CPU kernels, compiled graphs, and bfloat16, in which the interpreter cannot compute.
LEFT_OUT = "not large_clouds and not inductor and not low_precision"


@pytest.mark.parametrize(
    "files",
    [*([f"triton/test_triton_{name}.py"] for name in KERNELS), [f"test_{name}.py" for name in OPERATORS]],
    ids=[*KERNELS, "operators"],
)
def test_under_the_interpreter(files):
    paths = [str(HERE.parent / name) for name in files]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", LEFT_OUT, *paths]
    run = subprocess.run(
        command,
        env=os.environ | {"TRITON_INTERPRET": "1"},
        cwd=HERE.parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
