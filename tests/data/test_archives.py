"""Clouds in .zip files."""

import io
import zipfile

import numpy as np
import pytest
import trimesh
from layouts import TETRAHEDRON, cloud, write_npy, write_picture

from recon_fast.data import packing
from recon_fast.data.loading import DataProblems, load
from recon_fast.data.open import open_source
from recon_fast.data.packed import read_packed
from recon_fast.data.packing import pack
from recon_fast.errors import InputError

SMALL = {"num_points": 8, "max_points": 64, "workers": 1}


def write_zip(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def npy_bytes(array):
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def test_an_archive_is_read_as_the_folder_in_it(tmp_path):
    write_picture(tmp_path / "picture.png")
    picture = (tmp_path / "picture.png").read_bytes()
    gltf = trimesh.Scene(trimesh.creation.box()).export(file_type="gltf")
    files = {
        "set/chair/train/a.npy": npy_bytes(cloud()),
        "set/chair/train/a.png": picture,
        "set/chair/train/a.txt": "a chair",
        "set/table/test/b.gltf": gltf.pop("model.gltf"),
        "set/table/test/b.png": picture,
        "set/table/test/b.txt": "a table",
        **{f"set/table/test/{name}": content for name, content in gltf.items()},
        "set/.hidden.npy": b"",
        "__MACOSX/set/._a.npy": b"",
    }
    source = open_source(write_zip(tmp_path / "clouds.zip", files))
    assert source.name == "clouds.zip"
    assert [(e.key, e.label, e.caption, e.held_out) for e in source.entries] == [
        ("chair/train/a", 0, "a chair", False),
        ("table/test/b", 1, "a table", True),
    ]
    shapes, problems = load(source, **SMALL)
    assert not problems
    np.testing.assert_array_equal(shapes.cloud(0), cloud())
    assert len(shapes.cloud(1)) == 64
    assert shapes.pictures[1].ndim == 3


def test_archives_among_other_files(tmp_path):
    write_npy(tmp_path / "chair" / "a.npy", cloud())
    (tmp_path / "table").mkdir()
    write_zip(
        tmp_path / "table" / "b.zip", {"b.off": "OFF\n" + TETRAHEDRON, "many.h5": b"", "c.npy": b"broken"}
    )
    source = open_source(tmp_path)
    assert [(e.key, e.label) for e in source.entries] == [
        ("chair/a", 0),
        ("table/b.zip/b", 1),
        ("table/b.zip/c", 1),
    ]
    with pytest.raises(DataProblems) as error:
        load(source, **SMALL)
    assert [(p.file.name, p.what[:34]) for p in error.value.problems] == [
        ("c.npy", "must be a whole .npy array of numb")
    ]


def test_an_archive_with_pictures_is_packed_and_packed_again_where_it_changed(tmp_path, monkeypatch):
    write_picture(tmp_path / "picture.png")
    picture = (tmp_path / "picture.png").read_bytes()

    def write(start):
        files = {f"./a/{i}.npy": npy_bytes(cloud(start + i)) for i in range(4)}
        return write_zip(tmp_path / "a.zip", files | {f"a\\{i}.png": picture for i in range(4)})

    packed = pack(open_source(write(0)), tmp_path / "a.h5", num_points=8, max_points=64, dtype=np.float32)
    assert packed.shapes == 4
    assert read_packed(tmp_path / "a.h5").pictures[3].ndim == 3
    with monkeypatch.context() as patch:
        patch.setattr(packing, "_finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            pack(open_source(tmp_path / "a.zip"), tmp_path / "out", shard_size=2, num_points=8, max_points=64)
    again = pack(open_source(write(10)), tmp_path / "out", shard_size=2, num_points=8, max_points=64)
    assert again.reused == 0


def test_a_broken_archive_is_one_of_the_problems(tmp_path):
    write_npy(tmp_path / "a.npy", cloud())
    (tmp_path / "notes.zip").write_text("x")
    source = open_source(tmp_path)
    assert [(p.key, p.what[:20]) for p in source.problems] == [("notes.zip", "must be a whole .zip")]
    assert len(load(source, **SMALL, on_problem="skip")[0]) == 1
    with pytest.raises(InputError, match="kind modelnet40 is read from a folder"):
        open_source(write_zip(tmp_path / "b.zip", {}), "modelnet40")


def test_archives_that_cannot_be_read(tmp_path):
    whole = write_zip(tmp_path / "a.zip", {"a.npy": npy_bytes(cloud()), "b.npy": npy_bytes(cloud())})
    damaged = bytearray(whole.read_bytes())
    damaged[60:90] = bytes(30)
    (tmp_path / "damaged.zip").write_bytes(damaged)
    with pytest.raises(DataProblems) as error:
        load(open_source(tmp_path / "damaged.zip"), **SMALL)
    assert [p.key for p in error.value.problems] == ["a"]
    for name, content, message in (
        ("cut.zip", bytes(damaged[:200]), "must be a whole .zip"),
        (
            "outside.zip",
            write_zip(tmp_path / "o.zip", {"../a.npy": b""}).read_bytes(),
            "relative names, got ../a.npy",
        ),
        ("hdf5.zip", write_zip(tmp_path / "h.zip", {"a.h5": b""}).read_bytes(), "HDF5 is read unpacked"),
        ("empty.zip", write_zip(tmp_path / "e.zip", {}).read_bytes(), "got none"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=message):
            open_source(tmp_path / name)
