import pickle

import h5py
import numpy as np
import pytest
from layouts import TETRAHEDRON, cloud, cut, write_npy

from recon_fast.data.readers.clouds import BadFile, key_seed, read_cloud

VERTICES = "0 0 0\n1 0 0\n0 1 0\n0 0 1\n"
PLY = "ply\nformat ascii 1.0\nelement vertex 4\nproperty float x\nproperty float y\nproperty float z\n"
OBJ = "mtllib absent.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nusemtl a\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"
RELATIVE = (
    "o ground\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvn 0 0 1\nf -3//1 -2//1 -1//1\n"
    "o wall\nv 0 0 0\nv 1 0 0\nv 0 0 1\nf -3//-1 -2//-1 -1//-1\n"
)
FACES = "3 0 2 1\n3 0 1 3\n3 0 3 2\n3 1 2 3\n"
MESHES = {
    "a.off": "OFF\n" + TETRAHEDRON,
    "commented.off": "OFF\n# a comment\n" + TETRAHEDRON,
    "glued.off": "OFF" + TETRAHEDRON,
    "small.off": "off\n" + TETRAHEDRON,
    "normals.off": "NOFF\n4 4 0\n0 0 0 0 0 1\n1 0 0 0 0 1\n0 1 0 0 0 1\n0 0 1 0 0 1\n" + FACES,
    "quads.off": "OFF\n4 1 4\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n4 0 1 2 3\n",
    "a.obj": OBJ,
    "UPPER.OBJ": OBJ,
    "latin.obj": "# caf\udce9\n" + OBJ,  # a byte that is no UTF-8
    "latin.off": "OFF\n# caf\udce9\n" + TETRAHEDRON,
    "marked.obj": "\ufeff" + OBJ,
    "relative.obj": RELATIVE,
    "a.ply": PLY + "element face 4\nproperty list uchar int vertex_indices\nend_header\n" + VERTICES + FACES,
}


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int32"])
@pytest.mark.parametrize("columns", [3, 6])
def test_npy_gives_the_first_three_columns(tmp_path, dtype, columns):
    points = (cloud(columns=columns) * 100).astype(dtype)
    read = read_cloud(write_npy(tmp_path / "a.npy", points))
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, points[:, :3].astype(np.float32))


@pytest.mark.parametrize("name", MESHES)
def test_meshes_are_sampled_on_their_surface_alike_each_time(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(MESHES[name].encode(errors="surrogateescape"))
    read = read_cloud(path, num_surface_points=500, seed=key_seed("a"))
    assert read.shape == (500, 3)
    assert read.dtype == np.float32
    x, y, z = read.T
    plane = np.abs(z) if name == "quads.off" else np.abs(np.stack([x, y, z, (1 - x - y - z) / 3])).min(0)
    assert plane.max() < 1e-6
    np.testing.assert_array_equal(read, read_cloud(path, num_surface_points=500, seed=key_seed("a")))
    assert not np.array_equal(read, read_cloud(path, num_surface_points=500, seed=key_seed("b")))


def test_faces_counted_back_are_of_the_vertices_before_them(tmp_path):
    (tmp_path / "a.obj").write_text(RELATIVE)
    x, y, z = read_cloud(tmp_path / "a.obj", num_surface_points=500).T
    assert (np.maximum(y, z) > 0.5).any(0)
    assert y.max() > 0.5
    assert z.max() > 0.5
    assert np.minimum(y, z).max() < 1e-6
    assert x.max() <= 1


@pytest.mark.parametrize("order", ["ascii", "<", ">"])
def test_ply_clouds_with_normals_and_colours(tmp_path, order):
    points, path = cloud(columns=6), tmp_path / "a.ply"
    form = {"ascii": "ascii", "<": "binary_little_endian", ">": "binary_big_endian"}[order]
    names = "".join(f"property float {name}\n" for name in ("x", "y", "z", "nx", "ny", "nz"))
    header = f"ply\nformat {form} 1.0\nelement vertex 64\n{names}property uchar red\nend_header\n"
    if order == "ascii":
        body = "".join(" ".join(map(repr, row.tolist())) + " 7\n" for row in points).encode()
    else:
        body = b"".join(row.astype(f"{order}f4").tobytes() + b"\7" for row in points)
    path.write_bytes(header.encode() + body)
    np.testing.assert_array_equal(read_cloud(path), points[:, :3])


def test_ply_cloud_gives_its_vertices(tmp_path):
    path = tmp_path / "a.ply"
    path.write_text(PLY + "end_header\n" + VERTICES)
    assert read_cloud(path).tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_h5_gives_a_row(tmp_path):
    data = np.stack([cloud(i, columns=6) for i in range(3)])
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = data
    np.testing.assert_array_equal(read_cloud(tmp_path / "a.h5", 2), data[2, :, :3])
    with pytest.raises(BadFile, match="must have row 3, got 3 rows"):
        read_cloud(tmp_path / "a.h5", 3)


class Harmful:
    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


def pickled(path):
    array = np.array([Harmful()], object)
    with path.open("wb") as file:
        np.lib.format.write_array(file, array, allow_pickle=True)


def hdf5(path, **arrays):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array


def with_value(value):
    points = cloud()
    points[[4, 9], 1] = value
    return points


def huge(path):
    """A header that announces more points than any memory holds."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (10**15, 3)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)


BAD = {
    "missing.npy": (lambda p: None, "cannot be read: No such file"),
    "a_folder.npy": (lambda p: p.mkdir(), "cannot be read: Is a directory"),
    "empty_file.npy": (lambda p: p.touch(), "must be a whole .npy array"),
    "text.npy": (lambda p: p.write_text("1 2 3\n" * 99), "must be a whole .npy array"),
    "raw_pickle.npy": (lambda p: p.write_bytes(pickle.dumps([Harmful()])), "must be a whole .npy array"),
    "pickled.npy": (pickled, "must be a whole .npy array"),
    "truncated.npy": (lambda p: cut(write_npy(p, cloud())), "must be a whole .npy array"),
    "cut_in_header.npy": (lambda p: cut(write_npy(p, cloud()), 0.05), "must be a whole .npy array"),
    "huge.npy": (huge, "must be a whole .npy array"),
    "bad_face.obj": (lambda p: p.write_text("v 0 0 0\nf -1 a b\n"), "must be a whole .obj file"),
    "two_columns.npy": (lambda p: np.save(p, cloud()[:, :2]), "numbers [N, 3 or more], got float32 [64, 2]"),
    "batch.npy": (lambda p: np.save(p, cloud()[None]), "numbers [N, 3 or more], got float32 [1, 64, 3]"),
    "complex.npy": (lambda p: np.save(p, cloud() * 1j), "got complex64 [64, 3]"),
    "no_points.npy": (lambda p: np.save(p, cloud()[:0]), "must have at least 10 points, got 0"),
    "few.npy": (lambda p: np.save(p, cloud()[:9]), "must have at least 10 points, got 9"),
    "nan.npy": (lambda p: np.save(p, with_value(np.nan)), "got NaN or inf in 2 of 64 points"),
    "inf.npy": (lambda p: np.save(p, with_value(-np.inf)), "got NaN or inf in 2 of 64 points"),
    "beyond.npy": (
        lambda p: np.save(p, cloud().astype(float) * 1e300),
        "must be of a size that float32 can square",
    ),
    "tiny.npy": (lambda p: np.save(p, cloud() * 1e-20), "must be of a size that float32 can square"),
    "coarse.npy": (
        lambda p: np.save(p, cloud() + np.float32(5e6)),
        "coordinates up to 5e+06 in steps of 0.5",
    ),
    "turned.npy": (lambda p: np.save(p, cloud().T), "got [3, 64]: it looks transposed"),
    "turned_normals.npy": (lambda p: np.save(p, cloud(columns=6).T), "got [6, 64]: it looks transposed"),
    "empty.off": (lambda p: p.touch(), "must begin with the word OFF"),
    "other.off": (lambda p: p.write_text("hello"), "must begin with the word OFF"),
    "headless.off": (lambda p: p.write_text(TETRAHEDRON), "must begin with the word OFF"),
    "commas.off": (lambda p: p.write_text(MESHES["a.off"].replace("1 0 0", "1,5 0,5 0,5")), "decimal commas"),
    "commas.obj": (lambda p: p.write_text(OBJ.replace("1 0 0", "1,5 0,5 0,5")), "decimal commas"),
    "cut.off": (lambda p: p.write_text(MESHES["a.off"][:25]), "must be a whole .off file"),
    "cut_faces.off": (lambda p: p.write_text("OFF\n4 4 6\n" + VERTICES), "must be a whole .off file"),
    "wrong_index.off": (lambda p: p.write_text(MESHES["a.off"].replace("3 0 2", "3 0 9")), "whole .off file"),
    "flat.off": (lambda p: p.write_text("OFF\n3 1 0\n0 0 0\n0 0 0\n0 0 0\n3 0 1 2\n"), "area above 0"),
    "no_face.obj": (lambda p: p.write_text("v 0 0 0\nv 1 0 0\n"), ".obj"),
    "empty.obj": (lambda p: p.touch(), ".obj"),
    "cut.ply": (lambda p: p.write_text(PLY + "end_header\n" + VERTICES[:12]), "must be a whole .ply file"),
    "text.ply": (lambda p: p.write_text("hello"), "must be a whole .ply file"),
    "other.xyz": (lambda p: p.write_text("1 2 3"), "must have at least 10 points, got 1"),
    "text.h5": (lambda p: p.write_text("hello"), "is damaged or not an HDF5 file"),
    "other.fbx": (lambda p: p.write_text("1 2 3"), "a cloud must be one of .npy .ply .off .obj .stl"),
    "no_cloud.h5": (
        lambda p: hdf5(p, names=cloud()[:, :2]),
        "array of clouds [S, N, 3 or more], got names [64, 2]",
    ),
    "flat.h5": (
        lambda p: hdf5(p, data=cloud()[:, :2]),
        "must have data [S, N, 3 or more], got float32 [64, 2]",
    ),
    "several.h5": (
        lambda p: hdf5(p, a=cloud()[None], b=cloud()[None]),
        "must have one array of clouds, got a [1, 64, 3], b [1, 64, 3]: name it (--data.array",
    ),
    "nan.h5": (lambda p: hdf5(p, data=with_value(np.nan)[None]), "got NaN or inf in 2 of 64 points"),
    "truncated.h5": (lambda p: cut(hdf5(p, data=cloud()[None]) or p), "is damaged or not an HDF5 file"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_named_in_one_line(tmp_path, name):
    path = tmp_path / name
    write, message = BAD[name]
    write(path)
    with pytest.raises(BadFile) as error:
        read_cloud(path, 0 if name.endswith("h5") else None, min_points=10)
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_cut_binary_ply_is_refused(tmp_path):
    header = PLY.replace("ascii", "binary_little_endian") + "end_header\n"
    path = tmp_path / "a.ply"
    points = cloud(count=4)
    path.write_bytes(header.encode() + points.tobytes())
    np.testing.assert_array_equal(read_cloud(path), points)
    path.write_bytes(header.encode() + points.tobytes()[:-5])
    with pytest.raises(BadFile, match=r"must be a whole \.ply file"):
        read_cloud(path)
