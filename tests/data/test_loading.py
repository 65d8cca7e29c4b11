import threading
import time
from typing import get_args

import numpy as np
import pytest
from layouts import (
    TETRAHEDRON,
    cloud,
    cut,
    poison,
    write_folder,
    write_modelnet_hdf5,
    write_npy,
    write_picture,
    write_shapenet,
)
from PIL import Image

from recon_fast.config import Kind
from recon_fast.data.loading import DataProblems, Reading, in_order, load, problem_table
from recon_fast.data.open import LAYOUTS, open_source
from recon_fast.data.readers.clouds import BadFile
from recon_fast.data.readers.pictures import FilePictures, check_picture
from recon_fast.data.shapes import Problem
from recon_fast.errors import InputError

SMALL = {"num_points": 64, "max_points": 128}


@pytest.mark.parametrize("workers", [1, 3, None])
def test_clouds_come_in_order_with_all_that_belongs_to_them(tmp_path, workers):
    root = write_shapenet(tmp_path, per_class=30)
    seen = []
    source = open_source(root)
    shapes, problems = load(source, **SMALL, workers=workers, progress=lambda *count: seen.append(count))
    assert not problems
    assert seen[-1] == (90, 90)
    assert seen == sorted(seen)
    assert shapes.points.dtype == np.float32
    assert shapes.captions == [e.caption for e in source.entries]
    assert shapes.labels.tolist() == [e.label for e in source.entries]
    assert shapes.held_out.sum() == 3
    assert len(shapes.pictures) == 90
    for i, entry in enumerate(source.entries):
        np.testing.assert_array_equal(shapes.cloud(i), np.load(entry.cloud))


def test_every_layout_can_be_named():
    assert set(get_args(Kind)) == {"auto", "folder", *LAYOUTS}


def test_some_of_the_shapes(tmp_path):
    shapes, _ = load(open_source(write_shapenet(tmp_path)), **SMALL)
    rows = np.array([11, 2, 2])
    some = shapes.take(rows)
    assert some.keys == [shapes.keys[i] for i in rows]
    assert some.captions == [shapes.captions[i] for i in rows]
    assert some.held_out.tolist() == [True, False, False]
    assert some.class_names == shapes.class_names
    assert some.conventions == shapes.conventions
    for i, row in enumerate(rows):
        np.testing.assert_array_equal(some.cloud(i), shapes.cloud(row))
    assert len(shapes.take(rows[:0])) == 0


def test_clouds_of_many_sizes(tmp_path):
    for i in range(40):
        write_npy(tmp_path / f"{i:02}.npy", cloud(i, 64 + (37 * i) % 65))
    shapes, _ = load(open_source(tmp_path), **SMALL)
    for i in range(40):
        np.testing.assert_array_equal(shapes.cloud(i), cloud(i, 64 + (37 * i) % 65))


def test_large_clouds_are_cut_by_key_alone(tmp_path):
    for folder in ("one", "two"):
        write_npy(tmp_path / folder / "b.npy", cloud(1, 1000))
    write_npy(tmp_path / "two" / "a.npy", cloud(2, 1000))
    one, two = (load(open_source(tmp_path / name), **SMALL)[0] for name in ("one", "two"))
    np.testing.assert_array_equal(one.cloud(0), two.cloud(1))
    assert len(np.unique(one.cloud(0), axis=0)) == 128
    assert np.isin(one.cloud(0), cloud(1, 1000)).all()


def test_half_precision_neither_overflows_nor_loses_an_offset_cloud(tmp_path):
    write_npy(tmp_path / "a.npy", cloud(0) * 1e6 + 1e7)
    write_npy(tmp_path / "same.npy", np.full((64, 3), 7.0))
    shapes, _ = load(open_source(tmp_path), **SMALL, dtype=np.float16)
    assert shapes.points.dtype == np.float16
    exact = cloud(0) - cloud(0).mean(0)
    exact /= np.linalg.norm(exact, axis=1).max()
    np.testing.assert_allclose(shapes.cloud(0), exact, atol=2e-3)
    assert not shapes.cloud(1).any()


@pytest.mark.parametrize(("num", "most", "got"), [(64, 128, 128), (64, 99999, 8192), (9000, 99999, 9000)])
def test_meshes_get_8192_points_within_the_limits(tmp_path, num, most, got):
    (tmp_path / "a.off").write_text("OFF\n" + TETRAHEDRON)
    shapes, _ = load(open_source(tmp_path), num_points=num, max_points=most)
    assert len(shapes.cloud(0)) == got


def broken_set(root):
    write_shapenet(root)
    cut(root / "shapenet_pc" / "02691156-shape0.npy")
    poison(root / "shapenet_pc" / "02691156-shape1.npy")
    write_npy(root / "shapenet_pc" / "03001627-shape0.npy", cloud(0, 63))
    cut(root / "shapenet_img" / "03001627-shape0.png")
    (root / "shapenet_img" / "09000001-shape0.png").unlink()
    return root


def test_all_problems_are_in_one_table(tmp_path):
    root = broken_set(tmp_path)
    with pytest.raises(DataProblems, match=r"4 of 12 shapes in .* --data\.on_problem skip$") as error:
        load(open_source(root), **SMALL)
    lines = error.value.table.splitlines()
    assert len(lines) == 6
    for name, what in (
        ("shapenet_img/09000001-shape0.png", "no such file"),
        ("shapenet_pc/02691156-shape0.npy", "must be a whole .npy"),
        ("shapenet_pc/02691156-shape1.npy", "NaN or inf in 3 of 64 points"),
        ("shapenet_pc/03001627-shape0.npy", "at least 64 points, got 63"),
        ("shapenet_img/03001627-shape0.png", "must be a whole picture"),
    ):
        assert sum(name in line and what in line for line in lines) == 1


def test_broken_shapes_can_be_left_out(tmp_path):
    shapes, problems = load(open_source(broken_set(tmp_path)), **SMALL, on_problem="skip")
    assert len(shapes) == len(shapes.pictures) == len(shapes.captions) == len(shapes.labels) == 8
    assert len(problems) == 5
    assert not {p.key for p in problems} & set(shapes.keys)
    for i, key in enumerate(shapes.keys):
        np.testing.assert_array_equal(shapes.cloud(i), np.load(tmp_path / "shapenet_pc" / f"{key}.npy"))
        assert shapes.pictures.paths[i].stem == key


def test_nothing_left_is_an_error_all_the_same(tmp_path):
    for file in write_folder(tmp_path).rglob("*.npy"):
        cut(file)
    with pytest.raises(DataProblems):
        load(open_source(tmp_path), **SMALL, on_problem="skip")


def test_a_broken_hdf5_row_spares_the_others(tmp_path):
    import h5py

    root = write_modelnet_hdf5(tmp_path)
    with h5py.File(root / "ply_data_train0.h5", "a") as file:
        file["data"][3, 5, 1] = np.inf
    shapes, problems = load(open_source(root), **SMALL, on_problem="skip")
    assert [(p.key, p.what[:16]) for p in problems] == [("ply_data_train0/3", "row 3: must be f")]
    assert len(shapes) == 13


def test_table_is_capped():
    from pathlib import Path

    problems = [Problem(f"shape{i}", Path(f"{i}.npy"), "must\nbe") for i in range(70)]
    lines = problem_table(problems).splitlines()
    assert len(lines) == 52
    assert lines[-1] == "and 20 more"


def test_limits_must_fit():
    with pytest.raises(InputError, match=r"max_points must be at least num_points.* got 5 and 6"):
        Reading(6, 5)


def test_threads_run_only_a_little_ahead():
    running, started = threading.Event(), []

    def work(i):
        started.append(i)
        running.set()
        time.sleep(0.001)
        return i

    results = in_order(work, range(100), 2)
    assert next(results) == 0
    assert len(started) <= 6
    assert list(results) == list(range(1, 100))


PICTURES = {
    "rgb.png": "RGB", "rgba.png": "RGBA", "grey.png": "L", "p.png": "P", "a.jpg": "RGB", "a.webp": "RGB",
}  # fmt: skip


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_become_rgb_and_broken_ones_are_refused(tmp_path, name):
    path = write_picture(tmp_path / name, size=64)
    Image.open(path).convert(PICTURES[name]).save(path)
    check_picture(path)
    pictures = FilePictures([path])
    assert pictures[0].shape == (64, 64, 3)
    assert pictures[0].dtype == np.uint8
    before = pictures.digest(0)
    assert len(before) == 16
    cut(path, 0.8)
    assert pictures.digest(0) != before
    for use in (check_picture, lambda _: pictures[0]):
        with pytest.raises(BadFile, match=f"{name}: must be a whole picture"):
            use(path)


@pytest.mark.parametrize("deep", [True, False], ids=["16bit", "8bit"])
def test_grey_pictures_keep_their_brightness(tmp_path, deep):
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(grey.astype(np.uint16) * 257 if deep else grey).save(tmp_path / "a.png")
    np.testing.assert_array_equal(FilePictures([tmp_path / "a.png"])[0], np.stack([grey] * 3, -1))


def test_transparent_parts_are_white(tmp_path):
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, 0] = (255, 0, 0, 255)
    pixels[0, 1] = (0, 0, 0, 128)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert FilePictures([tmp_path / "a.png"])[0].tolist() == [[[255, 0, 0], [127] * 3], [[255] * 3] * 2]


@pytest.mark.parametrize("content", [b"", b"hello", None])
def test_no_picture_at_all_is_refused(tmp_path, content):
    path = tmp_path / "a.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadFile, match=r"a\.png: (not|must|cannot)"):
        check_picture(path)
