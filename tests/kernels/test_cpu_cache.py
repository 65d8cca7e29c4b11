"""Compiled CPU kernels are kept between processes, and not longer than their sources."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import recon_fast

CALL = """
import numpy as np
from recon_fast.kernels.cpu.spatial import position_of_smallest
assert position_of_smallest(np.array([3, 1, 2], np.int32)) == 1
print(sum(position_of_smallest.stats.cache_hits.values()))
"""


@pytest.mark.slow
def test_any_changed_file_renders_the_cache_stale(tmp_path):
    package = tmp_path / "recon_fast"
    source = Path(recon_fast.__file__).parent
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(source / "kernels", package / "kernels", ignore=ignored)
    shutil.copy(source / "__init__.py", package)
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"} | {
        "PYTHONPATH": str(tmp_path)
    }

    def hits() -> int:
        command = [sys.executable, "-c", CALL]
        run = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return int(run.stdout)

    assert [hits(), hits()] == [0, 1]
    with (package / "kernels" / "cpu" / "simd.py").open("a") as file:  # not the file of the function
        file.write("\n")
    assert [hits(), hits()] == [0, 1]
