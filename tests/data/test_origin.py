"""Clouds far from the origin, as maps and scanners give them, in every format."""

import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
from layouts import write_npy

from recon_fast.data.loading import load
from recon_fast.data.open import open_source
from recon_fast.data.packed import read_packed
from recon_fast.data.packing import pack
from recon_fast.data.readers.clouds import BadFile, check_points, read_cloud
from recon_fast.viz.data_page import inspect_data

PLACE = np.array([4.5e5, 5.4e6, 100.0])  # metres of a map
PLY = "ply\nformat {} 1.0\nelement vertex 200\nproperty double x\nproperty double y\nproperty double z\n"
END = "end_header\n"
CORNERS = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], float)
QUADS = (0, 2, 3, 1), (4, 5, 7, 6), (0, 1, 5, 4), (2, 6, 7, 3), (0, 4, 6, 2), (1, 3, 7, 5)
FACES = [corners for a, b, c, d in QUADS for corners in ((a, b, c), (a, c, d))]


def points():
    return PLACE + np.random.default_rng(0).uniform(0, 1, (200, 3))


def lines(rows, separator=" "):
    return "".join(separator.join(repr(float(value)) for value in row) + "\n" for row in rows)


def write_h5(path):
    with h5py.File(path, "w") as file:
        file["data"] = points()[None]


WRITERS = {
    "a.npy": lambda path: write_npy(path, points()),
    "a.txt": lambda path: path.write_text(lines(points(), ",")),
    "ascii.ply": lambda path: path.write_text(PLY.format("ascii") + END + lines(points())),
    "binary.ply": lambda path: path.write_bytes(
        (PLY.format("binary_little_endian") + END).encode() + points().astype("<f8").tobytes()
    ),
    "a.h5": write_h5,
    "a.dat": lambda path: path.write_bytes(pickle.dumps([[points()], [0]])),
    "a.pkl": lambda path: path.write_bytes(pickle.dumps({"train": [(points(), 0, 0)], "test": []})),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_keeps_the_shape_of_a_cloud(tmp_path, name):
    path = tmp_path / name
    WRITERS[name](path)
    read = read_cloud(path, 0 if name in ("a.h5", "a.dat", "a.pkl") else None)
    assert read.dtype == np.float32
    exact = points() - points().mean(0)
    np.testing.assert_allclose(read, exact, rtol=0, atol=3e-7)


def box(suffix):
    vertices = lines(PLACE + CORNERS)
    if suffix == "off":
        return f"OFF\n8 {len(FACES)} 0\n" + vertices + "".join(f"3 {a} {b} {c}\n" for a, b, c in FACES)
    if suffix == "obj":
        rows = "".join(f"v {line}\n" for line in vertices.splitlines())
        return rows + "".join(f"f {a + 1} {b + 1} {c + 1}\n" for a, b, c in FACES)
    header = PLY.format("ascii").replace("200", "8")
    header += f"element face {len(FACES)}\nproperty list uchar int vertex_indices\n" + END
    return header + vertices + "".join(f"3 {a} {b} {c}\n" for a, b, c in FACES)


@pytest.mark.parametrize("suffix", ["off", "obj", "ply"])
def test_points_on_a_mesh_are_as_fine_as_near_the_origin(tmp_path, suffix):
    path = tmp_path / f"box.{suffix}"
    path.write_text(box(suffix))
    read = read_cloud(path, num_surface_points=8192)
    assert min(len(np.unique(column)) for column in read.T) > 4000
    np.testing.assert_allclose(np.ptp(read, 0), 1, atol=1e-3)
    on_a_side = np.abs(np.abs(read - (read.max(0) + read.min(0)) / 2) - 0.5).min(1)
    assert on_a_side.max() < 1e-3


def test_a_cloud_near_the_origin_is_as_it_was():
    near = points() - PLACE + 100
    for one in (near, near.astype(np.float32), np.full((9, 3), 5.4e6)):  # the last has no width to lose
        loaded = check_points(Path("a"), one)
        assert loaded.far == 0
        assert loaded.points.dtype == one.dtype
        np.testing.assert_array_equal(loaded.points, one)


@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 200])
def test_nan_is_found_at_every_place_and_the_width_is_of_all_points(count):
    for row in range(count):
        one = np.ones((count, 3), np.float32)
        one[row, row % 3] = np.nan
        with pytest.raises(BadFile, match=f"NaN or inf in 1 of {count} points"):
            check_points(Path("a"), one)
        one[row, row % 3] = 1e4
        loaded = check_points(Path("a"), one.astype(np.float64) + 3e6)
        assert loaded.far == (pytest.approx(3.01e6 / 9999, rel=1e-6) if count > 1 else 0)
        near = check_points(Path("a"), one + np.float32(1e6))
        assert near.far == 0


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_training_packing_and_inspecting_see_the_shape_and_say_so(tmp_path, dtype):
    for i in range(3):
        write_npy(tmp_path / "set" / f"{i}.npy", points() - (PLACE if i else 0))
    source = open_source(tmp_path / "set")
    shapes, _ = load(source, num_points=100, max_points=200, dtype=dtype)
    packed = pack(source, tmp_path / "a.h5", num_points=100, max_points=200, dtype=dtype)
    exact = points() - points().mean(0)
    exact /= np.linalg.norm(exact, axis=1).max() if dtype == np.float16 else 1
    for one in (shapes, read_packed(tmp_path / "a.h5")):
        np.testing.assert_allclose(one.cloud(0), exact, rtol=1e-3, atol=1e-6 if dtype == np.float32 else 1e-3)
        assert len(one.notes) == 1
        assert one.notes[0].startswith("moved to the origin in float64")
        assert one.notes[0].endswith(": 1 cloud, up to 5.4e+06 times their width away")
    assert packed.notes == shapes.notes
    assert inspect_data(str(tmp_path / "set")).shapes.notes == shapes.notes
    assert inspect_data(str(tmp_path / "a.h5")).shapes.notes == shapes.notes
