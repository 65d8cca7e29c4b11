"""How fast shapes are made and read: `pytest benchmarks/ --benchmark-only`, in shapes a second."""

import numpy as np
import pytest

from recon_fast.data.loading import load, open_source
from recon_fast.data.procedural import procedural_shapes


def say_rate(benchmark, shapes):
    if benchmark.stats is not None:  # None under --benchmark-disable
        benchmark.extra_info["shapes_per_second"] = round(shapes / benchmark.stats.stats.median)


@pytest.mark.parametrize("pictures", [False, True], ids=["clouds", "clouds-and-pictures"])
def test_procedural(benchmark, pictures):
    procedural_shapes(8, pictures=pictures)  # compiles
    shapes = benchmark(procedural_shapes, 512, pictures=pictures)
    assert len(shapes) == 512
    say_rate(benchmark, 512)


def test_folder_of_npy(benchmark, tmp_path):
    rng = np.random.default_rng(0)
    for i in range(256):
        np.save(tmp_path / f"{i}.npy", rng.standard_normal((8192, 3), np.float32))
    source = open_source(tmp_path)
    shapes, problems = benchmark(load, source, num_points=1024, max_points=8192)
    assert len(shapes) == 256
    assert not problems
    say_rate(benchmark, 256)
