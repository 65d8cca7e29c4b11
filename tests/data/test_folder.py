import json

import h5py
import numpy as np
import pytest
from layouts import TETRAHEDRON, cloud, cut, write_folder, write_modelnet_hdf5, write_npy, write_picture

from recon_fast.data.loading import load
from recon_fast.data.open import open_source
from recon_fast.data.readers.hdf5 import is_held_out
from recon_fast.errors import InputError


def test_subfolders_are_classes(tmp_path):
    source = open_source(write_folder(tmp_path), held_out_fraction=0)
    assert source.class_names == ["ball", "box"]
    assert [(e.key, e.label) for e in source.entries][3:5] == [("ball/ball3", 0), ("box/box0", 1)]
    assert not any(e.held_out for e in source.entries)
    assert not source.problems


@pytest.mark.parametrize("outside", [True, False])
def test_no_labels_where_a_cloud_lies_outside_or_there_is_one_folder(tmp_path, outside):
    write_folder(tmp_path, ("ball", "box") if outside else ("clouds",))
    if outside:
        write_npy(tmp_path / "loose.npy", cloud())
    source = open_source(tmp_path)
    assert source.class_names == []
    assert {e.label for e in source.entries} == {None}


@pytest.mark.parametrize("order", ["{name}/{split}/{name}_{i}.off", "{split}/{name}/{name}_{i}.off"])
def test_test_folders_are_held_out(tmp_path, order):
    for name in ("chair", "night_stand"):
        for split in ("train", "test"):
            for i in range(2):
                path = tmp_path / order.format(name=name, split=split, i=i)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("OFF" + TETRAHEDRON)
    source = open_source(tmp_path)
    assert source.class_names == ["chair", "night_stand"]
    assert [e.held_out for e in source.entries] == ["test" in e.key for e in source.entries]
    assert {(e.label, "chair" in e.key) for e in source.entries} == {(0, True), (1, False)}


def test_hash_holds_out_the_share_and_the_same_shapes_whatever_else_there_is(tmp_path):
    keys = [f"shape{i}" for i in range(4000)]
    assert 0.08 < np.mean([is_held_out(key, 0.1) for key in keys]) < 0.12
    root = write_folder(tmp_path, per_class=20)
    before = {e.key: e.held_out for e in open_source(root, held_out_fraction=0.3).entries}
    write_folder(root, ("stick",), per_class=20)
    after = {e.key: e.held_out for e in open_source(root, held_out_fraction=0.3).entries}
    assert any(before.values())
    assert before == {key: after[key] for key in before}


def test_pictures_and_captions_lie_beside_the_clouds(tmp_path):
    root = write_folder(tmp_path, per_class=2)
    suffixes = iter((".png", ".jpg", ".jpeg", ".webp"))
    for file in sorted(root.rglob("*.npy")):
        write_picture(file.with_suffix(next(suffixes)))
    (root / "ball" / "ball0.txt").write_text("a ball\n")
    captions = {"ball/ball1": "another ball", "box/box0": "a box", "box/box1": "a bòx"}
    (root / "captions.json").write_text(json.dumps(captions))
    source = open_source(root)
    assert not source.problems
    assert [e.caption for e in source.entries] == ["a ball", "another ball", "a box", "a bòx"]
    assert [e.picture.suffix for e in source.entries] == [".png", ".jpg", ".jpeg", ".webp"]
    (root / "box" / "box0.jpeg").unlink()
    (root / "ball" / "ball0.txt").write_bytes(b"\xff\xfe")
    assert [(p.key, p.file.name) for p in open_source(root).problems] == [
        ("ball/ball0", "ball0.txt"),
        ("box/box0", "box0.npy"),
    ]


def test_hidden_folders_links_and_equal_stems(tmp_path):
    root = write_folder(tmp_path / "set", per_class=1)
    write_npy(root / ".recon_fast" / "hidden.npy", cloud())
    (root / "stick").symlink_to(write_folder(tmp_path / "other", ("x",), 1) / "x", target_is_directory=True)
    (root / "box" / "loop").symlink_to(root, target_is_directory=True)
    (root / "box" / "box0.off").write_text("OFF\n" + TETRAHEDRON)
    keys = [e.key for e in open_source(root).entries]
    assert keys == ["ball/ball0", "box/box0.npy", "box/box0.off", "stick/x0"]


def test_modelnet_hdf5(tmp_path):
    root = write_modelnet_hdf5(tmp_path)
    source = open_source(root)
    assert source.class_names == ["bed", "night_stand"]
    shapes, problems = load(source, num_points=64, max_points=64, workers=2)
    assert not problems
    assert len(shapes) == 14
    held_out = np.flatnonzero(shapes.held_out)
    assert [shapes.keys[i] for i in held_out] == [f"ply_data_test0/{i}" for i in range(4)]
    for key, i in zip(shapes.keys, range(14), strict=True):
        row = int(key.split("/")[1])
        np.testing.assert_array_equal(shapes.cloud(i), cloud(row))
        assert shapes.labels[i] == row % 2


def test_one_h5_file_without_labels_or_names(tmp_path):
    root = write_modelnet_hdf5(tmp_path, (30, 4))
    (root / "shape_names.txt").unlink()
    source = open_source(root / "ply_data_train0.h5", held_out_fraction=0.4)
    assert source.name == "ply_data_train0"
    assert source.class_names == ["0", "1"]
    assert 0 < sum(e.held_out for e in source.entries) < 30
    with h5py.File(root / "ply_data_train0.h5", "a") as file:
        del file["label"]
    source = open_source(root / "ply_data_train0.h5")
    assert source.class_names == []
    assert {e.label for e in source.entries} == {None}


def test_broken_hdf5_is_a_problem_and_the_rest_is_listed(tmp_path):
    root = write_modelnet_hdf5(tmp_path)
    cut(root / "ply_data_train0.h5")
    source = open_source(root)
    assert [p.file.name for p in source.problems] == ["ply_data_train0.h5"]
    assert len(source.entries) == 4
    with h5py.File(root / "ply_data_test0.h5", "a") as file:
        file["label"][2] = 7
    assert [p.key for p in open_source(root).problems][1:] == ["ply_data_test0/2"]


def test_what_cannot_be_used_as_a_whole_says_why(tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        open_source(tmp_path / "absent")
    (tmp_path / "notes.md").touch()
    with pytest.raises(InputError, match=r"with rows of numbers\), got only 1 \.md in"):
        open_source(tmp_path)
    with pytest.raises(InputError, match=r"got the file .*notes\.md"):
        open_source(tmp_path / "notes.md")
    write_folder(tmp_path)
    (tmp_path / "captions.json").write_text('{"ball/ball0": 3}')
    with pytest.raises(InputError, match=r"captions\.json must be JSON \{key: caption\}"):
        open_source(tmp_path)
    with pytest.raises(InputError, match=r"held_out_fraction must be in \[0, 1\), got 1.5"):
        open_source(tmp_path, held_out_fraction=1.5)
