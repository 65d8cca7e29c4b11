import pickle
import shutil

import numpy as np
import pytest
from layouts import cloud, write_modelnet, write_modelnet_cache, write_modelnet_hdf5, write_table

from recon_fast.data.loading import DataProblems, load
from recon_fast.data.open import open_source
from recon_fast.errors import InputError

SMALL = {"num_points": 64, "max_points": 128}
CACHE = "modelnet40_{}_8192pts_fps.dat"


@pytest.mark.parametrize("classes", [40, 10])
def test_text_files(tmp_path, classes):
    source = open_source(write_modelnet(tmp_path, classes=classes))
    assert source.class_names == ["bed", "night_stand"]
    assert source.up == "y"
    shapes, problems = load(source, **SMALL, workers=2)
    assert not problems
    assert [shapes.keys[i] for i in shapes.rows("test")] == ["bed_0004", "night_stand_0004"]
    for i, key in enumerate(shapes.keys):
        name, number = key.rsplit("_", 1)
        assert shapes.class_names[shapes.labels[i]] == name
        expected = cloud(10 * shapes.labels[i] + int(number) - 1, 64, 6)[:, :3]
        np.testing.assert_allclose(shapes.cloud(i), expected, atol=6e-7)


def test_lists_of_both_modelnets_in_one_folder(tmp_path):
    write_modelnet(tmp_path)
    write_modelnet(tmp_path, per_class=2, classes=10)
    assert len(open_source(tmp_path).entries) == len(open_source(tmp_path, "modelnet40").entries) == 8
    assert len(open_source(tmp_path, "modelnet10").entries) == 4


def test_the_cache_goes_before_the_text_files(tmp_path):
    write_modelnet(tmp_path)
    write_modelnet_cache(tmp_path)
    shapes, problems = load(open_source(tmp_path), **SMALL, workers=2)
    assert not problems
    assert shapes.keys[5:7] == ["modelnet40_train_8192pts_fps/5", "modelnet40_test_8192pts_fps/0"]
    assert shapes.held_out.tolist() == [False] * 6 + [True] * 2
    assert shapes.labels.tolist() == [0, 1, 0, 1, 0, 1, 0, 1]
    assert shapes.class_names == ["bed", "night_stand"]
    assert shapes.conventions.up == "y"
    for i, seed in enumerate([*range(6), *range(2)]):
        np.testing.assert_array_equal(shapes.cloud(i), cloud(seed, 64, 6)[:, :3])


def test_half_a_cache_leaves_the_text_files(tmp_path):
    write_modelnet(tmp_path)
    write_modelnet_cache(tmp_path)
    (tmp_path / CACHE.format("test")).unlink()
    assert open_source(tmp_path).entries[0].key == "bed_0001"
    shutil.rmtree(tmp_path / "bed")
    shutil.rmtree(tmp_path / "night_stand")
    with pytest.raises(InputError, match=r"got neither in .*, only modelnet40_train_8192pts_fps\.dat"):
        open_source(tmp_path)


def test_everything_that_is_wrong_is_listed_at_once(tmp_path):
    root = write_modelnet(tmp_path)
    (root / "bed" / "bed_0001.txt").unlink()
    write_table(root / "bed" / "bed_0002.txt", cloud(0, 10, 6))
    with (root / "modelnet40_train.txt").open("a") as file:
        file.write("\nnight_stand_0004\ncar_0001\nbed")
    with pytest.raises(DataProblems) as error:
        load(open_source(root), **SMALL)
    no_class = "must be <class>_<number> of a class in modelnet40_shape_names.txt"
    assert [(p.key, p.file.name, p.what.split(",")[0]) for p in error.value.problems] == [
        ("bed_0001", "bed_0001.txt", "must be the shape's cloud"),
        ("car_0001", "modelnet40_train.txt", no_class),
        ("bed", "modelnet40_train.txt", no_class),
        ("night_stand_0004", "modelnet40_test.txt", "must be listed once"),
        ("bed_0002", "bed_0002.txt", "must have at least 64 points"),
    ]


@pytest.mark.parametrize("name", ["shape_names", "train", "test"])
def test_a_missing_list(tmp_path, name):
    (write_modelnet(tmp_path) / f"modelnet40_{name}.txt").unlink()
    with pytest.raises(InputError, match=rf"modelnet40_{name}\.txt must list the "):
        open_source(tmp_path)


CONTENTS = {
    "no pair": ([[]], "must be [list of clouds, list of as many labels]"),
    "lengths": ([[cloud(0)], []], "must be [list of clouds, list of as many labels]"),
    "no cloud": ([[cloud(0), "x"], [0, 0]], "row 1: must be an array of points, got str"),
    "no label": ([[cloud(0)], [0.5]], "row 0: label must be one whole number, got float"),
    "two labels": ([[cloud(0)], [np.zeros(2, int)]], "row 0: label must be one whole number, got ndarray"),
    "no class": ([[cloud(0)], [np.array([2])]], "row 0: label must be below 2, got 2"),
    "shape": ([[cloud(0)[0]], [0]], "row 0: must be numbers [N, 3 or more], got float32 [3]"),
    "finite": ([[cloud(0) * np.nan], [0]], "row 0: must be finite, got NaN or inf in 64 of 64 points"),
    "objects": ([[np.array([None])], [0]], "arrays and plain values alone, got the numpy dtype 'O"),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_a_wrong_cache_is_a_problem(tmp_path, name):
    content, what = CONTENTS[name]
    path = write_modelnet_cache(tmp_path) / CACHE.format("test")
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(DataProblems) as error:
        load(open_source(tmp_path), **SMALL)
    (problem,) = error.value.problems
    assert problem.file == path
    assert what in problem.what


def test_a_cache_that_changed_is_read_again(tmp_path):
    root = write_modelnet_cache(tmp_path)
    assert len(open_source(root).entries) == 8
    write_modelnet_cache(tmp_path, (3, 2))
    assert len(load(open_source(root), **SMALL)[0]) == 5


def write_lists(root, train="ply_data_train0.h5", test="ply_data_test0.h5", **more):
    for split, text in {"train": train, "test": test, **more}.items():
        (root / f"{split}_files.txt").write_text(text + "\n")


def test_hdf5_files_of_the_lists_alone(tmp_path):
    root = write_modelnet_hdf5(tmp_path)
    folder = "data/modelnet40_ply_hdf5_2048/"
    shutil.copy(root / "ply_data_train0.h5", root / "more.h5")
    shutil.copy(root / "ply_data_test0.h5", root / "choose.h5")
    write_lists(root, folder + "ply_data_train0.h5", folder + "ply_data_test0.h5", val="choose.h5")
    shapes, _ = load(open_source(root), **SMALL)
    assert [len(shapes.rows(split)) for split in ("train", "val", "trainval", "test")] == [10, 4, 14, 4]
    assert shapes.keys[0] == "choose/0"
    assert shapes.conventions.up == "unknown"


def test_a_listed_hdf5_file_that_is_missing(tmp_path):
    root = write_modelnet_hdf5(tmp_path)
    write_lists(root, "ply_data_train0.h5\nply_data_train1.h5")
    (problem,) = open_source(root).problems
    assert problem.file == root / "ply_data_train1.h5"
    assert problem.what == "must be there, as train_files.txt lists it"
    assert len(open_source(root / "ply_data_train0.h5").entries) == 10
