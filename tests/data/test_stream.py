"""The stream of batches: every shape once an epoch, alike in any division and wherever the shapes lie."""

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from layouts import write_npy
from tiny import tiny_shapes

from recon_fast.data.batches import resident as placement_module
from recon_fast.data.batches import stream as stream_module
from recon_fast.data.batches.resident import (
    ResidentShapes,
    Sampling,
    choose_placement,
    free_memory,
    needed_bytes,
)
from recon_fast.data.batches.stream import BatchStream, epoch_rows
from recon_fast.data.batches.transforms import standardize
from recon_fast.data.open import open_source
from recon_fast.data.packed import read_packed, read_shards
from recon_fast.data.packing import pack
from recon_fast.data.shapes import is_mapped
from recon_fast.errors import InputError

CPU = torch.device("cpu")
NAMES = ("points", "image_feature", "text_feature", "label", "mask_noise")
HOW = Sampling(64, "y", num_group=8, seed=5)


def resident(shapes=None, placement="device") -> ResidentShapes:
    shapes = shapes or tiny_shapes()
    return ResidentShapes(shapes, shapes.features, np.arange(1, len(shapes)), CPU, placement)


def assert_same_batches(found, expected):
    for one, other in zip(found, expected, strict=True):
        for name in NAMES:
            a, b = getattr(one, name), getattr(other, name)
            assert (a is None) == (b is None), name
            assert a is None or (a.dtype == b.dtype and torch.equal(a, b)), name


def test_an_epoch_visits_every_shape_once_in_an_order_of_its_own():
    epochs, places = torch.tensor([0, 1]), torch.arange(1000)
    orders = [
        *epoch_rows(0, epochs, places.expand(2, -1), 1000),
        *epoch_rows(1, epochs[:1], places[None], 1000),
    ]
    for order in orders:
        assert torch.equal(order.sort().values, places)
    assert (orders[0] == orders[1]).sum() < 10
    assert (orders[0] == orders[2]).sum() < 10
    some = epoch_rows(0, epochs[1:], torch.tensor([[7, 3]]), 1000)[0]
    assert torch.equal(some, orders[1][[7, 3]])


def test_any_division_of_the_batch_is_the_same_stream(monkeypatch):
    shapes = resident()  # 23 shapes, 2 steps of 8 in an epoch
    whole = list(BatchStream(shapes, HOW, 8, 1, 0, 5))
    assert len(whole) == 5
    for processes, accumulate in ((2, 1), (1, 2), (2, 2), (4, 2)):
        parts = []
        for number in range(processes):
            monkeypatch.setattr(stream_module, "rank", lambda number=number: number)
            monkeypatch.setattr(stream_module, "world_size", lambda processes=processes: processes)
            parts.append(list(BatchStream(shapes, HOW, 8, accumulate, 0, 5)))
        for step, expected in enumerate(whole):
            for name in NAMES:
                micros = range(step * accumulate, (step + 1) * accumulate)
                found = torch.cat([getattr(parts[p][m], name) for m in micros for p in range(processes)])
                assert torch.equal(found, getattr(expected, name)), (processes, accumulate, name)


def test_batches_that_are_drawn_together_are_the_same():
    """As on a GPU; a window is 8 micro-batches, and ends where the stream does."""
    together = BatchStream(resident(), HOW, 6, 2, 1, 11)
    together.together = True
    assert_same_batches(together, BatchStream(resident(), HOW, 6, 2, 1, 11))


def test_a_stream_that_starts_later_goes_on_alike():
    assert_same_batches(
        BatchStream(resident(), HOW, 6, 2, 4, 9), list(BatchStream(resident(), HOW, 6, 2, 0, 9))[8:]
    )


@pytest.fixture
def packed(tmp_path):
    """A packed file and shards of the same ragged clouds, with features."""
    made = tiny_shapes(30)
    for i in range(30):
        write_npy(tmp_path / "set" / made.class_names[i % 3] / f"{i:02d}.npy", made.cloud(i))
    source = open_source(tmp_path / "set")

    def features(shapes):
        take = [int(key.rsplit("/", 1)[-1]) for key in shapes.keys]
        given = made.features
        return replace(given, image=given.image[take], caption_index=given.caption_index[take])

    sizes = {"num_points": 64, "max_points": 128}
    file = pack(source, tmp_path / "one.h5", features_fn=features, **sizes).out
    folder = pack(source, tmp_path / "many", shard_size=7, features_fn=features, **sizes).out
    return file, folder


def test_batches_are_the_same_wherever_the_shapes_lie(packed):
    file, folder = packed
    rows = np.arange(3, 29)
    expected = None
    sets = {
        "memory": read_packed(file),
        "mapped": read_packed(file, mapped=True),
        "shards": read_shards(folder),
    }
    for name, shapes in sets.items():
        features = standardize(shapes.features)
        assert is_mapped(shapes.points) == is_mapped(features.image) == (name != "memory")
        for placement in ("device", "host", "mmap"):
            with BatchStream(
                ResidentShapes(shapes, features, rows, CPU, placement), HOW, 8, 2, 1, 8
            ) as stream:
                found = list(stream)
            expected = expected or found
            assert_same_batches(found, expected)


def test_a_thread_draws_two_batches_ahead_and_ends():
    shapes = resident(placement="mmap")
    drawn, real = [], shapes.draw
    shapes.draw = lambda index, step, how: drawn.append(int(step[0])) or real(index, step, how)
    threads = threading.active_count()
    stream = BatchStream(shapes, HOW, 8, 1, 0, 100)
    for _ in range(3):
        next(stream)
    while len(drawn) < 5:  # three taken, two waiting
        time.sleep(0.01)
    time.sleep(0.2)
    assert drawn == [0, 1, 2, 3, 4]
    assert threading.active_count() == threads + 1
    stream.close()
    assert threading.active_count() == threads


def test_an_error_of_the_thread_is_raised_where_the_batch_is_wanted():
    shapes = resident(placement="mmap")
    real = shapes.draw

    def draw(index, step, how):
        if step[0] == 2:
            raise OSError("the disk is gone")
        return real(index, step, how)

    shapes.draw = draw
    with BatchStream(shapes, HOW, 8, 1, 0, 9) as stream:
        assert [next(stream).points.shape for _ in range(2)] == [(8, 64, 3)] * 2
        with pytest.raises(OSError, match="the disk is gone"):
            next(stream)


def test_batches_for_a_gpu_are_made_in_page_locked_memory(monkeypatch):
    """Without a GPU: what is asked of torch."""
    asked, pinned, real = [], [], torch.empty

    def empty(*shape, pin_memory=False, **how):
        asked.append(pin_memory)
        return real(*shape, **how)

    monkeypatch.setattr(placement_module.torch, "empty", empty)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda x: pinned.append(x.shape) or x)
    shapes = resident(placement="mmap")
    expected = shapes.draw(torch.arange(4), torch.zeros(4, dtype=torch.int64), HOW)
    assert (asked, pinned) == ([False] * 3, [])
    asked.clear()
    shapes.pin = True
    for table in (shapes.points, shapes.image, shapes.text):
        table.pin = True
    found = shapes.draw(torch.arange(4), torch.zeros(4, dtype=torch.int64), HOW)
    assert asked == [True] * 3  # points, image, text
    assert pinned == [(4,), (4,), (4,), (4, 9), (4,)]  # label, view, prompt, noise, keys of changes
    assert torch.equal(found.points, expected.points)
    copies, to = [], torch.Tensor.to
    monkeypatch.setattr(torch.Tensor, "to", lambda x, *a, **k: copies.append(k) or to(x, *a, **k))
    shapes.finish(found, HOW)
    assert copies == [{"non_blocking": True}] * 6


def test_auto_takes_the_first_place_that_the_shapes_fit_into(packed, monkeypatch):
    mapped, memory = read_packed(packed[0], mapped=True), read_packed(packed[0])
    rows = np.arange(10)
    needed = needed_bytes(mapped, mapped.features, rows)
    points = int(np.diff(mapped.offsets)[:10].sum())
    assert needed == points * 3 * 2 + 10 * 2 * 8 * 4 + 3 * 8 * 4
    free = {"cuda": 0, "cpu": 0}
    monkeypatch.setattr(placement_module, "free_memory", lambda device: free[device.type])
    gpu = torch.device("cuda")
    for on_gpu, on_host, expected, unmapped in (
        (2 * needed, 0, "device", "device"),
        (2 * needed - 1, 2 * needed, "host", "host"),
        (0, 2 * needed - 1, "mmap", "host"),
    ):
        free |= {"cuda": on_gpu, "cpu": on_host}
        assert choose_placement("auto", mapped, mapped.features, rows, gpu) == expected
        assert choose_placement("auto", memory, memory.features, rows, gpu) == unmapped
    assert choose_placement("host", mapped, mapped.features, rows, gpu) == "host"
    with pytest.raises(InputError, match=r"data.placement mmap needs a set that `recon-fast pack` wrote"):
        choose_placement("mmap", memory, memory.features, rows, gpu)


def test_free_memory_is_shared_by_the_processes_of_a_machine(monkeypatch):
    alone = free_memory(CPU)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert free_memory(CPU) == pytest.approx(alone / 4, rel=0.2)


MEASURE = """
import json, sys
from pathlib import Path
import numpy as np, torch
from recon_fast.data.packed import read_packed
from recon_fast.data.batches.resident import ResidentShapes, Sampling
from recon_fast.data.batches.stream import BatchStream

def memory():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024

def draw(shapes, steps):
    mapped = ResidentShapes(shapes, None, np.arange(len(shapes)), torch.device("cpu"), "mmap")
    with BatchStream(mapped, Sampling(256), 4, 1, 0, steps) as batches:
        list(batches)

torch.set_num_threads(1)
draw(read_packed(Path(sys.argv[2]), mapped=True), 2)
sizes = [memory()]
shapes = read_packed(Path(sys.argv[1]), mapped=True)
sizes.append(memory())
draw(shapes, 8)
sizes.append(memory())
print(json.dumps({"sizes": sizes, "bytes": shapes.points.nbytes}))
"""


def test_a_mapped_file_is_not_in_memory(tmp_path):
    """Opening, verifying and drawing from 100 MB takes what is touched: 32 clouds of 96 KB."""
    rng = np.random.default_rng(0)
    for name, count in (("big", 1024), ("small", 8)):
        clouds = rng.standard_normal((count, 8192, 3), np.float32)
        (tmp_path / name).mkdir()
        with_h5(tmp_path / name / "data.h5", clouds)
        pack(open_source(tmp_path / name), tmp_path / f"{name}.h5", dtype=np.float32)
    script = [sys.executable, "-c", MEASURE, str(tmp_path / "big.h5"), str(tmp_path / "small.h5")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(script, env=environment, capture_output=True, text=True, check=True, timeout=120)
    found = json.loads(done.stdout)
    assert found["bytes"] > 100e6
    before, opened, drawn = found["sizes"]
    assert opened - before < 40  # a block of 16 MB is read at once
    assert drawn - before < 50


def with_h5(file: Path, clouds: np.ndarray) -> None:
    import h5py

    with h5py.File(file, "w") as target:
        target["data"] = clouds
