"""Files as other programs write them: exporters' own, odd forms, cut ones, and headers that lie."""

import io
import os
import struct
import zipfile
from pathlib import Path

import h5py
import laspy
import numpy as np
import pytest
import trimesh
from layouts import cloud, cut, write_npy
from rich.console import Console

from recon_fast.config import DataConfig
from recon_fast.data.loading import DataProblems, load
from recon_fast.data.open import open_source, prepare_shapes
from recon_fast.data.readers.clouds import load_cloud, read_cloud
from recon_fast.data.shapes import BadFile
from recon_fast.errors import InputError

SCANS = Path(__file__).parent / "scans"  # ascii.pcd, binary.pcd and compressed.pcd, written by pypcd4 1.5.1
SMALL = {"num_points": 8, "max_points": 64, "workers": 1}


def scene():
    """A box of half the size, moved to x = 3, and a far one, as a scene with transforms."""
    box, made = trimesh.creation.box(), trimesh.Scene()
    small = trimesh.transformations.scale_matrix(0.5)
    made.add_geometry(box, transform=trimesh.transformations.translation_matrix([3, 0, 0]) @ small)
    made.add_geometry(box, transform=trimesh.transformations.translation_matrix([-3, 0, 0]))
    return made


def write_gltf(path):
    for name, content in scene().export(file_type="gltf").items():
        (path if name.endswith(".gltf") else path.parent / name).write_bytes(content)


MESHES = {
    "binary.stl": lambda p: p.write_bytes(scene().to_mesh().export(file_type="stl")),
    "text.stl": lambda p: p.write_text(scene().to_mesh().export(file_type="stl_ascii")),
    "padded.stl": lambda p: p.write_bytes(scene().to_mesh().export(file_type="stl") + b"\0\n"),
    "named.stl": lambda p: p.write_bytes(b"solid" + scene().to_mesh().export(file_type="stl")[5:]),
    "a.glb": lambda p: p.write_bytes(scene().export(file_type="glb")),
    "a.gltf": write_gltf,
}


@pytest.mark.parametrize("name", MESHES)
def test_meshes_and_scenes_with_their_transforms(tmp_path, name):
    MESHES[name](tmp_path / name)
    points = read_cloud(tmp_path / name, num_surface_points=2000)
    small = points[points[:, 0] > 0]
    np.testing.assert_allclose(
        [small.min(0), small.max(0)], [[2.75, -0.25, -0.25], [3.25, 0.25, 0.25]], atol=0.03
    )
    assert 0.15 < len(small) / len(points) < 0.25  # a quarter of the other's surface
    source = open_source(tmp_path)
    assert source.up == ("y" if name[:2] == "a." else "unknown")


def test_clouds_in_formats_of_meshes(tmp_path):
    points = cloud()
    (tmp_path / "a.obj").write_text("".join(f"v {x} {y} {z} 1 0 0\n" for x, y, z in points))
    (tmp_path / "b.off").write_text("OFF\n64 0 0\n" + "".join(f"{x} {y} {z}\n" for x, y, z in points))
    inner = trimesh.Scene()
    shift = trimesh.transformations.translation_matrix([1, 2, 3])
    inner.add_geometry(trimesh.PointCloud(points), transform=shift)
    (tmp_path / "c.glb").write_bytes(inner.export(file_type="glb"))
    for name, offset in (("a.obj", 0), ("b.off", 0), ("c.glb", np.array([1, 2, 3]))):
        np.testing.assert_allclose(read_cloud(tmp_path / name), points + offset, atol=1e-6)


@pytest.mark.parametrize("name", ["ascii", "binary", "compressed"])
def test_pcd(tmp_path, name):
    expected = read_cloud(SCANS / "binary.pcd")
    assert expected.shape == (40, 3)
    assert np.abs(expected * 10 - (expected * 10).round()).max() < 1e-5  # tenths, as they were written
    read = load_cloud(SCANS / f"{name}.pcd")
    np.testing.assert_allclose(read.points, expected, atol=1e-7)
    assert read.more
    head, data = (SCANS / f"{name}.pcd").read_bytes().split(b"DATA ")
    odd = tmp_path / "odd.pcd"
    odd.write_bytes(
        b"# .PCD v.7\r\n" + head.replace(b"\n", b"\r\n").replace(b"POINTS 40\r\n", b"") + b"DATA " + data
    )
    np.testing.assert_array_equal(load_cloud(odd).points, read.points)


def test_pcd_of_other_types_and_points_that_nobody_saw(tmp_path):
    header = "FIELDS rgb _ x y z\nSIZE 4 1 8 8 8\nTYPE U U F F F\nCOUNT 1 3 1 1 1\n"
    header += "WIDTH 2\nHEIGHT 2\nDATA binary\n"
    rows = [(0, 0, 0), (1, 2, 3), (np.nan,) * 3, (4, 5, 6)]
    body = b"".join(struct.pack("<I3x3d", 7, *row) for row in rows)
    (tmp_path / "a.pcd").write_bytes(header.encode() + body)
    np.testing.assert_array_equal(read_cloud(tmp_path / "a.pcd"), [(0, 0, 0), (1, 2, 3), (4, 5, 6)])


def las_bytes(suffix):
    header = laspy.LasHeader(point_format=3, version="1.2")
    header.scales, header.offsets = [0.001] * 3, [500000.0, 4649776.0, 100.0]
    file = laspy.LasData(header)
    points = cloud().astype(np.float64) * 10 + [500000.0, 4649776.0, 100.0]
    file.x, file.y, file.z = points.T
    out = io.BytesIO()
    file.write(out, do_compress=suffix == ".laz")
    return out.getvalue()


@pytest.mark.parametrize("suffix", [".las", ".laz"])
def test_surveys_are_moved_to_the_origin(tmp_path, suffix):
    (tmp_path / f"a{suffix}").write_bytes(las_bytes(suffix))
    read = load_cloud(tmp_path / f"a{suffix}")
    expected = cloud().astype(np.float64) * 10
    np.testing.assert_allclose(read.points, expected - expected.mean(0), atol=2e-3)
    assert read.far > 256
    assert read.more
    assert open_source(tmp_path).up == "z"


def test_batches_of_npy_and_npz(tmp_path):
    clouds = np.stack([cloud(i) for i in range(5)])
    np.save(tmp_path / "many.npy", clouds)
    np.savez(tmp_path / "b.npz", points=clouds, normals=clouds, label=np.arange(5))
    np.savez_compressed(tmp_path / "c.npz", clouds[0])
    shapes, _ = load(open_source(tmp_path), **SMALL)
    rows = [f"{name}/{i}" for name in ("b", "many") for i in range(5)]
    assert shapes.keys == sorted([*rows, "c"])
    for key, i in zip(shapes.keys, range(11), strict=True):
        np.testing.assert_array_equal(shapes.cloud(i), cloud(int(key[-1]) if "/" in key else 0))
    assert shapes.notes[0] == "not used: labels of b.npz, since beside other files folders are the classes"
    assert "clouds are the array `points` of b.npz" in shapes.notes
    alone, _ = load(open_source(tmp_path / "b.npz"), **SMALL)
    assert alone.labels.tolist() == list(range(5))
    assert len(load(open_source(tmp_path / "many.npy"), **SMALL)[0]) == 5


@pytest.mark.parametrize("name", ["points", "pointcloud", "xyz", "pos", "x"])
def test_hdf5_with_another_name(tmp_path, name):
    clouds = np.stack([cloud(i) for i in range(3)])
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file[name], file["faces"], file["labels"] = clouds, np.zeros((3, 9, 3), np.int64), [0, 1, 0]
    shapes, _ = load(open_source(tmp_path), **SMALL)
    np.testing.assert_array_equal(shapes.points, clouds.reshape(-1, 3))
    assert shapes.labels.tolist() == [0, 1, 0]
    assert shapes.notes[0] == f"clouds are the array `{name}` of a.hdf5"
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        file["xyz2"], file["group/deep"] = clouds[::-1], clouds + 1
    if name != "x":
        assert open_source(tmp_path).notes[0] == shapes.notes[0]
    np.testing.assert_array_equal(load(open_source(tmp_path, array="xyz2"), **SMALL)[0].cloud(0), clouds[2])
    np.testing.assert_array_equal(
        load(open_source(tmp_path, array="group/deep"), **SMALL)[0].cloud(0), clouds[0] + 1
    )
    problem = open_source(tmp_path, array="absent").problems[0]
    assert "must have an array absent, got faces, group, labels" in problem.what


def test_an_array_that_is_called_data_and_is_no_cloud(tmp_path):
    clouds = np.stack([cloud(i) for i in range(3)])
    for i, data in enumerate((np.zeros((3, 16)), np.zeros((3, 64, 16)), np.zeros(3))):
        np.savez(tmp_path / f"{i}.npz", data=data, points=clouds, y=np.arange(2))
        source = open_source(tmp_path / f"{i}.npz")
        np.testing.assert_array_equal(load(source, **SMALL)[0].cloud(1), cloud(1))
        assert source.notes == [
            f"clouds are the array `points` of {i}.npz",
            f"not used: `data`, `y` of {i}.npz",
        ]
    np.savez(tmp_path / "none.npz", data=clouds[:0], label=np.arange(0))
    with pytest.raises(InputError, match="at least one cloud"):
        load(open_source(tmp_path / "none.npz"), **SMALL)


def test_formats_that_state_different_axes_are_not_guessed(tmp_path):
    (tmp_path / "a.las").write_bytes(las_bytes(".las"))
    for i in range(9):
        (tmp_path / f"{i}.glb").write_bytes(scene().export(file_type="glb"))
    source = open_source(tmp_path)
    assert source.up == "unknown"
    assert source.notes == ["formats state different axes that are up: y in .glb, z in .las"]
    lines = io.StringIO()
    config = DataConfig(path=str(tmp_path), num_points=8)
    assert prepare_shapes(config, 0, Console(file=lines, width=300)).conventions.up == "unknown"
    assert "is not known, since its formats differ in it" in lines.getvalue()


def test_what_is_no_file_is_not_waited_for(tmp_path):
    for name in ("a.npy", "b.xyz", "c.h5", "d.txt"):
        os.mkfifo(tmp_path / name)
    write_npy(tmp_path / "e.npy", cloud())
    with pytest.raises(DataProblems) as error:
        load(open_source(tmp_path), **SMALL)
    assert sorted(problem.key for problem in error.value.problems) == ["a", "b", "c"]
    assert all("not a regular file" in problem.what for problem in error.value.problems)


def test_hdf5_of_one_cloud_each_has_its_folder_as_class(tmp_path):
    for name in ("chair", "table"):
        (tmp_path / name).mkdir()
        with h5py.File(tmp_path / name / "a.h5", "w") as file:
            file["data"] = cloud(len(name))
    source = open_source(tmp_path)
    assert [(e.key, e.label) for e in source.entries] == [("chair/a", 0), ("table/a", 1)]
    np.testing.assert_array_equal(load(source, **SMALL)[0].cloud(1), cloud(5))


def lying_glb():
    content = scene().export(file_type="glb")
    return (
        content.replace(b'"count":24', b'"count":99')
        .replace(b'"count":36', b'"count":99')
        .replace(b'"count":8,', b'"count":9999,')
    )


def lying_las():
    content = bytearray(las_bytes(".las"))
    content[107:111] = (10**9).to_bytes(4, "little")
    return bytes(content)


def npz_that_claims():
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (10**9, 2048, 3)}
    )
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("points.npy", header.getvalue())
    return out.getvalue()


STL = scene().to_mesh().export(file_type="stl")
PCD = (SCANS / "binary.pcd").read_bytes()
PACKED = (SCANS / "compressed.pcd").read_bytes()
ASCII = (SCANS / "ascii.pcd").read_bytes()
BAD = {
    "cut.stl": (STL[:-60], "24 triangles announced, 22 found"),
    "lying.stl": (
        STL[:80] + (10**9).to_bytes(4, "little") + STL[84:],
        "1000000000 triangles announced, 24 found",
    ),
    "few.stl": (STL[:80] + (3).to_bytes(4, "little") + STL[84:], "3 triangles announced, 24 found"),
    "cut_text.stl": (
        scene().to_mesh().export(file_type="stl_ascii")[:-200].encode(),
        "without the word endsolid",
    ),
    "cut.glb": (scene().export(file_type="glb")[:-60], "must be a whole .glb file"),
    "lying.glb": (lying_glb(), "must be a whole .glb file"),
    "draco.gltf": (
        b'{"asset": {}, "extensionsRequired": ["KHR_texture_basisu", "KHR_draco_mesh_compression"]}',
        "it needs KHR_draco_mesh_compression, which is not read",
    ),
    "outside.gltf": (
        scene().export(file_type="gltf")["model.gltf"].replace(b"gltf_buffer_0", b"../gltf_buffer_0"),
        "buffers must lie in the file's own folder, got ../gltf_buffer_0.bin",
    ),
    "alone.gltf": (scene().export(file_type="gltf")["model.gltf"], "cannot be read: No such file"),
    "cut.pcd": (PCD[:-9], "640 bytes of 40 points announced, 631 found"),
    "cut_text.pcd": (ASCII[:-40], "must be a whole .pcd file"),
    "cut_packed.pcd": (PACKED[:-9], "announced"),
    "lying.pcd": (PCD.replace(b"POINTS 40", b"POINTS 99"), "1584 bytes of 99 points announced"),
    "lying_text.pcd": (ASCII.replace(b"POINTS 40", b"POINTS 41"), "41 rows of 4 numbers announced"),
    "lying_packed.pcd": (PACKED.replace(b"POINTS 40", b"POINTS 900000000"), "announced"),
    "damaged.pcd": (PACKED[:-30] + b"\xff" * 30, "its compressed data are damaged"),
    "more_rows.pcd": (ASCII + b"1 2 3 4\n", "40 rows of 4 numbers announced, got [41, 4]"),
    "no_axes.pcd": (PCD.replace(b"FIELDS x y z", b"FIELDS a b c"), "FIELDS must have x, y and z"),
    "no_header.pcd": (b"hello", "must be a whole .pcd file"),
    "cut.las": (las_bytes(".las")[:-99], "must be a whole .las file"),
    "cut.laz": (las_bytes(".laz")[:-99], "must be a whole .laz file"),
    "lying.las": (lying_las(), "1000000000 points announced"),
    "hello.las": (b"hello", "must be a whole .las file"),
    "count.pts": (b"5\n1 2 3\n4 5 6\n", "must have the 5 points that it announces, got 2 rows"),
    "words.xyz": (b"1 2 3\n1 2 three\n", "must be rows of numbers, got '1 2 three' in line 2"),
}


@pytest.mark.parametrize("name", BAD)
def test_cut_and_lying_files_are_named(tmp_path, name):
    content, message = BAD[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadFile) as error:
        read_cloud(tmp_path / name)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    (problem,) = load_problems(tmp_path)
    assert problem.key == Path(name).stem


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("cut.npz", None, "must be a whole .npz file"),
        ("claims.npz", npz_that_claims(), "claims 24,576,000,000,000 bytes and stores"),
        ("two.npz", {"a": cloud(), "b": cloud()}, "must have one array of clouds, got a [64, 3], b [64, 3]"),
        ("none.npz", {"a": cloud()[:, :2]}, "must have an array of clouds [S, N, 3 or more], got a [64, 2]"),
        (
            "objects.npz",
            {"points": np.array([{}], object)},
            "array of clouds [S, N, 3 or more], got points [1]",
        ),
        ("brackets.npy", b"\x93NUMPY\x01\x00\x08\x00{((((((\n", "must be a whole .npy array"),
    ],
)
def test_arrays_that_cannot_be_used_are_named(tmp_path, name, content, message):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.savez(path, **(content or {"points": cloud()}))
    if content is None:
        cut(path)
    (problem,) = load_problems(tmp_path)
    assert message in problem.what


def load_problems(folder):
    with pytest.raises(DataProblems) as error:
        load(open_source(folder), **SMALL)
    return error.value.problems


def test_small_clouds_are_filled_up_on_demand(tmp_path):
    for count in (5, 8, 9):
        write_npy(tmp_path / f"{count}.npy", cloud(count=count))
    with pytest.raises(DataProblems, match=r"fill small clouds up with --data\.on_small repeat"):
        load(open_source(tmp_path), num_points=8, max_points=64)
    shapes, _ = load(open_source(tmp_path), num_points=8, max_points=64, repeat=True)
    assert np.diff(shapes.offsets).tolist() == [8, 8, 9]
    kinds, times = np.unique(shapes.cloud(0), axis=0, return_counts=True)
    np.testing.assert_array_equal(kinds, np.unique(cloud(count=5), axis=0))
    assert set(times) == {1, 2}
    assert shapes.notes == ["points were repeated, since there were too few, in 1 cloud"]
    again, _ = load(open_source(tmp_path), num_points=8, max_points=64, repeat=True)
    np.testing.assert_array_equal(shapes.points, again.points)
