import json

import h5py
import numpy as np
import pytest
from layouts import cloud, cut, write_shapenet_part, write_table

from recon_fast.data.loading import DataProblems, load
from recon_fast.data.open import open_source
from recon_fast.data.packed import read_packed
from recon_fast.data.packing import pack
from recon_fast.data.readers.listed import CATEGORIES, NUM_PARTS
from recon_fast.errors import InputError

SMALL = {"num_points": 64, "max_points": 128}


def test_the_table_has_50_parts_in_16_categories_in_order():
    assert [part for category in CATEGORIES.values() for part in category.parts] == list(range(NUM_PARTS))
    assert len({category.synset for category in CATEGORIES.values()}) == len(CATEGORIES) == 16
    assert list(CATEGORIES) == sorted(CATEGORIES)
    synsets = [category.synset for category in CATEGORIES.values()]
    assert synsets == sorted(synsets)


def test_clouds_parts_and_splits(tmp_path):
    source = open_source(write_shapenet_part(tmp_path))
    shapes, problems = load(source, **SMALL, workers=2)
    assert not problems
    assert shapes.class_names == list(CATEGORIES)
    assert shapes.class_parts[1] == [4, 5]
    assert shapes.class_parts[11] == [36, 37]
    assert shapes.conventions.up == "y"
    assert [len(shapes.rows(split)) for split in ("train", "val", "trainval", "test")] == [4, 2, 6, 2]
    assert [shapes.keys[i] for i in shapes.rows("val")] == ["02773838/shape2", "03797390/shape2"]
    assert shapes.parts.dtype == np.uint8
    for i, key in enumerate(shapes.keys):
        first = shapes.class_parts[shapes.labels[i]][0]
        expected = cloud(first + int(key[-1]), 64, 6)[:, :3]
        np.testing.assert_allclose(shapes.cloud(i), expected, atol=6e-7)
        parts = shapes.parts[shapes.offsets[i] : shapes.offsets[i + 1]]
        np.testing.assert_array_equal(parts, first + np.arange(64) % 2)


def write_part_hdf5(root):
    """Three files of ShapeNetPart as PointNet has them: bags and mugs, 2048 points each."""
    for split, count in (("train", 4), ("val", 2), ("test", 2)):
        label = np.array([[1], [11]] * (count // 2), np.uint8)
        pid = np.where(label == 1, 4, 36) + np.arange(2048, dtype=np.uint8) % 2
        with h5py.File(root / f"ply_data_{split}0.h5", "w") as file:
            file["data"] = np.stack([cloud(i, 2048) for i in range(count)])
            file["label"], file["pid"] = label, pid
    return root


@pytest.mark.parametrize("lists", [False, True])
def test_hdf5_with_parts(tmp_path, lists):
    root = write_part_hdf5(tmp_path)
    if lists:
        for split, other in (("train", "test"), ("val", "val"), ("test", "train")):
            (root / f"{split}_hdf5_file_list.txt").write_text(f"ply_data_{other}0.h5\n")
    shapes, problems = load(open_source(root), **SMALL, workers=2)
    assert not problems
    assert not shapes.notes[1:]
    sizes = [len(shapes.rows(split)) for split in ("train", "val", "test")]
    assert sizes == ([2, 2, 4] if lists else [4, 2, 2])
    assert shapes.class_names == list(CATEGORIES)
    assert len(shapes.class_parts) == 16
    assert shapes.conventions.up == "y"
    assert shapes.parts.shape == (8 * 128,)
    for i, label in enumerate(shapes.labels):
        parts = shapes.parts[shapes.offsets[i] : shapes.offsets[i + 1]]
        assert set(parts) == set(shapes.class_parts[label])
    with h5py.File(root / "ply_data_val0.h5", "a") as file:
        file["pid"][1, :3] = 5
    with pytest.raises(DataProblems) as error:
        load(open_source(root), **SMALL)
    assert [(p.key, p.what) for p in error.value.problems] == [
        ("ply_data_val0/1", "row 1: parts must be 36 to 37, got 5 in 3 of 2048 points")
    ]


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_points_that_are_left_out_take_their_parts_along(tmp_path, dtype):
    root = write_shapenet_part(tmp_path, points=300)
    path = root / "02773838" / "shape0.txt"
    table = np.zeros((300, 7))
    table[:, 0], table[:, 6] = np.linspace(-1, 1, 300), 4 + (np.arange(300) >= 150)
    write_table(path, table, " ")
    shapes, _ = load(open_source(root), num_points=64, max_points=100, dtype=dtype)
    assert len(shapes.parts) == len(shapes.points) == 8 * 100
    i = shapes.keys.index("02773838/shape0")
    points, parts = shapes.cloud(i), shapes.parts[shapes.offsets[i] : shapes.offsets[i + 1]]
    assert points[parts == 4, 0].max() < points[parts == 5, 0].min()


def test_packed_with_parts_and_the_validation_split(tmp_path):
    source = open_source(write_shapenet_part(tmp_path / "set"))
    pack(source, tmp_path / "a.h5", dtype=np.float32, **SMALL)
    loaded, packed = load(source, **SMALL)[0], read_packed(tmp_path / "a.h5")
    for name in ("points", "parts", "validation", "held_out", "labels"):
        np.testing.assert_array_equal(getattr(packed, name), getattr(loaded, name))
    assert packed.class_parts == loaded.class_parts
    assert packed.conventions == loaded.conventions
    (tmp_path / "set" / "02773838" / "shape0.txt").unlink()
    pack(open_source(tmp_path / "set"), tmp_path / "b.h5", dtype=np.float32, on_problem="skip", **SMALL)
    np.testing.assert_array_equal(read_packed(tmp_path / "b.h5").parts, loaded.parts[64:])


def test_a_part_of_another_category_and_other_faults(tmp_path):
    root = write_shapenet_part(tmp_path)
    bag = root / "02773838"
    write_table(bag / "shape0.txt", np.hstack([cloud(0, 64, 6), np.full((64, 1), 12)]), " ")
    write_table(bag / "shape1.txt", np.hstack([cloud(0, 64, 6), np.full((64, 1), 4.5)]), " ")
    (bag / "shape2.txt").unlink()
    write_table(bag / "shape3.txt", cloud(0, 64, 3), " ")
    file = root / "train_test_split" / "shuffled_val_file_list.json"
    more = ["shape_data/999/a", "shape_data/03797390/shape0"]
    file.write_text(json.dumps(json.loads(file.read_text()) + more))
    with pytest.raises(DataProblems) as error:
        load(open_source(root), **SMALL)
    assert [(p.key, p.what) for p in error.value.problems] == [
        ("02773838/shape2", "must be the shape's cloud, got no such file"),
        ("999/a", 'must list "shape_data/<synset>/<id>" of one of the 16 synsets, got shape_data/999/a'),
        ("03797390/shape0", "must be listed once, in one list; found again"),
        ("02773838/shape0", "parts must be 4 to 5, got 12 in 64 of 64 points"),
        ("02773838/shape1", "parts must be 4 to 5, got 4.5 in 64 of 64 points"),
        ("02773838/shape3", "must have 4 or more columns, got another number in line 1"),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda folder: (folder / "shuffled_val_file_list.json").unlink(),
            "val_file_list.json must be a list of ShapeNetPart's shapes, .*: No such file",
        ),
        (
            lambda folder: cut(folder / "shuffled_test_file_list.json"),
            "test_file_list.json must be a list of ShapeNetPart's shapes, .*: Expecting value",
        ),
        (
            lambda folder: (folder / "shuffled_test_file_list.json").write_text("{}"),
            "must be a list of ShapeNetPart's shapes, .*: Expected `array`, got `object`",
        ),
        (
            lambda folder: (folder.parent / "synsetoffset2category.txt").write_text("Bag 03797390\n"),
            "must list ShapeNetPart's .*got Bag 03797390",
        ),
    ],
)
def test_a_layout_that_cannot_be_used_says_why(tmp_path, change, message):
    root = write_shapenet_part(tmp_path)
    change(root / "train_test_split")
    for kind in ("auto", "shapenetpart"):
        with pytest.raises(InputError, match=message):
            open_source(root, kind)
