"""The kernels' tests on a machine without a GPU, under Triton's interpreter in a process of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.parametrize("kernel", ["attention", "chamfer", "fps", "gradient", "knn", "nearest"])
def test_under_the_interpreter(kernel):
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        f"{HERE}/test_triton_{kernel}.py",
    ]
    run = subprocess.run(
        command,
        env=os.environ | {"TRITON_INTERPRET": "1"},
        cwd=HERE.parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
