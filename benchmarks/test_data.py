"""How fast shapes are made and read: `pytest benchmarks/ --benchmark-only`, in shapes a second."""

import pickle

import numpy as np
import pytest
import torch

from recon_fast.data.batches.resident import ResidentShapes, Sampling
from recon_fast.data.loading import load
from recon_fast.data.open import open_source
from recon_fast.data.shapes import Shapes, stack_clouds
from recon_fast.device import resolve_device
from recon_fast.procedural import procedural_shapes


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


def test_modelnet_text(benchmark, tmp_path):
    table = np.random.default_rng(0).uniform(-1, 1, (10000, 6))
    text = "".join(",".join(f"{value:.6f}" for value in row) + "\n" for row in table)
    (tmp_path / "bed").mkdir()
    keys = [f"bed_{i:04}" for i in range(128)]
    for key in keys:
        (tmp_path / "bed" / f"{key}.txt").write_text(text)
    for name, lines in (("shape_names", ["bed"]), ("train", keys), ("test", [])):
        (tmp_path / f"modelnet40_{name}.txt").write_text("\n".join(lines))
    source = open_source(tmp_path)
    load(source, num_points=1024, max_points=8192)  # compiles
    shapes, _ = benchmark(load, source, num_points=1024, max_points=8192)
    assert len(shapes) == 128
    say_rate(benchmark, 128)


def test_modelnet_cache(benchmark, tmp_path):
    rng = np.random.default_rng(0)
    for split, count in (("train", 256), ("test", 0)):
        clouds = [rng.standard_normal((8192, 6), np.float32) for _ in range(count)]
        with (tmp_path / f"modelnet40_{split}_8192pts_fps.dat").open("wb") as file:
            pickle.dump([clouds, [np.array([0], np.int32)] * count], file)
    (tmp_path / "modelnet40_shape_names.txt").write_text("bed")
    source = open_source(tmp_path)
    shapes, _ = benchmark(load, source, num_points=1024, max_points=8192)
    assert len(shapes) == 256
    say_rate(benchmark, 256)


@pytest.mark.parametrize("placement", ["device", "mmap"])
def test_batches(benchmark, placement):
    """128 clouds of 1024 of 8192 points, centred, scaled and turned; "mmap" from the host's memory."""
    clouds = np.random.default_rng(0).standard_normal((1000, 8192, 3), np.float32)
    points, offsets = stack_clouds(list(clouds), np.float16)
    shapes = Shapes("noise", [str(i) for i in range(1000)], points, offsets, np.zeros(1000, np.bool_))
    device = resolve_device("auto")
    resident = ResidentShapes(shapes, None, np.arange(1000), device, placement)
    index, how = torch.arange(0, 1000, 7)[:128], Sampling(1024, "y", num_group=64)

    def batch():
        points = resident.batch(index, 3, how).points
        if device.type == "cuda":
            torch.cuda.synchronize()
        return points

    assert benchmark(batch).shape == (128, 1024, 3)
    say_rate(benchmark, 128)
